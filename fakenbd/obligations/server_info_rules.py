"""The server's rules on the contents of the replies to an option before its final one.

What the specification leaves to the server is no breach: types of NBD_REP_INFO that NBD does not
define, what a query of a namespace other than base selects, the order of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from fakenbd.obligations.breach import Breach, string_flaw
from fakenbd.obligations.option_progress import OptionProgress
from fakenbd.obligations.server_greeting_rules import judge_transmission_flags
from fakenbd.protocol.constants import Info, Option, spec_name
from fakenbd.protocol.messages import (
    InfoBlockSize,
    InfoExport,
    InfoText,
    MetaContext,
    MetaContextQuery,
    OptionRequest,
    RawBody,
    ReplyBody,
    Server,
)
from fakenbd.protocol.negotiated import NegotiatedState
from fakenbd.protocol.text import quoted

__all__ = ["judge_option_data"]

_LARGEST_MINIMUM: Final = 1 << 16
_LEAST_PREFERRED: Final = 512
_KEPT_CONTEXTS: Final = 64
_QUERIES: Final = (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT)


def judge_option_data(
    request: OptionRequest, body: ReplyBody, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """The rules broken by the data of a reply that `request` may have; `progress` includes it."""
    check = _CHECKS.get(type(body))
    if check is not None:
        yield from check(request, body, progress, state)


def _server(
    request: OptionRequest, body: Server, progress: OptionProgress, state: NegotiatedState
) -> Iterator[Breach]:
    for what, text in (("name", body.name), ("description", body.description)):
        flaw = string_flaw(text)
        if flaw is not None:  # S-42
            yield Breach("S-42", f"the {what} of a listed export {flaw}")


def _info_once(info: int, progress: OptionProgress) -> Iterator[Breach]:
    """Count one NBD_REP_INFO; types that NBD does not define are allowed."""
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
    """Check that a context selected by NBD_OPT_SET_META_CONTEXT is one that a query names.

    Only for the namespace base; others define for themselves what a query matches.
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
    """A known type whose data do not fit it; the option gives the type."""
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


_CHECKS: Final[dict[type, Callable[..., Iterator[Breach]]]] = {
    Server: _server,
    InfoExport: _info_export,
    InfoBlockSize: _info_block_size,
    InfoText: _info_text,
    MetaContext: _meta_context,
    RawBody: _raw,
}
