"""Profiles: what a server does, as TOML or in Python, and the library of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.conversation import Handshake
from fakenbd.lazy import lazy_getattr
from fakenbd.profile.export_spec import ContentSpec, ExportSpec
from fakenbd.profile.profile import Expect, Profile

if TYPE_CHECKING:
    from fakenbd.profile.lookup import find, find_all, library, library_folder, select

__all__ = [
    "ContentSpec",
    "Expect",
    "ExportSpec",
    "Handshake",
    "Profile",
    "find",
    "find_all",
    "library",
    "library_folder",
    "select",
]

_LAZY = dict.fromkeys(("find", "find_all", "library", "library_folder", "select"), "lookup")

__getattr__ = lazy_getattr(__name__, _LAZY)
