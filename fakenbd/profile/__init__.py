"""Profiles: what a server says, read from TOML or written in Python, and the library of them."""

from fakenbd.profile.lookup import find, find_all, library, library_folder, select
from fakenbd.profile.plan import ContentPlan, ExportPlan
from fakenbd.profile.profile import Expect, Handshake, Profile

__all__ = [
    "ContentPlan",
    "Expect",
    "ExportPlan",
    "Handshake",
    "Profile",
    "find",
    "find_all",
    "library",
    "library_folder",
    "select",
]
