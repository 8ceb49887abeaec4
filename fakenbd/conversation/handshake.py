"""The settings of a server's handshake."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

__all__ = ["TLS", "Handshake", "Style"]

Style: TypeAlias = Literal["fixed", "newstyle", "oldstyle"]
TLS: TypeAlias = Literal["off", "optional", "required"]


@attrs.frozen
class Handshake:
    """What the server agrees to in the handshake.

    `style` is fixed newstyle, newstyle without options, or oldstyle. `no_zeroes`: whether
    NBD_FLAG_NO_ZEROES is offered. `structured_replies`, `extended_headers`: whether the server
    agrees to NBD_OPT_STRUCTURED_REPLY and NBD_OPT_EXTENDED_HEADERS. `tls`: whether it agrees to
    NBD_OPT_STARTTLS, or requires it before any other option.
    """

    style: Style = "fixed"
    no_zeroes: bool = True
    structured_replies: bool = True
    extended_headers: bool = True
    tls: TLS = "off"
