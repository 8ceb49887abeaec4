"""Profiles: what a server says, read from TOML or written in Python, and the library of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.conversation import Handshake
from fakenbd.later import later
from fakenbd.profile.plan import ContentPlan, ExportPlan
from fakenbd.profile.profile import Expect, Profile

if TYPE_CHECKING:
    from fakenbd.profile.lookup import find, find_all, library, library_folder, select

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

_LATER = dict.fromkeys(("find", "find_all", "library", "library_folder", "select"), "lookup")

__getattr__ = later(__name__, _LATER)
