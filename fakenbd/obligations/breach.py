"""A rule that a server broke, and the check of strings that both sides' rules share."""

from __future__ import annotations

from typing import Final, Literal

import attrs

from fakenbd.protocol.constants import MAXIMUM_STRING

__all__ = ["Breach", "string_flaw"]

_LONGEST: Final = 4 * MAXIMUM_STRING
"""Bytes of the longest string; a string of more characters is too long in any case."""


@attrs.frozen
class Breach:
    """The server broke `rule`, a row of the tables (S-...); `sentence` says how.

    The level is the row's, `fakenbd.protocol.rules.rule(rule)`, unless `level` has a milder one.
    """

    rule: str
    sentence: str
    level: Literal["SHOULD"] | None = None


def string_flaw(text: str) -> str | None:
    """Why `text` is no valid string of the protocol, as a clause; None if it is one (Conventions).

    A string is UTF-8 without NUL, at most 4096 bytes. Bytes that are not UTF-8 are surrogate
    escapes in `text`, as the decoders leave them.
    """
    if text.isascii():
        if len(text) > MAXIMUM_STRING:
            return f"has {len(text)} bytes, more than {MAXIMUM_STRING}"
        return "contains a NUL" if "\0" in text else None
    if len(text) > _LONGEST:
        return f"has more than {MAXIMUM_STRING} bytes"
    length = len(text.encode("utf-8", "surrogateescape"))
    if length > MAXIMUM_STRING:
        return f"has {length} bytes, more than {MAXIMUM_STRING}"
    if "\0" in text:
        return "contains a NUL"
    if any("\udc80" <= character <= "\udcff" for character in text):
        return "is not UTF-8"
    return None
