"""The server's rules on bytes in clear after it accepted NBD_OPT_STARTTLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fakenbd.obligations.breach import Breach
from fakenbd.protocol.messages import Buffer

__all__ = ["judge_clear_bytes"]

_RECORDS: Final = (0x15, 0x16)
"""Types of TLS records that a server may begin with: alert, handshake."""
_VERSION: Final = 3


def judge_clear_bytes(head: Buffer, *, client_began: bool) -> Iterator[Breach]:
    """The rules broken by the server's first bytes behind the NBD_REP_ACK to NBD_OPT_STARTTLS.

    `head` is the first of these bytes, or more; `client_began`: the client had sent the first
    bytes of its TLS handshake before, without which a server sends nothing in TLS.
    """
    if not client_began:  # S-105
        yield Breach("S-105", "bytes in clear came behind the NBD_REP_ACK to NBD_OPT_STARTTLS")
    elif head[0] not in _RECORDS or (len(head) > 1 and head[1] != _VERSION):  # S-104
        yield Breach(
            "S-104", "bytes that are not TLS came where the server's TLS handshake was due"
        )
