"""Profiles from Python, and what they are worth as values."""

from __future__ import annotations

import attrs
import pytest

import fakenbd.profile as room
from fakenbd.errors import ProfileError, ServeError
from fakenbd.export import BlockSize, Pattern, RandomBytes
from fakenbd.faults import Fault, When, make_kind, parse_fault
from fakenbd.profile import Expect, ExportSpec, Handshake, Profile, find
from fakenbd.protocol.messages import Extent


def test_the_room_keeps_what_it_promises():
    assert all(hasattr(room, name) for name in room.__all__)


def test_by_default_it_is_an_correct_server():
    profile = Profile.of()
    (export,) = profile.open_exports()
    assert (export.name, export.size, export.block_size) == ("", 1 << 20, BlockSize())
    assert profile.handshake == Handshake()
    assert profile.expect == Expect("succeeds", None, ("info", "read"))
    assert profile.faults == ()


OPTIONS = [
    ({"size": "64KiB"}, {"size": 65536}),
    ({"size": 1000, "round_size_to": 512}, {"size": 1024}),
    ({"name": "disk", "description": "d"}, {"name": "disk", "description": "d"}),
    ({"canonical_name": "c", "tls_only": True}, {"canonical_name": "c", "tls_only": True}),
    ({"any_alignment": True}, {"any_alignment": True}),
    ({"content": b"hello"}, {"size": 5}),
    ({"content": {"hex": "00ff"}}, {"size": 2}),
    ({"flags": 0}, {"flags": 0}),
    ({"flags": ["read-only", 0x8000]}, {"flags": 0x8003}),
    ({"block_size": False}, {"block_size": None}),
    ({"block_size": BlockSize(512, 512, 512)}, {"block_size": BlockSize(512, 512, 512)}),
    ({"block_size": {"minimum": 512}}, {"block_size": BlockSize(512, 4096, 1 << 25)}),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_options_of_an_export(options, expected):
    (export,) = Profile.of(**options).open_exports()
    assert {name: getattr(export, name) for name in expected} == expected


CONTENTS = [
    (b"hello", b"hello"),
    (bytearray(b"hello"), b"hello"),
    (lambda offset, length: bytes(range(offset, offset + length)), bytes(range(5))),
    ("pattern", bytes(Pattern().read(0, 5))),
    (RandomBytes(3), bytes(RandomBytes(3).read(0, 5))),
    ("zeros", bytes(5)),
]


@pytest.mark.parametrize(("content", "expected"), CONTENTS)
def test_contents(content, expected):
    (export,) = Profile.of(size=5, content=content).open_exports()
    assert bytes(export.read(0, 5)) == expected


def test_a_context_may_be_a_function():
    profile = Profile.of(contexts={"x:y": lambda context, offset, length, flags: [(length, 7)]})
    (export,) = profile.open_exports()
    assert export.block_status("x:y", 0, 9, 0) == [Extent(9, 7)]


def test_each_server_gets_exports_of_its_own():
    profile = Profile.of(size=4096)
    first, second = profile.open_exports()[0], profile.open_exports()[0]
    first.write(0, b"x" * 4096)
    assert bytes(second.read(0, 4096)) == bytes(Pattern().read(0, 4096))


def test_the_rest_of_a_profile():
    fault = Fault("f", When(command="read"), make_kind("error", "EIO"))
    profile = Profile.of(
        id="mine",
        summary="s",
        rules=["S-130"],
        handshake=Handshake(tls="required"),
        faults=[fault],
        expect=Expect("fails"),
        exports=[{"name": "a"}, {"name": "b", "size": 1}],
    )
    assert profile == Profile(
        "mine",
        summary="s",
        rules=("S-130",),
        handshake=Handshake(tls="required"),
        faults=(fault,),
        expect=Expect("fails"),
        exports=(ExportSpec("a"), ExportSpec("b", size=1)),
    )


@pytest.mark.parametrize(
    ("spoken", "expected", "policy"),
    [
        ("off", None, "off"),
        ("optional", None, "allow"),
        ("required", None, "require"),
        ("required", "off", "off"),
        ("off", "require", "require"),
    ],
)
def test_the_tls_policy_of_a_client(spoken, expected, policy):
    profile = Profile.of(handshake=Handshake(tls=spoken), expect=Expect(tls=expected))
    assert profile.tls_policy == policy


def test_every_mistake_is_reported():
    with pytest.raises(ProfileError) as caught:
        Profile.of(siz=1, size=True, block_size={"minimum": "x"})
    assert str(caught.value) == (
        'profile python: unknown key "siz"; did you mean "size"?\n'
        'profile python: size: expected a size such as 512 or "64KiB", got true\n'
        'profile python: block-size.minimum: expected a size such as 512 or "64KiB", got "x"'
    )
    with pytest.raises(ProfileError) as caught:
        Profile.of(id="two", exports=[{"size": 1}, {"size": "x"}], name="n")
    assert caught.value.mistakes == (
        'exports[1].size: expected a size such as 512 or "64KiB", got "x"',
        "expected either exports, or the options of one, got both",
    )


def test_a_file_that_is_gone_is_found_when_the_server_starts(tmp_path):
    profile = Profile.of(content={"file": tmp_path / "gone"})
    with pytest.raises(ServeError) as caught:
        profile.open_exports()
    assert str(caught.value) == f"cannot open {tmp_path / 'gone'}: No such file or directory"


@pytest.mark.parametrize(
    ("rules", "breaks"),
    [
        ((), None),
        (("S-209",), False),
        (("S-130",), True),
        (("S-209", "S-130"), True),
        (("C-89", "Q-35"), False),
    ],
)
def test_whether_it_breaks_a_must(rules, breaks):
    assert attrs.evolve(Profile.of(), rules=rules).breaks_must is breaks


PICKED: dict[str, bool] = {
    "": True,
    "[handshake]": True,
    "[handshake]\nno-zeroes = false": False,
    '[handshake]\ntls = "required"': False,
    '[[export]]\nname = "a"\n[[export]]\nname = "b"': False,
    'command = "read"': True,
    'command = "any"': True,
    "offset = 512": True,
    'command = "read", nth = 2, per = "connection"': True,
    'command = "read", connection = 1': False,
    'option = "go"': True,
    'option = ["info", "go", "export-name", "set-meta-context", "list-meta-context"]': True,
    'option = ["info", "list"]': False,
    'option = "starttls"': False,
    'option = "structured-reply"': False,
    'option = "any"': False,
    "connect = true": False,
    "greeting = true": False,
    "chance = 0.5": False,
}


@pytest.mark.parametrize("given", PICKED)
def test_picked_by_the_name_of_its_export(given, tmp_path):
    plain = not given or given.startswith("[")
    source = tmp_path / "x.toml"
    source.write_text(
        given if plain else f"[[fault]]\nwhen = {{ {given} }}\ndo = {{ delay = 1 }}\n"
    )
    assert find(str(source)).picked_by_name is PICKED[given]


def test_one_fault_is_enough_to_be_served_alone():
    late = parse_fault({"when": {"command": "read"}, "do": {"error": "EIO"}})
    early = parse_fault({"when": {"greeting": True}, "do": "close"})
    assert not Profile.of(faults=[late, early]).picked_by_name
