"""What markers and the ini file change, and the reports of mistakes in them."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Run, plain

# Tests that pass, with findings on their servers.
_TESTS = {
    "never_fired": "nbd_server.on('read').error('EIO')",
    "broke_must": "chat(nbd_server, flags=7)",
    "broke_should": "chat(nbd_server, tail=b'bye')",
    "server_failed": "nbd_server.on('greeting').call(lambda *_: [None]); chat(nbd_server)",
}
_SWITCHES = "unfired", "violations", "errors"
_SOURCE = "".join(
    f"\n{{marker}}\ndef test_{name}(nbd_server):\n    {body}\n" for name, body in _TESTS.items()
)
_OUTCOMES = [
    (
        "error",
        {
            "never_fired": "ERROR",
            "broke_must": "ERROR",
            "broke_should": "warning",
            "server_failed": "ERROR",
        },
    ),
    ("warn", dict.fromkeys(_TESTS, "warning")),
    ("ignore", {}),
]


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """The outcome of those tests that have findings."""
    result.assert_outcomes(
        passed=len(_TESTS),
        errors=sum(line.startswith("ERROR test_it") for line in result.outlines),
        warnings=sum(line.startswith("test_it.py::") for line in result.outlines),
    )
    values = {}
    for line in result.outlines:
        word, _, name = line.partition("test_it.py::test_")
        if name:
            values[name.split()[0]] = word.strip() or "warning"
    return values


@pytest.mark.parametrize(("word", "expected"), _OUTCOMES)
def test_ini_decides(run: Run, word: str, expected: dict[str, str]) -> None:
    switches = [f"-ofakenbd_{switch}={word}" for switch in _SWITCHES]
    assert outcomes(run(_SOURCE.format(marker=""), *switches)) == expected


@pytest.mark.parametrize(("word", "expected"), _OUTCOMES)
def test_marker_overrules_ini(run: Run, word: str, expected: dict[str, str]) -> None:
    other = "ignore" if word == "error" else "error"
    switches = [f"-ofakenbd_{switch}={other}" for switch in _SWITCHES]
    words = ", ".join(f"{switch}={word!r}" for switch in _SWITCHES)
    source = _SOURCE.format(marker=f"@pytest.mark.fakenbd({words})")
    assert outcomes(run(source, *switches)) == expected


def test_warnings_are_the_users_to_filter(run: Run) -> None:
    source = _SOURCE.format(marker="@pytest.mark.fakenbd(unfired='warn', errors='warn')")
    filters = "-Werror", "-Wignore::fakenbd.pytest_plugin.NBDViolationWarning"
    expected = {"never_fired": "ERROR", "broke_must": "ERROR", "server_failed": "ERROR"}
    assert outcomes(run(source, *filters)) == expected


_WHAT_IS_SERVED = """
import fakenbd

pytestmark = pytest.mark.fakenbd(size=1024, seed=3, flags=["flush"])

def test_module(nbd_server):
    assert (nbd_server.export.size, nbd_server.export.flags, nbd_server.seed) == (1024, 5, 3)

@pytest.mark.fakenbd(size="2KiB")
def test_closer_one_says_all_of_it(nbd_server):
    assert (nbd_server.export.size, nbd_server.export.flags, nbd_server.seed) == (2048, 3565, 3)

@pytest.mark.fakenbd(seed=4)
def test_or_nothing_of_it(nbd_server):
    assert (nbd_server.export.size, nbd_server.export.flags, nbd_server.seed) == (1024, 5, 4)

@pytest.mark.fakenbd("quirks/qemu-odd-tail")
def test_profile(nbd_server):
    assert nbd_server.profile.id == "quirks/qemu-odd-tail"

@pytest.mark.fakenbd(profile=fakenbd.Profile.of(size=7))
def test_profile_of_python(nbd_server):
    assert nbd_server.export.size == 7

@pytest.mark.fakenbd(unix="-")
def test_place(nbd_server):
    assert nbd_server.uri.startswith("nbd+unix://")

def test_several(nbd_server, make_nbd_server):
    servers = [nbd_server, make_nbd_server(), make_nbd_server(size=5, seed=6)]
    assert [server.export.size for server in servers] == [1024, 1024, 5]
    assert [server.seed for server in servers] == [3, 3, 6]
    assert len({server.port for server in servers}) == 3
"""


def test_what_is_served(run: Run) -> None:
    run(_WHAT_IS_SERVED).assert_outcomes(passed=7)


@pytest.mark.parametrize(
    "settings", [("-ofakenbd_seed=12",), ("--fakenbd-seed=12", "-ofakenbd_seed=13")]
)
def test_seed_of_the_whole_run(run: Run, settings: tuple[str, ...]) -> None:
    source = "\ndef test_it(nbd_server):\n    assert nbd_server.seed == 12\n"
    run(source, *settings).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (
            "sise=1, unfired='no', seed=-1",
            """\
@pytest.mark.fakenbd: unknown option "sise"; did you mean "size"?
@pytest.mark.fakenbd: unfired: expected one of "error", "warn", "ignore", got "no"
@pytest.mark.fakenbd: seed: expected a whole number from 0, got -1""",
        ),
        (
            "sighs=1",
            '@pytest.mark.fakenbd: unknown option "sighs"; known are profile, unfired, violations, '
            "errors, seed, tcp, unix, journal, exports, handshake, faults, name, size, content, "
            "round_size_to, block_size, flags, description, canonical_name, contexts, "
            "any_alignment, tls_only",
        ),
        (
            "size='1 MB', flags=['fush']",
            """\
@pytest.mark.fakenbd: size: expected a size such as 512 or "64KiB", got "1 MB"
@pytest.mark.fakenbd: flags[0]: unknown flag "fush"; did you mean "flush\"?""",
        ),
        (
            "'nowhere'",
            "@pytest.mark.fakenbd: nowhere: no such profile; "
            "`fakenbd profiles list` shows them all",
        ),
        ("'a', 'b'", "@pytest.mark.fakenbd: expected one profile, and all else by name"),
        (
            "'a', profile='b'",
            "@pytest.mark.fakenbd: expected one profile, and all else by name",
        ),
        (
            "profile='baseline/plain', size=5",
            "@pytest.mark.fakenbd: expected a profile or the options of one, got also size",
        ),
        (
            "profile=7",
            "@pytest.mark.fakenbd: profile: expected an id, a path or a Profile, got 7",
        ),
        (
            "tcp='localhost:99999'",
            "cannot listen on localhost:99999: a port is a number from 0 to 65535",
        ),
        (
            "content={'file': 'gone.img'}",
            "cannot open gone.img: No such file or directory",
        ),
    ],
)
def test_mistake_in_a_marker(run: Run, arguments: str, sentences: str) -> None:
    source = f"\n@pytest.mark.fakenbd({arguments})\ndef test_it(nbd_server):\n    pass\n"
    text = plain(run(source))
    start = "ERROR at setup of test_it ___________________________\n"
    end = "\n=========================== short test summary"
    assert text.partition(start)[2].partition(end)[0] == sentences


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "fakenbd_unfired=no",
            'ERROR: fakenbd_unfired: expected "error", "warn" or "ignore", got "no"',
        ),
        (
            "fakenbd_violations=",
            'ERROR: fakenbd_violations: expected "error", "warn" or "ignore", got ""',
        ),
        ("fakenbd_seed=-1", 'ERROR: fakenbd_seed: expected a whole number from 0, got "-1"'),
    ],
)
def test_mistake_in_the_ini_file(run: Run, setting: str, sentence: str) -> None:
    result = run("", "-o", setting)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().rstrip() == sentence
