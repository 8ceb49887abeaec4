"""TOML in, profile out; or every mistake of it."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from fakenbd.errors import ProfileError
from fakenbd.export import BlockSize, ExtentList, Policy, Repeated
from fakenbd.faults import Fault, When, make_kind
from fakenbd.profile import ContentSpec, Expect, ExportSpec, Handshake, Profile, find, find_all
from fakenbd.protocol.messages import Extent


def load(folder: Path, text: str) -> Profile:
    source = folder / "x.toml"
    source.write_text(text, encoding="utf-8")
    return find(str(source))


DEFAULT = Profile("x")

PROFILES = {
    "": DEFAULT,
    """
    summary = "s"
    about = "a"
    rules = ["S-209", "Q-35", "C-89"]
    seen-in = ["one", "two"]
    """: attrs.evolve(
        DEFAULT,
        summary="s",
        about="a",
        rules=("S-209", "Q-35", "C-89"),
        seen_in=("one", "two"),
    ),
    """
    [handshake]
    style = "fixed"
    no-zeroes = false
    structured-replies = false
    extended-headers = false
    tls = "required"
    """: attrs.evolve(
        DEFAULT,
        handshake=Handshake(
            no_zeroes=False, structured_replies=False, extended_headers=False, tls="required"
        ),
    ),
    """
    [handshake]
    style = "oldstyle"
    """: attrs.evolve(DEFAULT, handshake=Handshake(style="oldstyle")),
    """
    [expect]
    outcome = "fails"
    session = "soft-disconnects"
    operations = ["map", "cache"]
    """: attrs.evolve(
        DEFAULT, expect=Expect("fails", session="soft-disconnects", operations=("map", "cache"))
    ),
    """
    [expect]
    tls = "allow"
    """: attrs.evolve(DEFAULT, expect=Expect(tls="allow")),
    """
    [[fault]]
    name = "second read fails"
    when = { command = "read", nth = 2, per = "server" }
    do   = { error = "EIO", message = "bad sector" }
    [[fault]]
    when = { option = "go" }
    do   = [{ cut = 7 }, "close"]
    also = true
    """: attrs.evolve(
        DEFAULT,
        faults=(
            Fault(
                "second read fails",
                When(command="read", nth=2, per="server"),
                make_kind("error", "EIO", message="bad sector"),
            ),
            Fault(
                "",
                When(option="go"),
                (make_kind("cut", 7), make_kind("close")),
                also=True,
            ),
        ),
    ),
    """
    [[export]]
    name = "a"
    size = "64KiB"
    [[export]]
    name = "b"
    tls-only = true
    """: attrs.evolve(
        DEFAULT, exports=(ExportSpec("a", size=65536), ExportSpec("b", tls_only=True))
    ),
}


@pytest.mark.parametrize("text", PROFILES)
def test_a_profile(text, tmp_path):
    profile = load(tmp_path, text)
    assert profile.source == tmp_path / "x.toml"
    assert attrs.evolve(profile, source=None) == PROFILES[text]


EXPORTS = {
    'size = "1KiB"': {"size": 1024},
    "size = 18446744073709551615": {"size": 2**64 - 1},
    "round-size-to = 512": {"round_size_to": 512},
    f"size = {2**64 - 512}\nround-size-to = 512": {"size": 2**64 - 512, "round_size_to": 512},
    "block-size = { minimum = 1, preferred = 1, maximum = 1 }": {"block_size": BlockSize(1, 1, 1)},
    'content = "pattern"': {"content": ContentSpec()},
    'content = "zeros"': {"content": ContentSpec("zeros")},
    'content = { text = "hé" }': {"content": ContentSpec("text", "hé")},
    'content = { hex = "00 ff" }': {"content": ContentSpec("hex", "00 ff")},
    "content = { random = 7 }": {"content": ContentSpec("random", 7)},
    'content = { random = "seven" }': {"content": ContentSpec("random", "seven")},
    "block-size = false": {"block_size": None},
    "block-size = {}": {"block_size": BlockSize()},
    "block-size = { minimum = 0, preferred = 3, maximum = 0 }": {"block_size": BlockSize(0, 3, 0)},
    'block-size = { minimum = "64KiB" }': {"block_size": BlockSize(65536, 65536, 1 << 25)},
    'block-size = { preferred = "64MiB" }': {"block_size": BlockSize(1, 1 << 26, 1 << 26)},
    "flags = 0": {"flags": 0},
    "flags = 0xffff": {"flags": 0xFFFF},
    "flags = []": {"flags": 1},
    'flags = ["flush", "send-fua", "read-only", 0x8000]': {"flags": 0x800F},
    'description = "d"': {"description": "d"},
    'canonical-name = ""': {"canonical_name": ""},
    "any-alignment = true": {"any_alignment": True},
    "tls-only = true": {"tls_only": True},
    "contexts = {}": {"contexts": {}},
    'contexts = { "x:y" = {} }': {"contexts": {"x:y": None}},
    'contexts = { "x:y" = ["1000 data", "24 hole,zero", [5, 9]] }': {
        "contexts": {"x:y": (Extent(1000, 0), Extent(24, 3), Extent(5, 9))}
    },
    'contexts = { "x:y" = { extents = ["4KiB dirty"] } }': {
        "contexts": {"x:y": (Extent(4096, 1),)}
    },
}


@pytest.mark.parametrize("text", EXPORTS)
def test_an_export(text, tmp_path):
    assert load(tmp_path, f"[export]\n{text}").exports == (ExportSpec(**EXPORTS[text]),)


SCRIPTS = {
    '{ repeat = ["4KiB data", "4KiB hole,zero"] }': Repeated(["4KiB data", "4KiB hole,zero"]),
    "{ policy = { one-extent = true, split = 512, overrun = true, merge = false } }": Policy(
        one_extent=True, split=512, overrun=True, merge=False
    ),
    '{ extents = ["1KiB data"], policy = { one-extent = false } }': Policy(
        ExtentList(["1KiB data"]), one_extent=False
    ),
    '{ repeat = ["1KiB data"], policy = { merge = true } }': Policy(
        Repeated(["1KiB data"]), merge=True
    ),
}


def described(script):
    """A script as plain values: extent lists are compared by what they hold."""
    inner = getattr(script, "script", None)
    fields = attrs.asdict(script, filter=lambda field, _: field.name not in ("script", "_list"))
    return type(script), fields, None if inner is None else described(inner)


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_context_with_a_script(text, tmp_path):
    (spec,) = load(tmp_path, f'[export]\ncontexts = {{ "base:allocation" = {text} }}').exports
    assert described(spec.contexts["base:allocation"]) == described(SCRIPTS[text])


def test_a_file_beside_its_profile_and_its_holes(tmp_path):
    (tmp_path / "disk").write_bytes(b"x" * 1000)
    profile = load(
        tmp_path,
        """
        [export]
        content = { file = "disk" }
        round-size-to = 512
        contexts = { "base:allocation" = { seek-hole = true } }
        """,
    )
    (export,) = profile.open_exports()
    assert export.size == 1024
    assert export.block_status("base:allocation", 0, 1024, 0) == [Extent(1000, 0), Extent(24, 3)]
    assert bytes(export.read(998, 4)) == b"xx\0\0"
    export.close()


BROKEN = {
    "summary = ": ["is not TOML: Invalid value (at end of document)"],
    "summary = 1\nabout = [2]\nrules = 3": [
        "summary: expected a text, got 1",
        "about: expected a text, got a list",
        "rules: expected a list, got 3",
    ],
    'sumary = "x"\nseen_in = []': [
        'unknown key "sumary"; did you mean "summary"?',
        'unknown key "seen_in"; did you mean "seen-in"?',
    ],
    'rules = ["S-999", "S-2", "209", 7]': [
        "rules[0]: there is no rule 'S-999'; the nearest are S-224, S-223, S-222",
        "rules[1]: there is no rule 'S-2'; the nearest are S-02, S-01, S-03",
        "rules[2]: there is no rule '209'; ids look like C-89, S-209 or Q-35",
        "rules[3]: expected a text, got 7",
    ],
    'rules = ["S-209", "Q-35", "S-209"]': ["rules: expected each rule once, got S-209 again"],
    'export = "1MiB"\nfault = {}\nhandshake = 1': [
        'export: expected a table, got "1MiB"',
        "fault: expected a list, got a table",
        "handshake: expected a table, got 1",
    ],
    '[export]\nsize = "1 megabyte"\nround-size-to = 0\nflags = "flush"\nnmae = "x"': [
        'export.size: expected a size such as 512 or "64KiB", got "1 megabyte"',
        "export.round-size-to: expected a whole number from 1, got 0",
        'export.flags: expected a list of flags, or all of them as a number, got "flush"',
        'export: unknown key "nmae"; did you mean "name"?',
    ],
    "[export]\nsize = -1\nblock-size = { minimum = 4294967296, largest = 1 }\ntls-only = 1": [
        'export.size: expected a size such as 512 or "64KiB", got -1',
        "export.block-size.minimum: expected a size of at most 2^32 - 1 bytes, got 4294967296",
        'export.block-size: unknown key "largest"; known are minimum, preferred, maximum',
        "export.tls-only: expected true or false, got 1",
    ],
    "[export]\nsize = 18446744073709551616\nblock-size = true\ncontent = 7": [
        "export.size: expected a size of at most 2^64 - 1 bytes, got 18446744073709551616",
        "export.block-size: expected a table with minimum, preferred and maximum, or false to "
        "advertise none, got true",
        'export.content: expected "pattern", "zeros", or a table with one of text, hex, file and '
        "random, got 7",
    ],
    '[export]\ncontent = { text = "a", hex = "b" }\nflags = ["flsh", 65536, true]': [
        "export.content.hex: expected pairs of hexadecimal digits, got 'b'",
        'export.flags[0]: unknown flag "flsh"; did you mean "flush"?',
        "export.flags[1]: expected a whole number from 0 to 2^16 - 1, got 65536",
        "export.flags[2]: expected a whole number from 0 to 2^16 - 1, got true",
    ],
    '[[export]]\ncontent = { text = "a", random = 1 }\n[[export]]\ncontent = { file = "" }\n'
    '[[export]]\ncontent = "patern"': [
        "export[0].content: expected one of text, hex, file and random, got text and random",
        'export[1].content.file: expected the path of a file, got ""',
        'export[2].content: expected one of "pattern", "zeros", got "patern"',
    ],
    '[export.contexts]\n"a:b" = ["1000", "5 dat"]\n"c:d" = { seek-hole = true }\n"e:f" = 1': [
        'export.contexts."a:b"[0]: expected an extent such as "1000 data" or "24 hole,zero", '
        "got '1000'",
        'export.contexts."a:b"[1]: expected data, hole, zero, dirty or a number as flags in the '
        "extent '5 dat', got 'dat'",
        'export.contexts."e:f": expected a list of extents such as ["1000 data", "24 hole,zero"], '
        "or a table with extents, repeat, seek-hole or policy, got 1",
    ],
    '[export.contexts]\n"c:d" = { seek-hole = true }': [
        'export.contexts."c:d".seek-hole: expected content = { file = … } beside it, got "pattern"',
    ],
    '[export.contexts]\n"a:b" = { repeat = ["0 data"] }\n"c:d" = { extents = [], repeat = '
    '["1 data"] }\n"e:f" = { policy = { split = 0, one = true } }\n"g:h" = { seek-hole = false }': [
        'export.contexts."a:b".repeat: expected extents to repeat that are longer than 0 bytes in '
        "all",
        'export.contexts."c:d": expected one of extents, repeat, seek-hole, got extents and repeat',
        'export.contexts."e:f".policy: unknown key "one"; known are one-extent, split, overrun, '
        "merge",
        'export.contexts."g:h".seek-hole: expected true, or to be left out, got false',
    ],
    '[handshake]\nstyle = "new"\nno-zeroes = "false"\nstructured-replies = 1\ntls = true': [
        'handshake.style: expected one of "fixed", "newstyle", "oldstyle", got "new"',
        'handshake.no-zeroes: expected true or false, got "false"',
        "handshake.structured-replies: expected true or false, got 1",
        'handshake.tls: expected one of "off", "optional", "required", got true',
    ],
    '[handshake]\nstyle = "newstyle"\ntls = "required"\n[[export]]\n[[export]]': [
        'export: expected each export to have a name of its own, got "" twice',
        'handshake.tls: expected "off" with style = "newstyle", which has no STARTTLS, '
        'got "required"',
    ],
    '[handshake]\nstyle = "oldstyle"\n[[export]]\nname = "a"\n[[export]]\nname = "b"': [
        'export: expected one with style = "oldstyle", which has no names, got 2',
    ],
    '[[fault]]\nnme = "x"\nwhen = { command = "raed", nht = 2 }\ndo = { delay = "2" }\n'
    '[[fault]]\ndo = { eror = "EIO" }\n[[fault]]\nwhen = 3': [
        'fault[0]: unknown key "nme"; did you mean "name"?',
        'fault[0].when.command: unknown name "raed"; did you mean "read"?',
        'fault[0].when: unknown condition "nht"; did you mean "nth"?',
        'fault[0].do.delay: expected a number of seconds from 0, got "2"',
        'fault[1].do: unknown kind "eror"; did you mean "error"?',
        "fault[2].when: expected a table of conditions, got 3",
        "fault[2]: expected a key do, which says what the fault does",
    ],
    '[[fault]]\nname = "a"\ndo = "close"\n[[fault]]\nname = "a"\ndo = "reset"': [
        'fault: expected each fault to have a name of its own, got "a" twice',
    ],
    '[[fault]]\nwhen = { option = "go" }\ndo = { error = "EIO" }': [
        "fault[0]: error changes replies to commands, not to options",
    ],
    '[expect]\noutcome = "passes"\nsession = ""\noperations = ["raed"]\nverdict = "pass"': [
        'expect.outcome: expected one of "succeeds", "fails", "either", got "passes"',
        'expect.session: expected one of "continues", "disconnects", "soft-disconnects", '
        '"reconnects", got ""',
        'expect.operations[0]: expected one of "info", "list", "read", "write", "copy", "map", '
        '"zero", "trim", "flush", "cache", "reconnect", got "raed"',
        'expect: unknown key "verdict"; known are outcome, recovering, session, operations, tls, '
        "may-break",
    ],
    'export = []\nfault = [1]\n[expect]\nmay-break = ["C-88", "S-60"]': [
        "export: expected at least one export, got an empty list",
        "fault[0]: expected a table, got 1",
        "expect.may-break[0]: expected a rule for clients that is a SHOULD, got C-88 (MUST NOT)",
        "expect.may-break[1]: expected a rule for clients that is a SHOULD, "
        "got S-60 (legal unsigned 64)",
    ],
    f"[export]\nsize = {2**64 - 1}\nround-size-to = 512": [
        "export.round-size-to: expected a rounded size of at most 2^64 - 1 bytes, "
        "got 18446744073709551616",
    ],
    f"[export]\nround-size-to = {2**64}": [
        "export.round-size-to: expected a rounded size of at most 2^64 - 1 bytes, "
        "got 18446744073709551616",
    ],
    f'[export]\nname = "{"n" * 4097}"': [
        "export.name: expected at most 4096 bytes of UTF-8, got 4097",
    ],
}


@pytest.mark.parametrize("text", BROKEN)
def test_every_mistake_is_reported(text, tmp_path):
    source = str(tmp_path / "x.toml")
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == "\n".join(f"{source}: {mistake}" for mistake in BROKEN[text])
    assert caught.value.mistakes == tuple(BROKEN[text])


def test_a_file_that_is_no_text(tmp_path):
    source = tmp_path / "binary.toml"
    source.write_bytes(b'summary = "\xff"')
    with pytest.raises(ProfileError) as caught:
        find_all(str(source))
    assert str(caught.value) == f"{source}: is not UTF-8 at byte 11"
