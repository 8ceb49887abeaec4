"""The server's end of a connection: mostly legal, and judged only where a rule forbids it.

The caller has checked that the server ended the connection, and that the client broke no MUST
before. A server may close between two replies, because it may be shutting down, but then it should
answer what is in flight. It may not stop in the middle of a message, leave an option without its
reply, nor drop what it owes after NBD_CMD_DISC.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from fakenbd.obligations.breach import Breach
from fakenbd.obligations.option_progress import OptionProgress
from fakenbd.protocol.constants import Option, spec_name
from fakenbd.protocol.messages import OptionRequest
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["EndPart", "EndStage", "judge_end"]

EndStage: TypeAlias = Literal["greeting", "client-flags", "options", "tls", "transmission", "disc"]
"""What was due or going on: the greeting, the client flags, options and their replies, the TLS
handshake, transmission, or the rest of it after NBD_CMD_DISC."""

EndPart: TypeAlias = Literal["", "header", "body", "read-data"]
"""What of a message of the server had come when it ended: nothing, its header or a part of it, all
but the end of its body, all but the end of the data of a simple reply to READ."""


def judge_end(
    stage: EndStage,
    how: Literal["EOF", "RST", "TLS close"],
    state: NegotiatedState,
    *,
    part: EndPart = "",
    option: OptionRequest | None = None,
    progress: OptionProgress | None = None,
    in_flight: int = 0,
) -> Iterator[Breach]:
    """The rules broken where the server ended the connection without a cause given by the client.

    `option` is the last one whose turn it was, `progress` the state of its replies, `in_flight` the
    number of requests without a complete reply.
    """
    if state.tls and how != "TLS close":  # S-111
        yield Breach("S-111", "the server ended a TLS connection without close_notify")
    if stage == "greeting":
        if part:  # S-06
            yield Breach("S-06", "the server ended within its greeting")
        else:  # S-10
            yield Breach("S-10", "the server ended before its greeting")
    elif stage == "client-flags":  # S-10
        yield Breach("S-10", "the server ended right after its greeting")
    elif stage == "options":
        yield from _options(part, option, progress)
    elif stage == "tls":  # S-104
        yield Breach("S-104", "the server ended where its TLS handshake was due")
    elif part in ("header", "body"):
        if part == "header":  # S-133
            yield Breach("S-133", "the server ended within the header of a reply")
        yield Breach("S-135", f"the server ended within the {part} of a reply")  # S-135
    elif stage == "disc" and in_flight:  # S-190
        yield Breach("S-190", f"the server ended after NBD_CMD_DISC with {in_flight} replies due")
    elif in_flight and not part:  # S-135
        yield Breach("S-135", f"the server ended with {in_flight} replies due", "SHOULD")


def _options(
    part: EndPart, option: OptionRequest | None, progress: OptionProgress | None
) -> Iterator[Breach]:
    if option is None:  # S-11
        yield Breach("S-11", "the server ended after the client flags, which were in order")
        return
    name = spec_name(Option, option.option)
    asks = option.option in (Option.INFO, Option.GO)
    answered = progress is not None and progress.final
    if option.option == Option.EXPORT_NAME:
        if part:  # S-66
            yield Breach("S-66", f"the server ended within its reply to {name}")
    elif part:  # S-28, S-75
        yield Breach("S-75" if asks else "S-28", f"the server ended within a reply to {name}")
    elif asks:  # S-75
        yield Breach(
            "S-75", f"the server ended {'after' if answered else 'within'} its answer to {name}"
        )
    elif option.option != Option.ABORT and not answered:  # S-28, S-32
        known = option.option == Option.LIST or (progress is not None and progress.count)
        yield Breach(
            "S-28" if known else "S-32", f"the server ended without a final reply to {name}"
        )
