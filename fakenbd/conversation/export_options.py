"""The correct reply of a server of exports to every option of the handshake.

`answer_option` returns messages and changes nothing; `outcome` derives from them what follows. An
option that fails without an error reply (EXPORT_NAME) returns no message. A body that did not parse
gets ERR_INVALID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

from fakenbd.conversation.export_commands import offered_flags
from fakenbd.conversation.handshake import Handshake
from fakenbd.export import Export
from fakenbd.faults import refusal_answer
from fakenbd.faults.answer import Answer
from fakenbd.protocol.constants import Info, Option, Reply
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
    RawBody,
    ReplyBody,
    Server,
)
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["Catalogue", "answer_option", "select"]


@attrs.frozen
class Catalogue:
    """The exports by name, and what the server agrees to negotiate."""

    exports: Mapping[str, Export]
    handshake: Handshake

    def find(self, name: str | None) -> Export | None:
        """The export of that name; the empty name is the first one."""
        if name is None:
            return None
        found = self.exports.get(name)
        if found is None and name == "":
            found = next(iter(self.exports.values()), None)
        return found

    def escaped(self, name: str, state: NegotiatedState) -> Export | None:
        """The export of that name, unless it is for TLS only and this connection is in clear."""
        export = self.find(name)
        return None if export is None or (export.tls_only and not state.tls) else export


def answer_option(catalogue: Catalogue, state: NegotiatedState, request: OptionRequest) -> Answer:
    """The correct reply to one option, given what was negotiated before."""
    handshake = catalogue.handshake
    if handshake.style == "newstyle" and request.option != Option.EXPORT_NAME:
        return []  # without fixed newstyle no other option has a reply
    if handshake.tls == "required" and not state.tls:
        if request.option == Option.EXPORT_NAME:
            return []
        if request.option not in (Option.STARTTLS, Option.ABORT):
            text = "TLS is required: send NBD_OPT_STARTTLS first"
            return _refuse(request, Reply.ERR_TLS_REQD, text)
    answer = _ANSWERS.get(request.option)
    if answer is None:
        return _refuse(request, Reply.ERR_UNSUP)
    return answer(catalogue, state, request)


def _refuse(request: OptionRequest, reply: Reply, text: str = "") -> Answer:
    return refusal_answer(request.option, reply, text)


def _ack(request: OptionRequest, bodies: Iterable[ReplyBody] = ()) -> Answer:
    return [OptionReply(request.option, body) for body in (*bodies, Ack())]


def _has_data(request: OptionRequest) -> bool:
    return not isinstance(request.body, RawBody) or len(request.body.data) > 0


# --- opening an export --------------------------------------------------------------------------


def _export_name(catalogue: Catalogue, state: NegotiatedState, request: OptionRequest) -> Answer:
    export = None
    if isinstance(request.body, ExportName):
        export = catalogue.escaped(request.body.name, state)
    # After EXTENDED_HEADERS only GO opens an export: its reply has a form for every refusal.
    if export is None or state.extended:
        return []
    reserved = b"" if state.no_zeroes else bytes(124)
    return [ExportNameReply(export.size, offered_flags(export, state), reserved)]


def _info(catalogue: Catalogue, state: NegotiatedState, request: OptionRequest) -> Answer:
    body = request.body
    if not isinstance(body, InfoQuery):
        return _refuse(request, Reply.ERR_INVALID, "malformed option data")
    export = catalogue.find(body.name)
    if export is None:
        return _refuse(request, Reply.ERR_UNKNOWN, "there is no export of that name")
    if export.tls_only and not state.tls:
        return _refuse(request, Reply.ERR_TLS_REQD, "this export is served over TLS only")
    return _ack(request, _infos(export, body, state))


def _infos(export: Export, query: InfoQuery, state: NegotiatedState) -> list[ReplyBody]:
    bodies: list[ReplyBody] = []
    if Info.NAME in query.infos:
        name = query.name if export.canonical_name is None else export.canonical_name
        bodies.append(InfoText(Info.NAME, name))
    if Info.DESCRIPTION in query.infos and export.description:
        bodies.append(InfoText(Info.DESCRIPTION, export.description))
    if Info.BLOCK_SIZE in query.infos and export.block_size is not None:
        sizes = export.block_size
        bodies.append(InfoBlockSize(sizes.minimum, sizes.preferred, sizes.maximum))
    bodies.append(InfoExport(export.size, offered_flags(export, state)))
    return bodies


# --- everything else -----------------------------------------------------------------------------


def _abort(_catalogue: Catalogue, _state: NegotiatedState, request: OptionRequest) -> Answer:
    return _ack(request)


def _list(catalogue: Catalogue, state: NegotiatedState, request: OptionRequest) -> Answer:
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_LIST carries no data")
    escaped = [
        Server(name, export.description)
        for name, export in catalogue.exports.items()
        if state.tls or not export.tls_only
    ]
    return _ack(request, escaped)


def _starttls(catalogue: Catalogue, state: NegotiatedState, request: OptionRequest) -> Answer:
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_STARTTLS carries no data")
    if state.tls:
        return _refuse(request, Reply.ERR_INVALID, "TLS is already in use")
    if catalogue.handshake.tls == "off" or not state.fixed:
        return _refuse(request, Reply.ERR_POLICY, "this server speaks no TLS")
    return _ack(request)


def _structured_reply(
    catalogue: Catalogue, state: NegotiatedState, request: OptionRequest
) -> Answer:
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_STRUCTURED_REPLY carries no data")
    if state.extended:
        return _refuse(request, Reply.ERR_EXT_HEADER_REQD, "extended headers are in force")
    if not catalogue.handshake.structured_replies:
        return _refuse(request, Reply.ERR_UNSUP)
    return _ack(request)


def _extended_headers(
    catalogue: Catalogue, _state: NegotiatedState, request: OptionRequest
) -> Answer:
    if not catalogue.handshake.extended_headers:
        return _refuse(request, Reply.ERR_UNSUP)
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_EXTENDED_HEADERS carries no data")
    return _ack(request)


def _meta_context(catalogue: Catalogue, state: NegotiatedState, request: OptionRequest) -> Answer:
    if not state.chunks:
        return _refuse(request, Reply.ERR_INVALID, "negotiate NBD_OPT_STRUCTURED_REPLY first")
    body = request.body
    if not isinstance(body, MetaContextQuery):
        return _refuse(request, Reply.ERR_INVALID, "malformed option data")
    # In clear an export for TLS only is unknown: TLS_REQD is for INFO and GO alone.  S-102
    export = catalogue.escaped(body.name, state)
    if export is None:
        return _refuse(request, Reply.ERR_UNKNOWN, "there is no export of that name")
    if any(":" not in query for query in body.queries):
        text = "invalid query: expected NAMESPACE:LEAF"
        return _refuse(request, Reply.ERR_INVALID, text)
    names = tuple(export.contexts)
    if request.option == Option.SET_META_CONTEXT:
        chosen = select(names, body.queries)
        return _ack(request, (MetaContext(names.index(name) + 1, name) for name in chosen))
    listed = names if not body.queries else _listed(names, body.queries)
    return _ack(request, (MetaContext(0, name) for name in listed))


def select(names: Iterable[str], queries: Iterable[str]) -> list[str]:
    """The contexts that SET_META_CONTEXT selects: exact names only, each once."""
    wanted = set(queries)
    return [name for name in names if name in wanted]


def _listed(names: Iterable[str], queries: Iterable[str]) -> list[str]:
    exact = set(queries)
    prefixes = tuple(query for query in exact if query.endswith(":"))  # the customary wildcard
    return [name for name in names if name in exact or name.startswith(prefixes)]


_ANSWERS: Final[dict[int, Callable[[Catalogue, NegotiatedState, OptionRequest], Answer]]] = {
    Option.EXPORT_NAME: _export_name,
    Option.ABORT: _abort,
    Option.LIST: _list,
    Option.STARTTLS: _starttls,
    Option.INFO: _info,
    Option.GO: _info,
    Option.STRUCTURED_REPLY: _structured_reply,
    Option.LIST_META_CONTEXT: _meta_context,
    Option.SET_META_CONTEXT: _meta_context,
    Option.EXTENDED_HEADERS: _extended_headers,
}
