"""Profiles: what a server says, read from TOML or written in Python, and the library of them."""
