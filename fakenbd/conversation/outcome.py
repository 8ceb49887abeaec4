"""The outcome of an option, derived from the correct reply to it.

The same for every source of replies, exports of this server or a relayed server: an ACK to GO opens
the export, an ACK to STARTTLS begins TLS, no reply at all ends the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from fakenbd.protocol.constants import Info, Option
from fakenbd.protocol.messages import (
    Ack,
    ExportName,
    ExportNameReply,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    InfoText,
    MetaContext,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
)
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState

__all__ = ["Outcome", "export_named", "is_refused", "negotiate", "outcome_of"]

_ERROR: Final = 1 << 31
"""The bit of a reply type that says that the option failed."""


class Outcome(Enum):
    """How the connection continues after an option."""

    OPTIONS = "options"
    TRANSMISSION = "transmission"
    TLS = "TLS"
    ABORTED = "aborted"
    DROPPED = "dropped"


def export_named(request: OptionRequest) -> str | None:
    """The name of the export in an option, None if it has none."""
    body = request.body
    return body.name if isinstance(body, ExportName | InfoQuery | MetaContextQuery) else None


def outcome_of(request: OptionRequest, reply: Iterable[Any]) -> Outcome:
    """The outcome of an option, given the correct reply to it."""
    last: Any = None
    for last in reply:  # noqa: B007 (the last one is wanted)
        pass
    if request.option == Option.ABORT:
        return Outcome.ABORTED
    if last is None:
        return Outcome.DROPPED
    if isinstance(last, ExportNameReply):
        return Outcome.TRANSMISSION
    if _is_ack(last):
        if request.option == Option.GO:
            return Outcome.TRANSMISSION
        if request.option == Option.STARTTLS:
            return Outcome.TLS
    return Outcome.OPTIONS


def is_refused(reply: Iterable[Any]) -> bool:
    """Whether a reply to an option has an error among its messages."""
    return any(isinstance(step, OptionReply) and (step.type or 0) & _ERROR for step in reply)


def negotiate(state: NegotiatedState, request: OptionRequest, reply: Iterable[Any]) -> None:
    """Update `state` with what an option and the whole correct reply to it negotiated."""
    messages = list(reply)
    accepted = bool(messages) and (
        _is_ack(messages[-1]) or isinstance(messages[-1], ExportNameReply)
    )
    option = request.option
    if option == Option.SET_META_CONTEXT:
        # The old selection is void whatever the reply is.
        state.contexts, state.contexts_export = {}, None
    if not accepted:
        return
    bodies = [getattr(message, "body", message) for message in messages]
    if option == Option.STRUCTURED_REPLY:
        state.structured = True
    elif option == Option.EXTENDED_HEADERS:
        state.extended = True
    elif option == Option.SET_META_CONTEXT:
        state.contexts = {
            body.context_id: body.name for body in bodies if isinstance(body, MetaContext)
        }
        state.contexts_export = export_named(request)
    elif option in (Option.GO, Option.EXPORT_NAME):
        _open(state, request, bodies)


def _open(state: NegotiatedState, request: OptionRequest, bodies: list[Any]) -> None:
    name = export_named(request)
    state.export = name
    state.block_size_asked = (
        isinstance(request.body, InfoQuery) and Info.BLOCK_SIZE in request.body.infos
    )
    state.block_size = state.canonical_name = None
    for body in bodies:
        if isinstance(body, InfoExport | ExportNameReply):
            state.size, state.flags = body.size, body.flags
        elif isinstance(body, InfoBlockSize):
            state.block_size = BlockSize(body.minimum, body.preferred, body.maximum)
        elif isinstance(body, InfoText) and body.info == Info.NAME:
            state.canonical_name = body.text
    if state.contexts_export != name:
        # A selection holds only for the export name it was made with.
        state.contexts = {}


def _is_ack(message: Any) -> bool:
    return isinstance(message, OptionReply) and isinstance(message.body, Ack)
