from __future__ import annotations

from enum import IntEnum, IntFlag

import pytest

from fakenbd.protocol import constants
from fakenbd.protocol.constants import (
    ChunkFlag,
    ChunkType,
    ClientFlag,
    Command,
    CommandFlag,
    Error,
    HandshakeFlag,
    Info,
    Option,
    Reply,
    State,
    TransmissionFlag,
    flag_names,
    flag_number,
    number,
    slug,
    spec_name,
)

Kind = type[IntEnum] | type[IntFlag]
KINDS: list[Kind] = [
    ChunkFlag,
    ChunkType,
    ClientFlag,
    Command,
    CommandFlag,
    Error,
    HandshakeFlag,
    Info,
    Option,
    Reply,
    State,
    TransmissionFlag,
]


@pytest.mark.parametrize(
    ("kind", "value", "name", "word"),
    [
        (Option, 7, "NBD_OPT_GO", "go"),
        (Option, 77, "NBD_OPT_(77)", "77"),
        (Reply, 1, "NBD_REP_ACK", "ack"),
        (Reply, 0x8000000A, "NBD_REP_ERR_EXT_HEADER_REQD", "err-ext-header-reqd"),
        (Reply, 0x8000000B, "NBD_REP_(0x8000000b)", "2147483659"),
        (Info, 3, "NBD_INFO_BLOCK_SIZE", "block-size"),
        (Command, 7, "NBD_CMD_BLOCK_STATUS", "block-status"),
        (Command, 0x7FFF, "NBD_CMD_(32767)", "32767"),
        (Command, 0x8000, "NBD_CMD_(0x8000)", "32768"),
        (CommandFlag, 8, "NBD_CMD_FLAG_REQ_ONE", "req-one"),
        (ChunkType, 0x8002, "NBD_REPLY_TYPE_ERROR_OFFSET", "error-offset"),
        (ChunkFlag, 1, "NBD_REPLY_FLAG_DONE", "done"),
        (Error, 108, "NBD_ESHUTDOWN", "eshutdown"),
        (State, 2, "NBD_STATE_ZERO", "zero"),
        (TransmissionFlag, 8, "NBD_FLAG_SEND_FUA", "send-fua"),
        (HandshakeFlag, 2, "NBD_FLAG_NO_ZEROES", "no-zeroes"),
        (ClientFlag, 2, "NBD_FLAG_C_NO_ZEROES", "no-zeroes"),
    ],
)
def test_names(kind: Kind, value: int, name: str, word: str) -> None:
    assert spec_name(kind, value) == name
    assert slug(kind, value) == word


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_name_leads_back_to_its_number(kind: Kind) -> None:
    for member in kind:
        for word in (slug(kind, member), spec_name(kind, member), member.name, int(member)):
            assert word is not None
            assert number(kind, word) == member
        assert number(kind, str(member.name).lower()) == member


@pytest.mark.parametrize(
    ("kind", "word", "value"),
    [
        (TransmissionFlag, "fua", 8),
        (Reply, "unsup", 0x80000001),
        (Reply, "tls-reqd", 0x80000005),
        (Error, "EIO", 5),
        (Error, "nbd_eio", 5),
        (Command, 99, 99),
        (Command, -1, -1),
    ],
)
def test_short_words(kind: Kind, word: str | int, value: int) -> None:
    assert number(kind, word) == value


@pytest.mark.parametrize("word", ["datum", "99", "", "NBD_CMD_READ"])
def test_an_unknown_word_is_answered_with_the_known_ones(word: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        number(ChunkType, word)
    assert str(caught.value) == (
        f"unknown name {word!r}; known are none, offset-data, offset-hole, block-status,"
        " block-status-ext, error, error-offset"
    )


@pytest.mark.parametrize(
    ("kind", "value", "names"),
    [
        (State, 0, "0"),
        (State, 3, "NBD_STATE_HOLE|NBD_STATE_ZERO"),
        (State, 7, "NBD_STATE_HOLE|NBD_STATE_ZERO|0x4"),
        (State, 1 << 31, "0x80000000"),
        (CommandFlag, 33, "NBD_CMD_FLAG_FUA|NBD_CMD_FLAG_PAYLOAD_LEN"),
        (TransmissionFlag, 0x8001, "NBD_FLAG_HAS_FLAGS|0x8000"),
    ],
)
def test_flag_names(kind: type[IntFlag], value: int, names: str) -> None:
    assert flag_names(kind, value) == names


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], 0),
        ("zero", 2),
        (3, 3),
        (["hole", "zero"], 3),
        (("hole", 4, "NBD_STATE_HOLE"), 5),
    ],
)
def test_flag_number(words: int | str | list[str | int], value: int) -> None:
    assert flag_number(State, words) == value


def test_the_magics_of_text_spell_it() -> None:
    assert constants.NBDMAGIC.to_bytes(8) == b"NBDMAGIC"
    assert constants.IHAVEOPT.to_bytes(8) == b"IHAVEOPT"


@pytest.mark.parametrize("name", constants.__all__)
def test_all_names_exist(name: str) -> None:
    assert hasattr(constants, name)
