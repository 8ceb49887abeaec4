"""Strings from the wire, escaped for display: they may hold terminal escapes or NULs."""

from __future__ import annotations

from typing import Final

__all__ = ["escaped", "quoted"]

_LIMIT: Final = 256
_SHORT: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def escaped(text: str, *, limit: int = _LIMIT) -> str:
    """`text` with every character that does not print as an escape, cut after `limit` characters.

    Bytes that were not UTF-8 (surrogate escapes) are shown in hexadecimal.
    """
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(one if one.isprintable() else _escape(one) for one in shown)
    return shown + "…" if len(text) > limit else shown


def quoted(text: str, *, limit: int = _LIMIT) -> str:
    """`text` escaped, in double quotes: names of exports and contexts."""
    return f'"{escaped(text, limit=limit)}"'


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
