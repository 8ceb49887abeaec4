"""Words of a server, made fit to be shown: they may be escapes, NULs, or no text at all."""

from __future__ import annotations

from typing import Final

from fakenbd.protocol.constants import Error, spec_name

__all__ = ["KNOWN_ERRORS", "error_name", "quoted", "visible"]

SHOWN: Final = 256
KNOWN_ERRORS: Final = frozenset(int(error) for error in Error)


def visible(text: str, *, limit: int = SHOWN) -> str:
    """`text` with every character that does not print as an escape, cut after `limit` characters.

    Bytes that were not UTF-8 show as the bytes that they were.
    """
    shown = "".join(
        character if character.isprintable() else _escape(character) for character in text[:limit]
    )
    return shown + "…" if len(text) > limit else shown


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that came as it is, see messages.py
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """`text` made visible, in double quotes: names of exports and contexts."""
    return f'"{visible(text)}"'


def error_name(error: int) -> str:
    """An error number as messages name it; numbers that NBD does not know are EINVAL (C-126)."""
    if error in KNOWN_ERRORS:
        return spec_name(Error, error)
    return f"error {error}, taken as NBD_EINVAL"
