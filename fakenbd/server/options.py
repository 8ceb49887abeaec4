"""The true answer to every option of the handshake.

`decide` looks at an option and says what to answer and what follows from it. It changes nothing:
`commit` does, once it is certain that the client was not told otherwise. Only the options that
need structure are parsed here; a body that did not parse is ERR_INVALID wherever one is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.export import Export
from fakenbd.faults import refusal_answer
from fakenbd.faults.answer import Answer, StartTLS
from fakenbd.profile import Handshake
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
from fakenbd.server.terms import Terms

__all__ = ["Catalogue", "Decision", "Outcome", "decide", "select"]

Outcome: TypeAlias = Literal["haggle", "transmit", "tls", "leave", "drop"]


@attrs.frozen
class Catalogue:
    """What the options are about: the exports by name, and what the server agrees to speak."""

    exports: dict[str, Export]
    handshake: Handshake

    def find(self, name: str) -> Export | None:
        """The export of that name; the empty name means the first one."""
        found = self.exports.get(name)
        if found is None and name == "":
            found = next(iter(self.exports.values()), None)
        return found


@attrs.frozen
class Decision:
    """The answer to an option, what it leads to, and how the terms change if it is not refused."""

    answer: Answer
    outcome: Outcome = "haggle"
    commit: Callable[[Terms], None] | None = None


def decide(catalogue: Catalogue, terms: Terms, request: OptionRequest) -> Decision:
    """The truth about one option, under the terms agreed on so far."""
    if catalogue.handshake.tls == "required" and not terms.tls:
        if request.option == Option.EXPORT_NAME:
            return Decision([], "drop")
        if request.option not in (Option.STARTTLS, Option.ABORT):
            return _refuse(
                request, Reply.ERR_TLS_REQD, "TLS is required: send NBD_OPT_STARTTLS first"
            )
    answer = _DECISIONS.get(request.option)
    if answer is None:
        return _refuse(request, Reply.ERR_UNSUP)
    return answer(catalogue, terms, request)


def _refuse(request: OptionRequest, reply: Reply, text: str = "") -> Decision:
    return Decision(refusal_answer(request.option, reply, text))


def _ack(request: OptionRequest, bodies: Iterable[ReplyBody] = ()) -> Answer:
    return [OptionReply(request.option, body) for body in (*bodies, Ack())]


def _has_data(request: OptionRequest) -> bool:
    return not isinstance(request.body, RawBody) or len(request.body.data) > 0


# --- opening an export --------------------------------------------------------------------------


def _export_name(catalogue: Catalogue, terms: Terms, request: OptionRequest) -> Decision:
    name = request.body.name if isinstance(request.body, ExportName) else None
    export = None if name is None else catalogue.find(name)
    # After EXTENDED_HEADERS only GO opens an export: its reply has a form for every refusal.
    if name is None or export is None or terms.extended or (export.tls_only and not terms.tls):
        return Decision([], "drop")
    return Decision(
        [ExportNameReply(export.size, terms.flags(export), b"" if terms.no_zeroes else bytes(124))],
        "transmit",
        lambda terms: terms.open(export, name),
    )


def _info(catalogue: Catalogue, terms: Terms, request: OptionRequest) -> Decision:
    body = request.body
    if not isinstance(body, InfoQuery):
        return _refuse(request, Reply.ERR_INVALID, "malformed option data")
    export = catalogue.find(body.name)
    if export is None:
        return _refuse(request, Reply.ERR_UNKNOWN, "there is no export of that name")
    if export.tls_only and not terms.tls:
        return _refuse(request, Reply.ERR_TLS_REQD, "this export is served over TLS only")
    answer = _ack(request, _infos(export, body, terms))
    if request.option == Option.INFO:
        return Decision(answer)
    return Decision(answer, "transmit", lambda terms: terms.open(export, body.name))


def _infos(export: Export, query: InfoQuery, terms: Terms) -> list[ReplyBody]:
    bodies: list[ReplyBody] = []
    if Info.NAME in query.infos:
        name = query.name if export.canonical_name is None else export.canonical_name
        bodies.append(InfoText(Info.NAME, name))
    if Info.DESCRIPTION in query.infos and export.description:
        bodies.append(InfoText(Info.DESCRIPTION, export.description))
    if Info.BLOCK_SIZE in query.infos and export.block_size is not None:
        sizes = export.block_size
        bodies.append(InfoBlockSize(sizes.minimum, sizes.preferred, sizes.maximum))
    bodies.append(InfoExport(export.size, terms.flags(export)))
    return bodies


# --- everything else -----------------------------------------------------------------------------


def _abort(_catalogue: Catalogue, _terms: Terms, request: OptionRequest) -> Decision:
    return Decision(_ack(request), "leave")


def _list(catalogue: Catalogue, terms: Terms, request: OptionRequest) -> Decision:
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_LIST carries no data")
    escaped = [
        Server(name, export.description)
        for name, export in catalogue.exports.items()
        if terms.tls or not export.tls_only
    ]
    return Decision(_ack(request, escaped))


def _starttls(catalogue: Catalogue, terms: Terms, request: OptionRequest) -> Decision:
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_STARTTLS carries no data")
    if terms.tls:
        return _refuse(request, Reply.ERR_INVALID, "TLS is already up")
    if catalogue.handshake.tls == "off" or not terms.fixed:
        return _refuse(request, Reply.ERR_POLICY, "this server speaks no TLS")
    return Decision([*_ack(request), StartTLS()], "tls")


def _structured_reply(catalogue: Catalogue, terms: Terms, request: OptionRequest) -> Decision:
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_STRUCTURED_REPLY carries no data")
    if terms.extended:
        return _refuse(request, Reply.ERR_EXT_HEADER_REQD, "extended headers are in force")
    if not catalogue.handshake.structured_replies:
        return _refuse(request, Reply.ERR_UNSUP)

    def commit(terms: Terms) -> None:
        terms.structured = True

    return Decision(_ack(request), commit=commit)


def _extended_headers(catalogue: Catalogue, _terms: Terms, request: OptionRequest) -> Decision:
    if not catalogue.handshake.extended_headers:
        return _refuse(request, Reply.ERR_UNSUP)
    if _has_data(request):
        return _refuse(request, Reply.ERR_INVALID, "NBD_OPT_EXTENDED_HEADERS carries no data")

    def commit(terms: Terms) -> None:
        terms.extended = True

    return Decision(_ack(request), commit=commit)


# --- metadata contexts --------------------------------------------------------------------------


def _meta_context(catalogue: Catalogue, terms: Terms, request: OptionRequest) -> Decision:
    setting = request.option == Option.SET_META_CONTEXT
    if setting:
        # The old selection is gone whatever the answer is.
        terms.contexts, terms.contexts_export = (), None
    if not (terms.structured or terms.extended):
        return _refuse(request, Reply.ERR_INVALID, "negotiate NBD_OPT_STRUCTURED_REPLY first")
    body = request.body
    if not isinstance(body, MetaContextQuery):
        return _refuse(request, Reply.ERR_INVALID, "malformed option data")
    export = catalogue.find(body.name)
    if export is None or (export.tls_only and not terms.tls):
        # In clear an export for TLS only is not there: TLS_REQD is for INFO and GO alone.  S-102
        return _refuse(request, Reply.ERR_UNKNOWN, "there is no export of that name")
    if any(":" not in query for query in body.queries):
        return _refuse(request, Reply.ERR_INVALID, "invalid query: expected NAMESPACE:LEAF")
    names = tuple(export.contexts)
    if setting:
        chosen = tuple((names.index(name) + 1, name) for name in select(names, body.queries))

        def commit(terms: Terms) -> None:
            terms.contexts, terms.contexts_export = chosen, body.name

        return Decision(
            _ack(request, (MetaContext(id_, name) for id_, name in chosen)), commit=commit
        )
    listed = names if not body.queries else _listed(names, body.queries)
    return Decision(_ack(request, (MetaContext(0, name) for name in listed)))


def select(names: Iterable[str], queries: Iterable[str]) -> list[str]:
    """The contexts that SET_META_CONTEXT selects: exact names only, each once."""
    wanted = set(queries)
    return [name for name in names if name in wanted]


def _listed(names: Iterable[str], queries: Iterable[str]) -> list[str]:
    exact = set(queries)
    prefixes = tuple(query for query in exact if query.endswith(":"))  # the customary wildcard
    return [name for name in names if name in exact or name.startswith(prefixes)]


_DECISIONS: Final[dict[int, Callable[[Catalogue, Terms, OptionRequest], Decision]]] = {
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
