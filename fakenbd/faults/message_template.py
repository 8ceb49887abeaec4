"""Messages written out by people, to be sent in place of the correct ones or beside them.

A template names a type of message and sets some fields; the others are those of a correct message
to the same request: its cookie, its option, its offset, the negotiated form of header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from fakenbd.faults.byte_value import hex_bytes, text_value
from fakenbd.faults.event import Event
from fakenbd.faults.fields import Setting, has_field, read_setting, with_field
from fakenbd.faults.readers import TableError, plain, shown, unknown
from fakenbd.faults.selection import is_message
from fakenbd.protocol import messages
from fakenbd.protocol.constants import ChunkFlag, Info
from fakenbd.protocol.messages import ChunkBody, ReplyBody, ServerMessage

__all__ = ["MESSAGE_TEMPLATES", "MessageTemplate", "message_template", "message_templates"]


@attrs.frozen
class MessageTemplate:
    """A message to build for an event: its type's word and the fields that are set."""

    word: str
    settings: Mapping[str, Setting] = attrs.field(factory=dict)

    def to_toml(self) -> dict[str, Any]:
        """The table that is read as this message."""
        return {"message": self.word, **plain(self.settings)}

    def build(self, event: Event) -> ServerMessage:
        """The message as an answer to `event`."""
        message = MESSAGE_TEMPLATES[self.word](event)
        for name, setting in self.settings.items():
            message = with_field(message, name, setting)
        return message


def _chunk(
    body: Callable[[int, int], ChunkBody], flags: int = 0
) -> Callable[[Event], ServerMessage]:
    def build(event: Event) -> ServerMessage:
        request = event.request or messages.Request(0)
        return messages.Chunk(
            request.cookie,
            body(request.offset, request.length),
            flags=flags,
            request_offset=request.offset if event.extended else None,
        )

    return build


def _option_reply(body: ReplyBody) -> Callable[[Event], ServerMessage]:
    return lambda event: messages.OptionReply(event.option or 0, body)


def _simple(event: Event) -> ServerMessage:
    return messages.SimpleReply(event.request.cookie if event.request else 0)


MESSAGE_TEMPLATES: Final[dict[str, Callable[[Event], ServerMessage]]] = {
    "data": _chunk(lambda offset, length: messages.Data(offset, b"")),
    "hole": _chunk(lambda offset, length: messages.Hole(offset, length)),
    "none": _chunk(lambda offset, length: messages.NoneChunk(), flags=ChunkFlag.DONE),
    "status": _chunk(lambda offset, length: messages.Status(0, [])),
    "error": _chunk(lambda offset, length: messages.ErrorChunk(0)),
    "chunk": _chunk(lambda offset, length: messages.RawBody()),
    "simple": _simple,
    "ack": _option_reply(messages.Ack()),
    "server": _option_reply(messages.Server()),
    "info-export": _option_reply(messages.InfoExport()),
    "info-name": _option_reply(messages.InfoText(Info.NAME)),
    "info-description": _option_reply(messages.InfoText(Info.DESCRIPTION)),
    "info-block-size": _option_reply(messages.InfoBlockSize()),
    "info": _option_reply(messages.InfoText(4)),
    "meta-context": _option_reply(messages.MetaContext()),
    "refusal": _option_reply(messages.ErrorReply()),
    "option-reply": _option_reply(messages.RawBody()),
    "greeting": lambda event: messages.Greeting(),
    "oldstyle-greeting": lambda event: messages.OldstyleGreeting(),
    "export-name": lambda event: messages.ExportNameReply(),
}

_SAMPLE: Final = Event("command", 1)


def message_template(value: Any) -> MessageTemplate | ServerMessage:
    """Read one message: a table { message = "data", … }, raw bytes, or a message from Python.

    Raw bytes are a string of hexadecimal digits, { hex = "…" }, { text = "…" } or bytes.
    """
    if is_message(value) or isinstance(value, MessageTemplate):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, Mapping):
        return messages.Raw(hex_bytes(value))
    if "message" not in value or value["message"] == "raw":
        table = {key: item for key, item in value.items() if key != "message"}
        return messages.Raw(text_value(table).over(b""))
    word = value["message"]
    if word not in MESSAGE_TEMPLATES:
        raise TableError([f"message: {unknown('message', word, (*MESSAGE_TEMPLATES, 'raw'))}"])
    return _message_template(word, {key: item for key, item in value.items() if key != "message"})


def _message_template(word: str, table: Mapping[str, Any]) -> MessageTemplate:
    sample = MESSAGE_TEMPLATES[word](_SAMPLE)
    settings, mistakes = {}, []
    for key, item in table.items():
        name = key.replace("-", "_")
        try:
            setting = read_setting(name, item)
            if not has_field(sample, name):
                raise ValueError(f'a message "{word}" has no such field')
            settings[name] = setting
        except ValueError as error:
            mistakes.append(f"{key}: {error}")
    if mistakes:
        raise TableError(mistakes)
    return MessageTemplate(word, settings)


def message_templates(value: Any) -> tuple[MessageTemplate | ServerMessage, ...]:
    """Read a list of messages."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list of messages, got {shown(value)}")
    return tuple(map(message_template, value))
