"""The server's replies to options, judged one by one.

A reply is judged as the decoder of `protocol` gives it, from the state that the client has been
shown before it. What the specification leaves to the server is no breach, and neither is what only
might be one. The checks run in this order: is a reply due at all, does it answer the option, may
the option have its type, does its body fit the type, does it agree with what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from fakenbd.obligations.breach import Breach, string_flaw
from fakenbd.obligations.server_greeting_rules import judge_transmission_flags
from fakenbd.protocol.constants import (
    Info,
    Option,
    Reply,
    spec_name,
)
from fakenbd.protocol.messages import (
    Ack,
    ErrorReply,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    InfoText,
    MetaContext,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
    RawBody,
    Server,
)
from fakenbd.protocol.negotiated import NegotiatedState
from fakenbd.protocol.text import quoted

__all__ = [
    "OptionProgress",
    "judge_option_reply",
]

_ERROR: Final = 1 << 31
_LARGEST_MINIMUM: Final = 1 << 16
_LEAST_PREFERRED: Final = 512
_KEPT_CONTEXTS: Final = 64

# --- option replies ----------------------------------------------------------------------------


@attrs.define(eq=False)
class OptionProgress:
    """What earlier replies of one handshake said, as far as later ones depend on it; bounded.

    One for each connection. Its owner calls `begin` when it is an option's turn; the judge keeps
    the rest. `final`: the option has its final reply; `acked`: it was NBD_REP_ACK. `count`: replies
    before it, of which `names` listed an export. `infos`: types of NBD_REP_INFO that came, as
    bits. `contexts`: names by id, as NBD_REP_META_CONTEXT gave them.
    """

    final: bool = False
    acked: bool = False
    count: int = 0
    names: int = 0
    infos: int = 0
    export: InfoExport | None = None
    block_size: InfoBlockSize | None = None
    contexts: dict[int, str] = attrs.field(factory=dict)
    confirmed: InfoExport | None = None
    """What NBD_OPT_INFO said right before an NBD_OPT_GO with the same data."""
    tls_forced: bool = False
    """NBD_REP_ERR_TLS_REQD came for an option other than INFO and GO."""
    tls_refused: bool = False
    """NBD_OPT_STARTTLS got an error that says that there is no TLS."""
    _request: OptionRequest | None = None

    def begin(self, request: OptionRequest) -> None:
        """It is the turn of `request`."""
        last, self._request = self._request, request
        confirmed = (
            self.acked
            and last is not None
            and (last.option, request.option) == (Option.INFO, Option.GO)
            and isinstance(request.body, InfoQuery)
            and last.body == request.body
        )
        self.confirmed = self.export if confirmed else None
        self.final = self.acked = False
        self.count = self.names = self.infos = 0
        self.export = self.block_size = None
        self.contexts = {}


def judge_option_reply(
    request: OptionRequest | None,
    reply: OptionReply,
    progress: OptionProgress,
    state: NegotiatedState,
) -> Sequence[Breach]:
    """What breaks a rule in one reply to an option; `progress` then includes this reply.

    `request` is the last option whose turn came, finished or not, None before the first. `state` is
    what the client was shown before this reply.
    """
    return tuple(_option_reply(request, reply, progress, state))


def _option_reply(
    request: OptionRequest | None,
    reply: OptionReply,
    progress: OptionProgress,
    state: NegotiatedState,
) -> Iterator[Breach]:
    echoed = spec_name(Option, reply.option)
    if request is None:  # S-31
        yield Breach("S-31", f"a reply to {echoed} came before any option")
        return
    name = spec_name(Option, request.option)
    if reply.option != request.option:  # S-21
        yield Breach("S-21", f"a reply to {echoed} came in answer to {name}")
        return
    if request.option == Option.EXPORT_NAME:  # S-65
        yield Breach("S-65", "the reply to NBD_OPT_EXPORT_NAME has the header of an option reply")
        return
    if progress.final:  # S-30
        yield Breach("S-30", f"another reply to {name} came after its final reply")
        return
    kind = _reply_type(reply)
    if kind & _ERROR:
        progress.final = True
        yield from _error(request, kind, reply, progress, state)
        return
    yield from _mode(request, progress, state)
    if kind not in _KNOWN:  # S-22
        yield Breach("S-22", f"{name} got a reply of the unknown type {kind:#x}")
        return
    if kind == Reply.ACK:
        progress.final = progress.acked = True
        yield from _ack(request, reply, progress, state)
        return
    progress.count += 1
    allowed = _MAY_HAVE.get(request.option)
    if allowed is None:  # of an option that NBD does not define nobody knows what it may get
        return
    if kind not in allowed:  # S-24
        yield Breach("S-24", f"{name} got {spec_name(Reply, kind)}, which it cannot have")
        return
    check = _BODY_CHECKS.get(type(reply.body))
    if check is not None:
        yield from check(request, reply.body, progress, state)


def _reply_type(reply: OptionReply) -> int:
    if reply.type is not None:
        return reply.type
    return _TYPES.get(type(reply.body), Reply.INFO)


# --- final replies -----------------------------------------------------------------------------


def _error(
    request: OptionRequest,
    kind: int,
    reply: OptionReply,
    progress: OptionProgress,
    state: NegotiatedState,
) -> Iterator[Breach]:
    option = request.option
    name, error = spec_name(Option, option), spec_name(Reply, kind)
    if kind not in _KNOWN:  # S-23
        yield Breach("S-23", f"{name} got an error of the unknown type {kind:#x}")
    text = reply.body.text if isinstance(reply.body, ErrorReply) else ""
    flaw = string_flaw(text)
    if flaw is not None:  # S-27
        yield Breach("S-27", f"the text of {error} to {name} {flaw}")
    if option == Option.ABORT:  # S-35
        yield Breach("S-35", f"NBD_OPT_ABORT got {error}, not NBD_REP_ACK")
    if kind == Reply.ERR_TLS_REQD:
        yield from _tls_required(option, progress, state)
    elif option == Option.STARTTLS and kind in _NO_TLS and not state.tls:
        progress.tls_refused = True
        if progress.tls_forced:  # S-109
            yield Breach("S-109", f"NBD_OPT_STARTTLS got {error} after TLS was said to be required")
    if option not in (Option.INFO, Option.GO):
        return
    if kind == Reply.ERR_BLOCK_SIZE_REQD and _asked(request, Info.BLOCK_SIZE):  # S-67
        yield Breach("S-67", f"{name} got {error} although it asked for NBD_INFO_BLOCK_SIZE")
    if kind == Reply.ERR_UNKNOWN and progress.count:  # S-72
        yield Breach("S-72", f"{progress.count} NBD_REP_INFO came before {error}")
    if kind == Reply.ERR_UNSUP and option == Option.GO and state.extended:  # S-91
        yield Breach("S-91", f"NBD_OPT_GO got {error} although extended headers are in use")


def _tls_required(
    option: int, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    name = spec_name(Option, option)
    if state.tls:  # S-101
        yield Breach("S-101", f"{name} got NBD_REP_ERR_TLS_REQD although TLS is in use")
        return
    if option in (Option.STARTTLS, Option.ABORT):  # S-100
        yield Breach("S-100", f"{name} got NBD_REP_ERR_TLS_REQD")
        return
    if progress.tls_refused:  # S-109
        yield Breach("S-109", f"{name} got NBD_REP_ERR_TLS_REQD after NBD_OPT_STARTTLS was refused")
    if option not in (Option.INFO, Option.GO):
        progress.tls_forced = True


def _mode(
    request: OptionRequest, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """A server that required TLS for any option whatever serves none without it."""
    if not progress.tls_forced or state.tls or progress.count:
        return
    if request.option not in (Option.STARTTLS, Option.ABORT):  # S-102
        name = spec_name(Option, request.option)
        yield Breach("S-102", f"{name} is served in clear after TLS was said to be required")


def _ack(
    request: OptionRequest, reply: OptionReply, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    option = request.option
    name = spec_name(Option, option)
    data = reply.body.data if isinstance(reply.body, Ack | RawBody) else b""
    if len(data):  # S-25
        yield Breach("S-25", f"the NBD_REP_ACK to {name} has {len(data)} bytes of data")
    if option == Option.STARTTLS and state.tls:  # S-110
        yield Breach("S-110", "NBD_OPT_STARTTLS got NBD_REP_ACK although TLS is in use")
    if option in _QUERIES and _malformed(request):  # S-87
        yield Breach("S-87", f"malformed data of {name} got NBD_REP_ACK")
    if option not in (Option.INFO, Option.GO):
        return
    if not progress.infos >> Info.EXPORT & 1:  # S-50
        yield Breach("S-50", f"{name} got NBD_REP_ACK without NBD_INFO_EXPORT")
    export, sizes = progress.export, progress.block_size
    if export is not None and sizes is not None and sizes.minimum:
        rest = export.size % sizes.minimum
        if rest:  # S-57
            yield Breach(
                "S-57",
                f"the size of the export, {export.size}, is no multiple of the minimum block,"
                f" {sizes.minimum}",
            )


def _malformed(request: OptionRequest) -> bool:
    """Whether the option's data, all of which are there, do not decode."""
    body = request.body
    if not isinstance(body, RawBody):
        return False
    return request.length is None or request.length == len(body.data)


def _asked(request: OptionRequest, info: Info) -> bool:
    return isinstance(request.body, InfoQuery) and info in request.body.infos


# --- replies before the final one --------------------------------------------------------------


def _server(
    request: OptionRequest, body: Server, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    progress.names += 1
    for what, text in (("name", body.name), ("description", body.description)):
        flaw = string_flaw(text)
        if flaw is not None:  # S-42
            yield Breach("S-42", f"the {what} of a listed export {flaw}")


def _info_once(info: int, progress: OptionProgress) -> Iterator[Breach]:
    """Count one NBD_REP_INFO; types that NBD does not define are the server's own affair."""
    if info > Info.BLOCK_SIZE:
        return
    if progress.infos >> info & 1:  # S-52
        yield Breach("S-52", f"{spec_name(Info, info)} came twice in one answer")
    progress.infos |= 1 << info


def _info_export(
    request: OptionRequest, body: InfoExport, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    yield from _info_once(Info.EXPORT, progress)
    progress.export = body
    yield from judge_transmission_flags(body.flags, state)
    before = progress.confirmed
    if before is None:
        return
    if before.size != body.size:  # S-58
        yield Breach("S-58", f"NBD_OPT_INFO gave the size {before.size}, NBD_OPT_GO {body.size}")
    if before.flags != body.flags:  # S-59
        yield Breach(
            "S-59", f"NBD_OPT_INFO gave the flags {before.flags:#06x}, NBD_OPT_GO {body.flags:#06x}"
        )


def _info_block_size(
    request: OptionRequest, body: InfoBlockSize, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    yield from _info_once(Info.BLOCK_SIZE, progress)
    progress.block_size = body
    minimum, preferred, maximum = body.minimum, body.preferred, body.maximum
    if not _power_of_two(minimum) or minimum > _LARGEST_MINIMUM:  # S-54
        yield Breach("S-54", f"the minimum block is {minimum}, no power of two from 1 to 65536")
    if not _power_of_two(preferred) or preferred < max(minimum, _LEAST_PREFERRED):  # S-55
        yield Breach(
            "S-55",
            f"the preferred block is {preferred}, no power of two from"
            f" {max(minimum, _LEAST_PREFERRED)} on",
        )
    if not maximum or maximum < preferred:  # S-56
        yield Breach(
            "S-56", f"the maximum payload is {maximum}, less than the preferred block, {preferred}"
        )


def _power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def _info_text(
    request: OptionRequest, body: InfoText, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    yield from _info_once(body.info, progress)
    if body.info in (Info.NAME, Info.DESCRIPTION):
        flaw = string_flaw(body.text)
        if flaw is not None:  # S-70
            yield Breach("S-70", f"the text of {spec_name(Info, body.info)} {flaw}")


def _meta_context(
    request: OptionRequest, body: MetaContext, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    shown = quoted(body.name)
    flaw = string_flaw(body.name)
    if flaw is None and body.name.find(":") < 1:
        flaw = "lacks a namespace and a colon"
    if flaw is not None:  # S-84
        yield Breach("S-84", f"the context name {shown} {flaw}")
        return
    if request.option != Option.SET_META_CONTEXT:
        return
    yield from _selected(request, body.name)
    contexts = progress.contexts
    if body.context_id in contexts:  # S-82
        yield Breach("S-82", f"the context id {body.context_id} came twice, again for {shown}")
    elif body.name in contexts.values():  # S-83
        yield Breach("S-83", f"the context {shown} came twice, again as id {body.context_id}")
    elif len(contexts) < _KEPT_CONTEXTS:
        contexts[body.context_id] = body.name


def _selected(request: OptionRequest, name: str) -> Iterator[Breach]:
    """A context that NBD_OPT_SET_META_CONTEXT selects is one that a query names.

    What a query of another namespace than base matches is for that namespace to define.
    """
    query = request.body
    if not isinstance(query, MetaContextQuery) or name in query.queries:
        return
    namespace = name[: name.index(":") + 1]
    if namespace == "base:" and namespace in query.queries:  # S-86
        yield Breach("S-86", f"the query base: selected {quoted(name)}")
    elif namespace == "base:" or not any(one.startswith(namespace) for one in query.queries):
        yield Breach("S-81", f"{quoted(name)} is selected, which no query names")  # S-81


def _raw(
    request: OptionRequest, body: RawBody, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """A known type whose data do not fit it: the option tells which type it was."""
    size = len(body.data)
    if request.option == Option.LIST:  # S-40, S-41
        rule = "S-41" if size < 4 else "S-40"
        yield Breach(rule, f"an NBD_REP_SERVER has {size} bytes that do not fit")
    elif request.option in _QUERIES:  # S-84
        yield Breach("S-84", f"an NBD_REP_META_CONTEXT has {size} bytes, less than 4")
    elif size < 2:  # S-71
        yield Breach("S-71", f"an NBD_REP_INFO has {size} bytes, less than a type")
    else:
        info = int.from_bytes(bytes(body.data[:2]), "big")
        rule = "S-51" if info == Info.EXPORT else "S-53"
        yield from _info_once(info, progress)
        yield Breach(rule, f"an {spec_name(Info, info)} has {size} bytes")


# --- tables ------------------------------------------------------------------------------------

_KNOWN: Final = frozenset(int(kind) for kind in Reply)
_NO_TLS: Final = (Reply.ERR_UNSUP, Reply.ERR_POLICY, Reply.ERR_PLATFORM)
_QUERIES: Final = (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT)
_NOTHING: Final = frozenset[int]()

_MAY_HAVE: Final[dict[int, frozenset[int]]] = {
    Option.ABORT: _NOTHING,
    Option.LIST: frozenset((Reply.SERVER,)),
    Option.STARTTLS: _NOTHING,
    Option.INFO: frozenset((Reply.INFO,)),
    Option.GO: frozenset((Reply.INFO,)),
    Option.STRUCTURED_REPLY: _NOTHING,
    Option.LIST_META_CONTEXT: frozenset((Reply.META_CONTEXT,)),
    Option.SET_META_CONTEXT: frozenset((Reply.META_CONTEXT,)),
    Option.EXTENDED_HEADERS: _NOTHING,
}
"""Types of replies before the final one that each option may have."""

_TYPES: Final[dict[type, int]] = {
    Ack: Reply.ACK,
    Server: Reply.SERVER,
    MetaContext: Reply.META_CONTEXT,
    ErrorReply: Reply.ERR_UNSUP,
}
_BODY_CHECKS: Final[dict[type, Callable[..., Iterator[Breach]]]] = {
    Server: _server,
    InfoExport: _info_export,
    InfoBlockSize: _info_block_size,
    InfoText: _info_text,
    MetaContext: _meta_context,
    RawBody: _raw,
}
