"""What a server sends in clear after it accepted NBD_OPT_STARTTLS."""

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
    """What breaks a rule in the server's first bytes behind the NBD_REP_ACK to NBD_OPT_STARTTLS.

    `head` are some of these bytes, one at least; `client_began` tells whether the client had sent
    the first of its own by then, before which a server has nothing to say in TLS.
    """
    if not client_began:  # S-105
        yield Breach("S-105", "bytes in clear came behind the NBD_REP_ACK to NBD_OPT_STARTTLS")
    elif head[0] not in _RECORDS or (len(head) > 1 and head[1] != _VERSION):  # S-104
        yield Breach(
            "S-104", "bytes that are not TLS came where the server's TLS handshake was due"
        )
