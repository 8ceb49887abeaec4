"""The events of a journal, read back: what a fault that never fired might have fired at.

While a server runs nothing is kept for this. What was in force at an event follows from the replies
that had left before it, which is as much as a client knows, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fakenbd.faults import Event
from fakenbd.journal import Connected, Entry, Received, Sent
from fakenbd.protocol.constants import Option
from fakenbd.protocol.messages import (
    Ack,
    ExportName,
    InfoQuery,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
    Request,
)
from fakenbd.server.terms import Terms

__all__ = ["past_events"]


def past_events(entries: Iterable[Entry]) -> Iterator[Event]:
    """The events that `entries` tell of, in order, as far as they hold them."""
    agreed: dict[int, Terms] = {}
    for entry in entries:
        if entry.connection is None:
            continue
        terms = agreed.setdefault(entry.connection, Terms())
        if isinstance(entry, Connected):
            yield Event("connect", entry.connection)
            yield Event("greeting", entry.connection)
        elif isinstance(entry, Sent):
            _agree(terms, entry)
        elif isinstance(entry, Received):
            yield from _heard(entry, entry.connection, terms)


def _agree(terms: Terms, entry: Sent) -> None:
    message = entry.message
    if not isinstance(message, OptionReply) or not isinstance(message.body, Ack):
        return
    if message.option == Option.STARTTLS:
        terms.forget()
    elif message.option == Option.STRUCTURED_REPLY:
        terms.structured = True
    elif message.option == Option.EXTENDED_HEADERS:
        terms.extended = True


def _heard(entry: Received, connection: int, terms: Terms) -> Iterator[Event]:
    message = entry.message
    if isinstance(message, Request):
        request, option, export = message, None, terms.export_name
    elif isinstance(message, OptionRequest):
        request, option, export = None, message, ""
        if isinstance(message.body, ExportName | InfoQuery | MetaContextQuery):
            # Commands come after the last of them, which opened that export.
            export = terms.export_name = message.body.name
    else:
        return
    yield Event(
        "command" if option is None else "option",
        connection,
        option=None if option is None else option.option,
        request=request,
        option_request=option,
        tls=terms.tls,
        structured=terms.structured,
        extended=terms.extended,
        export=export,
    )
