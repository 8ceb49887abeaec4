"""Profiles and faults in words, in full."""

from __future__ import annotations

import pytest

from fakenbd.faults import KINDS, Fault, parse_fault
from fakenbd.profile import Expect, Profile, find
from fakenbd.profile.prose import describe
from fakenbd.profile.quantities import count, extents, octets
from fakenbd.profile.wording import fault_sentence
from fakenbd.protocol.messages import Extent

SEED = """\
quirks/qemu-odd-tail
The size is rounded up to a sector, the extents are not

A file of 1000 bytes is served as 1024, because the server thinks in sectors of 512 bytes, and it
advertises that sector as its minimum block. But its extents come from the file system, which knows
that the data ends at byte 1000: the map says 1000 bytes of data and a hole of 24, and neither is a
multiple of the minimum. Whoever asks at 512 is told 488 bytes.

A client may hang up on a server that cannot count, but it loses nothing by going on: an extent that
reaches past a block boundary is cut back to it, keeping its flags; one that is shorter than a block
becomes a whole block of data, since data is the answer that is always safe. It must not ask at byte
1000, which the server's minimum forbids. Read back, the sector has the data and zeroes after it.

The server
  * The default export has 1000 bytes, rounded up to a multiple of 512 bytes: bytes that tell where
    they belong. It advertises blocks of 512 bytes (preferred 4 KiB), at most 32 MiB a request. It
    answers requests off the minimum block, too.
  * base:allocation says 1000 bytes of data and 24 bytes of a hole that reads as zeroes.
  * It speaks fixed newstyle, structured replies, extended headers, no TLS.

Rules
  * S-209 (broken here; SHOULD, NBD_CMD_BLOCK_STATUS): lengths not multiples of 512 or the
    advertised minimum. Asked of a client: tolerate it; do not derive unaligned READs from it (then
    C-89 breach).

A good client
  * When asked to map, it succeeds and keeps the connection; it never crashes, hangs, or takes wrong
    data for good.

Seen in
  * qemu-nbd 2.12 to 3.1
  * qemu-nbd 7.2 when it probes the format
"""


def test_the_seed():
    assert describe(find("quirks/qemu-odd-tail")) == SEED


EVERYTHING = (
    """
summary = "All at once"
about = \"\"\"
One line
and another.

   indented   lines
  stay
\"\"\"
rules = ["C-27", "Q-37"]
[[export]]
content = { text = "x" }
block-size = false
flags = ["read-only", 0x8000]
canonical-name = "disk"
contexts = {}
[[export]]
name = "second"
size = 1
description = "d"
any-alignment = true
tls-only = true
content = { random = 7 }
[export.contexts]
"x:1" = {}
"x:2" = { repeat = ["1 0x7", "4KiB hole"] }
"x:3" = { policy = { one-extent = false, split = 512, merge = true, overrun = true } }
"x:4" = { extents = [[1, 0], [2, 0], [3, 0], [4, 0], [5, 0], [6, 0], [7, 0], [8, 0]] }
[handshake]
no-zeroes = false
extended-headers = false
structured-replies = false
tls = "optional"
[[fault]]
when = { command = "read", nth = 2 }
do = { error = "EIO", message = "bad sector" }
[expect]
outcome = "either"
exercise = ["info", "list", "copy"]
""",
    """\
x
All at once

One line and another.

   indented   lines
  stay

The server
  * The default export has the size of its content: a text. It advertises no block sizes. Its flags
    are NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY, 0x8000. Its canonical name is "disk".
  * It has no metadata contexts.
  * The export "second" has 1 byte: random bytes from the seed 7. It advertises blocks of 1 byte
    (preferred 4 KiB), at most 32 MiB a request. It is described as "d". It answers requests off the
    minimum block, too. It is opened over TLS only.
  * x:1 has nothing to tell.
  * x:2 says 1 byte of flags 0x7 and 4 KiB of a hole, over and over.
  * x:3 has nothing to tell, many extents, asked or not, equal neighbours joined, cut at every 512
    bytes, past the request's end.
  * x:4 says 1 byte of data, 2 bytes of data, 3 bytes of data, 4 bytes of data, 5 bytes of data, 6
    bytes of data and 2 more.
  * It speaks fixed newstyle, no structured replies, no extended headers, TLS if asked, 124 zeroes
    after NBD_OPT_EXPORT_NAME.

What it does wrong
  * On the 2nd NBD_CMD_READ it answers NBD_EIO instead, saying "bad sector".

Rules
  * C-27 (for the client; MUST, NBD_OPT_INFO/GO; NBD_REP_INFO): unknown INFO replies are ignored.
  * Q-37 (legal, and unusual; NBD_CMD_BLOCK_STATUS): many tiny extents; equal neighbours not merged.
    Clients' usual bug: assumes alternation.

A good client
  * When asked to look at the export, list the exports and copy, it succeeds or reports a failure;
    it never crashes, hangs, or takes wrong data for good.
""",
)


def test_everything(tmp_path):
    text, prose = EVERYTHING
    source = tmp_path / "x.toml"
    source.write_text(text)
    assert describe(find(str(source))) == prose


def fault(when, do, **more) -> Fault:
    return parse_fault({"when": when, "do": do, **more})


CLOSE = {"close": True}
SENTENCES = [
    # When.
    (
        {"command": "read"},
        CLOSE,
        "On each NBD_CMD_READ it closes the connection instead of answering.",
    ),
    ({"command": "any", "times": 1}, CLOSE, "On the first command it …"),
    ({"option": "any", "nth": 11}, CLOSE, "On the 11th option it …"),
    ({"option": ["go", 77], "nth": 23}, CLOSE, "On the 23rd NBD_OPT_GO or NBD_OPT_(77) it …"),
    ({"connect": True}, CLOSE, "On each connection it …"),
    ({"connect": True, "connection": [1, 3]}, CLOSE, "On the 1st and 3rd connection it …"),
    ({"greeting": True, "connection": 2}, CLOSE, "On each greeting on the 2nd connection it …"),
    ({"per": "server"}, CLOSE, "On each connection, greeting, option or command it …"),
    ({"command": "read", "every": 2}, CLOSE, "On every 2nd NBD_CMD_READ it …"),
    ({"command": "read", "after": 1}, CLOSE, "On each NBD_CMD_READ after the first it …"),
    (
        {"command": "read", "after": 3, "times": 2, "per": "connection"},
        CLOSE,
        "On each NBD_CMD_READ of each connection after the first 3 (2 times at most) it …",
    ),
    (
        {"command": "read", "offset": "1KiB..2KiB", "length": "1..", "tls": True},
        CLOSE,
        "On each NBD_CMD_READ of 1 byte or more that touches offsets 1024 to 2047 with TLS it …",
    ),
    (
        {"command": "read", "offset": "4KiB..", "length": "1..9", "structured": False},
        CLOSE,
        "On each NBD_CMD_READ of 1 byte to 9 bytes that touches offset 4096 or later without "
        "structured replies it …",
    ),
    (
        {"command": "read", "offset": 0, "length": 512, "flags": ["df", "fua"], "chance": 0.25},
        CLOSE,
        "On each NBD_CMD_READ of 512 bytes that starts at offset 0 with NBD_CMD_FLAG_FUA and "
        "NBD_CMD_FLAG_DF (with a probability of 25 %) it …",
    ),
    # What, a row for each kind at least.
    ({}, {"error": 77, "offset": "+5"}, "… it answers NBD_(77) instead, for offset +5."),
    ({}, {"refuse": "unsup", "message": "no"}, '… it refuses with NBD_REP_ERR_UNSUP, saying "no".'),
    ({}, {"reply": []}, "… it answers nothing instead."),
    (
        {},
        {"reply": [{"message": "data", "offset": "+1"}, {"message": "none"}, {"hex": "00"}]},
        '… it answers a message "data" with offset +1 of the honest value, a message "none" and '
        "1 byte of its own instead.",
    ),
    (
        {},
        {"extents": ["512 data", "5 hole"]},
        "… it tells of 512 bytes of data and 5 bytes of a hole instead.",
    ),
    ({}, {"extents": []}, "… it tells of no extents at all instead."),
    (
        {},
        {"set": {"error": "EIO", "cookie": "swapped", "length": 70000}, "at": "first"},
        "… it sets error to NBD_EIO, cookie to its bytes in the other order and length to 0x11170 "
        "in the first message of the answer.",
    ),
    (
        {},
        {"set": {"payload": {"resize": "-1"}, "extents": ["1 data"]}, "at": -1},
        "… it sets payload to the honest bytes but for the last 1 byte and extents to 1 byte of "
        "data in the 1st message from the answer's end.",
    ),
    (
        {},
        {"set": {"payload": {"resize": "+1KiB"}, "data": {"resize": 2}}, "at": "data"},
        "… it sets payload to the honest bytes with 1 KiB more and data to the honest bytes, cut "
        "or filled up to 2 bytes in each data message.",
    ),
    ({}, {"drop": "last"}, "… it leaves out the last message of the answer."),
    ({}, {"repeat": 2, "at": "each"}, "… it says every message of the answer again, 2 times."),
    ({}, {"repeat": "forever"}, "… it says the last message of the answer again, without end."),
    (
        {},
        {"insert": "00ff", "before": "data"},
        "… it inserts 2 bytes of its own before each data message.",
    ),
    (
        {},
        {"insert": {"message": "none"}},
        '… it inserts a message "none" after the last message of the answer.',
    ),
    (
        {},
        {"split": "1KiB", "at": 0},
        "… it sends the 1st message of the answer in pieces of 1 KiB.",
    ),
    ({}, {"split": "random"}, "… it sends every message of the answer in pieces of random length."),
    (
        {},
        {"split": "holes"},
        "… it sends the zero sectors of every message of the answer as holes.",
    ),
    ({}, {"shuffle": True}, "… it shuffles every message of the answer."),
    ({}, {"reverse": True}, "… it reverses the order of every message of the answer."),
    (
        {},
        {"cut": 7, "then": "reset"},
        "… it sends 7 bytes of the answer, then resets the connection.",
    ),
    (
        {},
        {"cut": -3, "then": "stall"},
        "… it sends all but the last 3 bytes of the answer, then falls silent.",
    ),
    ({}, {"garble": True, "count": 2}, "… it changes 2 bytes of the answer, drawn by the seed."),
    ({}, {"garble": 4, "xor": "8001"}, "… it changes 2 bytes of the answer, from byte 4 on."),
    ({}, {"dribble": 1, "seconds": 0.5}, "… it sends the answer 1 byte at a time, 0.5 s apart."),
    ({}, {"dribble": [4, 2]}, "… it sends the answer in writes of 4 and 2 bytes and the rest."),
    ({}, {"delay": 2, "at": "last"}, "… it lets 2 s pass before the last message of the answer."),
    ({}, {"delay": 2}, "… it lets 2 s pass first."),
    ({}, {"delay": 2, "jitter": 0.5}, "… it lets 2 s to 2.5 s pass first."),
    ({}, {"delay": 0, "jitter": 3}, "… it lets up to 3 s pass first."),
    (
        {},
        {"hold": 2},
        "… it keeps the answer back until 2 other answers went first, or there was silence for "
        "0.05 s.",
    ),
    (
        {},
        {"hold": 1, "idle": 2, "at": "last"},
        "… it keeps the last message of the answer back until 1 other answer went first, or there "
        "was silence for 2 s.",
    ),
    ({}, {"hold": True}, "… it keeps the answer back until there was silence for 0.05 s."),
    ({}, {"stall": True}, "… it sends nothing of the answer and falls silent."),
    ({}, {"rate": "64KiB"}, "… it sends 64 KiB a second."),
    ({}, {"refuse-connection": True}, "… it resets it at once."),
    ({}, {"mute": True}, "… it never greets."),
    (
        {},
        {"reset": True, "after": True, "reading": "1KiB"},
        "… it resets the connection after the answer, having taken 1 KiB more of the client's.",
    ),
    ({}, {"stop-reading": True}, "… it reads nothing more from the client."),
    ({}, {"shutdown": True}, "… it shuts down: this request and all that follow fail."),
    (
        {},
        {"away": 2},
        "… it closes the connection and takes its listener away for 2 connection attempts.",
    ),
    (
        {},
        {"away": True, "seconds": 3, "then": "answer"},
        "… it answers and takes its listener away for 3 s.",
    ),
    ({}, {"certificate": "wrong-host"}, "… it shows the certificate of another host."),
    (
        {},
        {"plaintext-after-ack": {"message": "ack"}},
        '… it says a message "ack" in clear right behind the ack, before the handshake.',
    ),
    ({}, {"no-handshake": True}, "… it agrees to TLS and goes on in clear instead."),
    ({}, {"no-handshake": "silence"}, "… it agrees to TLS and falls silent instead."),
    ({}, {"tls-version": "1.1"}, "… it speaks TLS 1.1 only."),
    ({}, {"keep-state": True}, "… it forgets nothing of what was agreed before TLS."),
    (
        {},
        {"abort-handshake": True},
        "… it agrees to TLS and drops the connection before it says a word in the handshake.",
    ),
    (
        {},
        {"abort-handshake": 100},
        "… it agrees to TLS and drops the connection after 100 bytes of its half of the handshake.",
    ),
    ({}, {"no-close-notify": True}, "… it ends the connection without TLS's goodbye."),
    (
        {},
        [{"cut": 0}, {"delay": 1}],
        "… it sends nothing of the answer, then closes the connection and lets 1 s pass first.",
    ),
]


@pytest.mark.parametrize(("when", "do", "sentence"), SENTENCES)
def test_a_fault_in_a_sentence(when, do, sentence):
    said = fault(when, do)
    if when:
        expected = sentence.replace("it …", "it closes the connection instead of answering.")
        assert fault_sentence(said) == expected
    else:
        assert fault_sentence(said).endswith(sentence.removeprefix("…"))


def test_every_kind_has_words_of_its_own():
    said = {
        kind
        for _, do, _ in SENTENCES
        for each in (do if isinstance(do, list) else [do])
        for kind in each
    }
    assert set(KINDS) <= said
    assert "does this" not in " ".join(sentence for _, _, sentence in SENTENCES)


def test_faults_that_stack_and_functions_are_told():
    def double(answer, strike):
        return answer * 2

    stacked = fault({"command": "read"}, {"delay": 1}, also=True)
    assert fault_sentence(stacked) == (
        "On each NBD_CMD_READ it lets 1 s pass first, and other faults may strike too."
    )
    scripted = Fault("", stacked.when, double)
    assert fault_sentence(scripted) == (
        "On each NBD_CMD_READ it does what the function double says."
    )


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (None, "When asked to read, it succeeds;"),
        ("off", "When asked to read without TLS, it succeeds;"),
        ("allow", "When asked to read, with TLS if there is any, it succeeds;"),
        ("require", "When asked to read with TLS, it succeeds;"),
    ],
)
def test_what_the_client_is_told_about_tls(policy, words):
    profile = Profile.of(expect=Expect(exercise=("read",), tls=policy))
    assert words in describe(profile)


def test_what_only_rude_clients_meet_is_asked_of_none():
    words = "Only a client that breaks the rules meets it: a good one can be asked nothing."
    assert words in describe(Profile.of(expect=Expect(exercise=())))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1000, "1000 bytes"),
        (1024, "1 KiB"),
        (1536, "1536 bytes"),
        (1 << 32, "4 GiB"),
        (1 << 63, "8 EiB"),
        ((1 << 64) - 1, "18446744073709551615 bytes"),
    ],
)
def test_octets(number, words):
    assert octets(number) == words


def test_small_words():
    assert (count(1, "reply"), count(2, "reply"), count(0, "byte")) == (
        "1 reply",
        "2 replies",
        "0 bytes",
    )
    assert extents([]) == "no extents at all"
    assert extents([Extent(512, 2)]) == "512 bytes of zeroes"
