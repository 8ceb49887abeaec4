"""The constants of NBD and their names.

Fields of messages are plain integers, so that unknown values survive a round trip; these
enumerations only name what the specification defines. `spec_name` gives the name people read
("NBD_OPT_GO"), `slug` the word they type ("go"), `number` the value of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Final

__all__ = [
    "CLISERV_MAGIC",
    "DEFAULT_PORT",
    "EXTENDED_REPLY_MAGIC",
    "EXTENDED_REQUEST_MAGIC",
    "IHAVEOPT",
    "MAXIMUM_PAYLOAD",
    "MAXIMUM_STRING",
    "NBDMAGIC",
    "OPTION_REPLY_MAGIC",
    "REQUEST_MAGIC",
    "SIMPLE_REPLY_MAGIC",
    "STRUCTURED_REPLY_MAGIC",
    "ChunkFlag",
    "ChunkType",
    "ClientFlag",
    "Command",
    "CommandFlag",
    "Error",
    "HandshakeFlag",
    "Info",
    "Option",
    "Reply",
    "State",
    "TransmissionFlag",
    "flag_names",
    "flag_number",
    "number",
    "slug",
    "spec_name",
]

NBDMAGIC: Final = 0x4E42444D41474943
CLISERV_MAGIC: Final = 0x0000420281861253
IHAVEOPT: Final = 0x49484156454F5054
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF
EXTENDED_REQUEST_MAGIC: Final = 0x21E41C71
EXTENDED_REPLY_MAGIC: Final = 0x6E8A278C

DEFAULT_PORT: Final = 10809
MAXIMUM_STRING: Final = 4096
MAXIMUM_PAYLOAD: Final = 1 << 25


class HandshakeFlag(IntFlag):
    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class ClientFlag(IntFlag):
    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    PEEK_EXPORT = 4
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class Reply(IntEnum):
    """Types of option replies; bit 31 marks an error."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009
    ERR_EXT_HEADER_REQD = 0x8000000A


class Info(IntEnum):
    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(IntFlag):
    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11
    BLOCK_STATUS_PAYLOAD = 1 << 12


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7
    RESIZE = 8


class CommandFlag(IntFlag):
    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8
    FAST_ZERO = 16
    PAYLOAD_LEN = 32


class ChunkFlag(IntFlag):
    DONE = 1


class ChunkType(IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    BLOCK_STATUS_EXT = 6
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


class Error(IntEnum):
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


class State(IntFlag):
    """Extent flags of `base:allocation`; 0 is data."""

    HOLE = 1
    ZERO = 2


_PREFIXES: Final[dict[type[IntEnum] | type[IntFlag], str]] = {
    HandshakeFlag: "NBD_FLAG_",
    ClientFlag: "NBD_FLAG_C_",
    Option: "NBD_OPT_",
    Reply: "NBD_REP_",
    Info: "NBD_INFO_",
    TransmissionFlag: "NBD_FLAG_",
    Command: "NBD_CMD_",
    CommandFlag: "NBD_CMD_FLAG_",
    ChunkFlag: "NBD_REPLY_FLAG_",
    ChunkType: "NBD_REPLY_TYPE_",
    Error: "NBD_",
    State: "NBD_STATE_",
}


_NAMES: Final = {
    kind: {int(member): f"{prefix}{member.name}" for member in kind}
    for kind, prefix in _PREFIXES.items()
}


def spec_name(kind: type[IntEnum] | type[IntFlag], value: int) -> str:
    """The specification's name of one value: "NBD_OPT_GO", or "NBD_OPT_(77)" for an unknown one."""
    name = _NAMES[kind].get(value)
    if name is not None:
        return name
    prefix = _PREFIXES[kind]
    return f"{prefix}({value})" if value < 0x8000 else f"{prefix}({value:#x})"


def flag_names(kind: type[IntFlag], value: int) -> str:
    """All names set in `value`, joined by "|"; unknown bits as one hexadecimal number, 0 as "0"."""
    names = [f"{_PREFIXES[kind]}{member.name}" for member in kind if member & value]
    unknown = value & ~sum(kind)
    if unknown:
        names.append(hex(unknown))
    return "|".join(names) or "0"


def slug(kind: type[IntEnum] | type[IntFlag], value: int) -> str:
    """The word a profile uses for `value`: "go", "block-status", "eio"; digits if unknown."""
    for member in kind:
        if member == value:
            return str(member.name).lower().replace("_", "-")
    return str(value)


def number(kind: type[IntEnum] | type[IntFlag], word: str | int) -> int:
    """The value of a slug, of a bare or full specification name, or of an integer as it is.

    Raises ValueError naming the words that are known.
    """
    if isinstance(word, int):
        return word
    bare = word.upper().replace("-", "_").removeprefix(_PREFIXES[kind])
    for member in kind:
        name = str(member.name)
        if bare in (name, name.removeprefix("SEND_"), name.removeprefix("ERR_")):
            return int(member)
    known = ", ".join(slug(kind, member) for member in kind)
    raise ValueError(f"unknown name {word!r}; known are {known}")


def flag_number(kind: type[IntFlag], words: int | str | Sequence[str | int]) -> int:
    """The union of a list of flag words or numbers; a lone word or number is a list of one."""
    if isinstance(words, (int, str)):
        words = [words]
    value = 0
    for word in words:
        value |= number(kind, word)
    return value
