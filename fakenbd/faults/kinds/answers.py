"""Another answer altogether: errors, refusals, messages written out, extents written out."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
from attrs.converters import optional

from fakenbd.faults.answer import Answer
from fakenbd.faults.change_summary import FieldChange, field_changes, listed
from fakenbd.faults.event import Event
from fakenbd.faults.fields import Setting, extent_list, with_field, word_number
from fakenbd.faults.firing import Firing
from fakenbd.faults.message_template import MessageTemplate, message_templates
from fakenbd.faults.readers import boolean, byte_size, text, whole
from fakenbd.faults.refusal import error_answer, refusal_answer
from fakenbd.faults.registry import Kind, register
from fakenbd.faults.selection import Selector, materialised, noun, selected, selector
from fakenbd.protocol.constants import ChunkFlag, Command, Error, Reply, spec_name
from fakenbd.protocol.messages import Chunk, Extent, ServerMessage, Status

__all__ = ["ErrorAnswer", "Extents", "LiteralReply", "Refuse"]

_MAXIMUM: Final = (1 << 32) - 1
_CHANGING: Final = (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)


def _error(value: Any) -> int:
    return _bounded(word_number(value, Error))


def _refusal(value: Any) -> int:
    return _bounded(word_number(value, Reply))


def _bounded(value: int) -> int:
    if value > _MAXIMUM:
        raise ValueError(f"expected a number of at most 32 bits, got {value}")
    return value


def _offset(value: Any) -> int | str | None:
    if isinstance(value, str) and re.fullmatch(r"\+.+", value):
        byte_size(value[1:])
        return value
    return None if value is None else byte_size(value)


@register(
    "error",
    family="answer",
    main="error",
    events=("command",),
    replaces=True,
    breaks_must=False,
)
@attrs.frozen
class ErrorAnswer(Kind):
    """Fail a command without performing it.

    The reply is an error chunk with DONE where structured replies or extended headers are
    negotiated, one with an offset if `offset` is given, and a simple reply otherwise.

    Example: do = { error = "EIO", message = "bad sector", offset = "+512" }

    error: name or number of the error on the wire, 0 to 4294967295 (required)
    message: text for people, carried by an error chunk only (default "")
    offset: where in the export it failed, absolute or "+n" from the request's (default nothing)
    effect: do the command all the same, before it is failed (default false)
    """

    error: int = attrs.field(converter=_error)
    message: str = attrs.field(default="", converter=text)
    offset: int | str | None = attrs.field(default=None, converter=_offset)
    effect: bool = attrs.field(default=False, converter=boolean)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        event = firing.event
        if event.request is None:
            return answer, ""
        offset = self.offset
        if isinstance(offset, str):
            offset = event.request.offset + byte_size(offset[1:])
        failure = error_answer(
            event.request,
            self.error,
            structured=event.structured,
            extended=event.extended,
            message=self.message,
            offset=offset,
        )
        return failure, _replaced(answer, failure, spec_name(Error, self.error))


@register(
    "refuse",
    family="answer",
    main="reply",
    events=("option",),
    replaces=True,
    breaks_must=False,
)
@attrs.frozen
class Refuse(Kind):
    """Refuse an option with one of the NBD_REP_ERR_… replies, and do not follow it.

    Example: do = { refuse = "unsup", message = "not permitted here" }

    reply: name or number of the reply type, "unsup", "policy", "shutdown", … (required)
    message: text for people (default "")
    effect: follow the option all the same (default false)
    """

    reply: int = attrs.field(converter=_refusal)
    message: str = attrs.field(default="", converter=text)
    effect: bool = attrs.field(default=False, converter=boolean)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        refusal = refusal_answer(firing.event.option or 0, self.reply, self.message)
        return refusal, _replaced(answer, refusal, spec_name(Reply, self.reply))


@register("reply", family="answer", main="messages", replaces=True, may_stall=True)
@attrs.frozen
class LiteralReply(Kind):
    """Send the messages written here, and nothing else.

    The command is not performed, the option not followed, unless `effect` is true.

    A message is a table { message = TYPE, FIELD = VALUE, … }, or bytes as { hex = "…" } or
    { text = "…" }. Types: data, hole, none, status, error, simple, ack, server, info-export,
    info-name, info-description, info-block-size, info, meta-context, refusal, greeting,
    oldstyle-greeting, export-name; chunk and option-reply with any `type` and `payload`. Cookie,
    option, offset and form of header are the correct ones unless set. The last chunk carries DONE
    unless it sets its flags.

    Example: do = { reply = [{ message = "hole", size = 512 }, { message = "none" }] }

    messages: the messages in order; with an empty list nothing is sent (required)
    effect: perform the command, or follow the option, all the same (default false)
    """

    messages: tuple[MessageTemplate | ServerMessage, ...] = attrs.field(converter=message_templates)
    effect: bool = attrs.field(default=False, converter=boolean)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        built: Answer = [_built(item, firing.event) for item in self.messages]
        if built and isinstance(self.messages[-1], MessageTemplate):
            last = built[-1]
            if isinstance(last, Chunk) and "flags" not in self.messages[-1].settings:
                built[-1] = attrs.evolve(last, flags=ChunkFlag.DONE)
        if built == answer:
            # Equal to the correct reply, but its effect did not happen: that is a change.
            is_lost = firing.event.command in _CHANGING and not self.effect
            return answer, "sent the correct reply without its effect" if is_lost else ""
        return built, _replaced(answer, built, listed(built))


def _replaced(answer: Answer, by: Answer, words: str) -> str:
    if by == answer:
        return ""
    if not answer:
        return f"inserted {words}"
    return f"replaced {listed(answer)} by {words}" if by else f"dropped {listed(answer)}"


def _built(item: MessageTemplate | ServerMessage, event: Event) -> ServerMessage:
    return item.build(event) if isinstance(item, MessageTemplate) else item


@register("extents", family="answer", main="extents", events=("command",))
@attrs.frozen
class Extents(Kind):
    """Answer BLOCK_STATUS with the extents written here, in every status chunk that `at` names.

    Any lengths and flags may be given: they need not add up, nor be aligned. An empty list makes a
    status chunk without extents.

    Example: do = { extents = ["1000 data", "24 hole,zero"], context-id = 1 }

    extents: a list of "LENGTH FLAGS" or [length, flags] (required)
    context_id: only chunks of the context with this id; any if not given (default nothing)
    at: which status chunks (default "status")
    """

    extents: tuple[Extent, ...] = attrs.field(converter=extent_list)
    context_id: int | None = attrs.field(default=None, converter=optional(whole))
    at: Selector = attrs.field(default="status", converter=selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        setting: Setting = self.extents
        changed, changes = list(materialised(answer)), list[FieldChange]()
        for place in selected(changed, self.at):
            chunk = changed[place]
            if not isinstance(chunk, Chunk) or not isinstance(chunk.body, Status):
                continue
            if self.context_id in (None, chunk.body.context_id):
                changed[place] = message = with_field(chunk, "extents", setting)
                if message is not chunk:
                    changes.append(("extents", noun(chunk), chunk, message))
        return changed, field_changes(changes)
