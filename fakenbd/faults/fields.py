"""Any field of any message by its name, header and body alike, to be set to any value.

Header and body share one space of names, for no two of their fields are called alike. A setting is
read once, when the fault is made, and applied to every message that has the field. `payload` is
the whole body as bytes; it keeps the type that the correct body implied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Any, Final, TypeAlias

import attrs

from fakenbd.export.extents import parse_extent
from fakenbd.faults.byte_value import ByteValue, byte_value, text_value
from fakenbd.faults.readers import byte_size, shown, unknown
from fakenbd.protocol import messages
from fakenbd.protocol.constants import (
    ChunkFlag,
    ChunkType,
    Error,
    HandshakeFlag,
    Info,
    Option,
    Reply,
    TransmissionFlag,
    number,
    slug,
)
from fakenbd.protocol.encode import correct_value, encode
from fakenbd.protocol.layout import pack_string, unpack_string
from fakenbd.protocol.messages import Extent, ServerMessage

__all__ = [
    "FIELDS",
    "Number",
    "Setting",
    "extent_list",
    "field_of",
    "has_field",
    "read_setting",
    "with_field",
    "word_number",
]

_MAXIMUM: Final = (1 << 64) - 1
_RELATIVE: Final = re.compile(r"([+-])(.+)")

# The enumerations whose words a field takes; their names do not clash within a field.
_ENUMERATIONS: Final[dict[str, tuple[type[IntEnum] | type[IntFlag], ...]]] = {
    "flags": (ChunkFlag, HandshakeFlag, TransmissionFlag),
    "type": (ChunkType, Reply),
    "error": (Error,),
    "option": (Option,),
    "info": (Info,),
}
_NUMBERS: Final = (
    *("magic", "option_magic", "cliserv_magic", "flags", "type", "length", "option", "error"),
    *("cookie", "request_offset", "offset", "size", "context_id", "count", "info", "minimum"),
    *("preferred", "maximum", "name_length", "message_length"),
)
_TEXTS: Final = ("name", "description", "text", "message")
_BYTES: Final = ("data", "payload", "rest", "reserved")

FIELDS: Final = (*_NUMBERS, *_TEXTS, *_BYTES, "extents")

# Widths in bytes of the fields that are not 4 bytes wide, needed to swap their bytes.
_WIDTHS: Final[dict[tuple[type, str], int]] = {
    (messages.Greeting, "magic"): 8,
    (messages.Greeting, "option_magic"): 8,
    (messages.Greeting, "flags"): 2,
    (messages.OldstyleGreeting, "magic"): 8,
    (messages.OldstyleGreeting, "cliserv_magic"): 8,
    (messages.OldstyleGreeting, "size"): 8,
    (messages.OptionReply, "magic"): 8,
    (messages.ExportNameReply, "size"): 8,
    (messages.ExportNameReply, "flags"): 2,
    (messages.SimpleReply, "cookie"): 8,
    (messages.Chunk, "cookie"): 8,
    (messages.Chunk, "flags"): 2,
    (messages.Chunk, "type"): 2,
    (messages.Chunk, "request_offset"): 8,
    (messages.InfoExport, "size"): 8,
    (messages.InfoExport, "flags"): 2,
    (messages.InfoText, "info"): 2,
    (messages.Data, "offset"): 8,
    (messages.Hole, "offset"): 8,
    (messages.ErrorChunk, "offset"): 8,
    (messages.ErrorChunk, "message_length"): 2,
}


@attrs.frozen
class Number:
    """A number: as it is, as a change of the correct one, or the correct one's bytes swapped."""

    value: int = 0
    relative: bool = False
    swapped: bool = False

    def to_toml(self) -> int | str:
        """What is read as this number."""
        if self.swapped:
            return "swapped"
        return f"{self.value:+}" if self.relative else self.value

    def over(self, correct: int, width: int) -> int:
        """The number to send in place of the correct one."""
        if self.swapped:
            masked = correct & ((1 << 8 * width) - 1)
            return int.from_bytes(masked.to_bytes(width, "big"), "little")
        return correct + self.value if self.relative else self.value


Setting: TypeAlias = Number | ByteValue | tuple[Extent, ...]


def read_setting(field: str, value: Any) -> Setting:
    """What to set a field to, read from what a person wrote.

    Numbers are integers, words of the field's enumeration or a list of them, sizes, a change such
    as "+1", or "swapped". Raises ValueError.
    """
    if field == "extents":
        return extent_list(value)
    if field in _TEXTS:
        return text_value(value)
    if field in _BYTES:
        return byte_value(value)
    if field in _NUMBERS:
        return _number(field, value)
    raise ValueError(unknown("field", field.replace("_", "-"), hyphened(FIELDS)))


def hyphened(names: Sequence[str]) -> list[str]:
    """Names of fields as profiles spell them."""
    return [name.replace("_", "-") for name in names]


def _number(field: str, value: Any) -> Number:
    if isinstance(value, Number):
        return value
    if value == "swapped":
        return Number(swapped=True)
    change = _RELATIVE.fullmatch(value) if isinstance(value, str) else None
    if change is not None:
        size = byte_size(change[2])
        return Number(-size if change[1] == "-" else size, relative=True)
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(1 << 63) <= value <= _MAXIMUM:
            raise ValueError(f"expected a number of at most 64 bits, got {value}")
        return Number(int(value))
    if field in _ENUMERATIONS:
        return Number(word_number(value, *_ENUMERATIONS[field]))
    if isinstance(value, str) and value[:1].isdigit():
        return Number(byte_size(value))
    raise ValueError(f'expected a number, a change such as "+1" or "swapped", got {shown(value)}')


def word_number(value: Any, *kinds: type[IntEnum] | type[IntFlag]) -> int:
    """The number of a word of the enumerations, of an integer, or the sum of a list of them."""
    if isinstance(value, (list, tuple)) and any(issubclass(kind, IntFlag) for kind in kinds):
        total = 0
        for word in value:
            total |= word_number(word, *kinds)
        return total
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= _MAXIMUM:
            raise ValueError(f"expected a name or a number from 0, got {value}")
        return int(value)
    if isinstance(value, str):
        for kind in kinds:
            try:
                return number(kind, value)
            except ValueError:
                continue
        known = [slug(kind, member) for kind in kinds for member in kind]
        raise ValueError(unknown("name", value, known))
    raise ValueError(f"expected a name or a number from 0, got {shown(value)}")


def extent_list(value: Any) -> tuple[Extent, ...]:
    """Extents from a list of "1000 data" or (length, flags)."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f'expected a list of extents such as "1000 data", got {shown(value)}')
    return tuple(map(_extent, value))


def _extent(item: Any) -> Extent:
    if isinstance(item, str):
        return parse_extent(item)
    if isinstance(item, (list, tuple)) and len(item) == 2:
        return Extent(byte_size(item[0]), word_number(item[1]))
    raise ValueError(f'expected an extent such as "1000 data", got {shown(item)}')


# --- messages ----------------------------------------------------------------------------------


def has_field(message: ServerMessage, field: str) -> bool:
    """Whether a message, or its body, has a field of that name."""
    if field == "payload":
        return isinstance(message, (messages.Chunk, messages.OptionReply))
    return field != "body" and (
        hasattr(message, field) or hasattr(getattr(message, "body", None), field)
    )


def field_of(message: ServerMessage, field: str) -> Any:
    """The value of a field as it goes on the wire: computed, where it is left to the encoder."""
    body = getattr(message, "body", None)
    if field == "payload":
        return _payload(message)
    value = getattr(message, field) if hasattr(message, field) else getattr(body, field)
    if value is None and field in _NUMBERS:
        try:
            return correct_value(message, field)
        except ValueError:
            return None
    return value


def _payload(message: ServerMessage) -> bytes:
    header = 20 if getattr(message, "request_offset", None) is None else 32
    return encode(message)[header:]


def with_field(message: ServerMessage, field: str, setting: Setting) -> ServerMessage:
    """The message with a field set; the message itself where it has no such field."""
    if not has_field(message, field):
        return message
    if field == "payload":
        return _with_payload(message, setting)
    body = getattr(message, "body", None)
    owner: Any = message if hasattr(message, field) else body
    value = _value(message, owner, field, setting)
    if value == field_of(message, field):
        return message
    changed = attrs.evolve(owner, **{field: value})
    if owner is message:
        return changed  # type: ignore[no-any-return]
    return attrs.evolve(message, body=changed)  # type: ignore[arg-type, call-arg, misc, type-var, unused-ignore]


def _value(message: ServerMessage, owner: Any, field: str, setting: Setting) -> Any:
    if isinstance(setting, Number):
        now = field_of(message, field)
        if now is None and (setting.relative or setting.swapped):
            return None
        width = _WIDTHS.get((type(owner), field), 4)
        if field == "length" and getattr(message, "request_offset", None) is not None:
            width = 8
        return setting.over(now or 0, width)
    if isinstance(setting, ByteValue):
        now = getattr(owner, field)
        if isinstance(now, str):
            return unpack_string(setting.over(pack_string(now)))
        return setting.over(now)
    return list(setting)


def _with_payload(message: Any, setting: Setting) -> ServerMessage:
    if not isinstance(setting, ByteValue):
        raise TypeError(f"a payload is bytes, not {setting!r}")
    payload = setting.over(_payload(message))
    kind = correct_value(message, "type") if message.type is None else message.type
    return attrs.evolve(message, body=messages.RawBody(payload), type=kind)  # type: ignore[no-any-return]
