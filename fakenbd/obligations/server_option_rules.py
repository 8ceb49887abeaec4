"""The server's rules on replies to options, one by one.

A reply is judged as the decoder of `protocol` returns it, from the state that the client has been
shown before it. What the specification leaves to the server is no breach, and neither is what is
uncertain. The checks run in this order: is a reply due at all, does it answer the option, may the
option have its type, does its body fit the type, does it agree with earlier replies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fakenbd.obligations.breach import Breach, string_flaw
from fakenbd.obligations.option_progress import OptionProgress
from fakenbd.obligations.server_info_rules import judge_option_data
from fakenbd.protocol.constants import Info, Option, Reply, spec_name
from fakenbd.protocol.messages import (
    Ack,
    ErrorReply,
    InfoQuery,
    MetaContext,
    OptionReply,
    OptionRequest,
    RawBody,
    Server,
)
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["judge_option_reply"]

_ERROR: Final = 1 << 31


def judge_option_reply(
    request: OptionRequest | None,
    reply: OptionReply,
    progress: OptionProgress,
    state: NegotiatedState,
) -> Sequence[Breach]:
    """The rules broken by one reply to an option; `progress` then includes this reply.

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
    if allowed is None:  # the replies to an option that NBD does not define are unknown
        return
    if kind not in allowed:  # S-24
        yield Breach("S-24", f"{name} got {spec_name(Reply, kind)}, which it cannot have")
        return
    yield from judge_option_data(request, reply.body, progress, state)


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
        if progress.tls_required:  # S-109
            yield Breach("S-109", f"NBD_OPT_STARTTLS got {error} after TLS was required")
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
    progress.tls_required = True
    if option not in (Option.INFO, Option.GO):
        progress.tls_forced = True


def _mode(
    request: OptionRequest, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """Check that a server that required TLS for any option serves none without it."""
    if not progress.tls_forced or state.tls or progress.count:
        return
    if request.option not in (Option.STARTTLS, Option.ABORT):  # S-102
        name = spec_name(Option, request.option)
        yield Breach("S-102", f"{name} is served in clear after TLS was required")


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
