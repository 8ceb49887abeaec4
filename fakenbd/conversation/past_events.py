"""The events of a journal, to explain why a fault never fired.

A running server keeps nothing for this. What was negotiated at an event is derived from the replies
that had left before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fakenbd.conversation.outcome import export_named
from fakenbd.faults import Event
from fakenbd.journal import Connected, Entry, Received, Sent
from fakenbd.protocol.constants import Option
from fakenbd.protocol.messages import Ack, OptionReply, OptionRequest, Request
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["past_events"]


def past_events(entries: Iterable[Entry]) -> Iterator[Event]:
    """The events in `entries`, in order, as far as these are held."""
    agreed: dict[int, NegotiatedState] = {}
    for entry in entries:
        if entry.connection is None:
            continue
        state = agreed.setdefault(entry.connection, NegotiatedState())
        if isinstance(entry, Connected):
            yield Event("connect", entry.connection)
            yield Event("greeting", entry.connection)
        elif isinstance(entry, Sent):
            _negotiate(state, entry)
        elif isinstance(entry, Received):
            yield from _events_of(entry, entry.connection, state)


def _negotiate(state: NegotiatedState, entry: Sent) -> None:
    message = entry.message
    if not isinstance(message, OptionReply) or not isinstance(message.body, Ack):
        return
    if message.option == Option.STARTTLS:
        state.forget()
    elif message.option == Option.STRUCTURED_REPLY:
        state.structured = True
    elif message.option == Option.EXTENDED_HEADERS:
        state.extended = True


def _events_of(entry: Received, connection: int, state: NegotiatedState) -> Iterator[Event]:
    message = entry.message
    if isinstance(message, Request):
        request, option, export = message, None, state.export or ""
    elif isinstance(message, OptionRequest):
        named = export_named(message)
        if named is not None:
            # Commands follow the last of these, which opened the export.
            state.export = named
        request, option, export = None, message, named or ""
    else:
        return
    yield Event(
        "command" if option is None else "option",
        connection,
        option=None if option is None else option.option,
        request=request,
        option_request=option,
        tls=state.tls,
        structured=state.structured,
        extended=state.extended,
        export=export,
    )
