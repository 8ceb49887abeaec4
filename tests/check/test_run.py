"""`run_check` from outside: verdicts, exit statuses, parts, JUnit, known failures, reports."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest

from fakenbd.check import CheckOptions, run_check
from fakenbd.errors import FakenbdError
from tests.program import captured, content

CLIENTS = Path(__file__).parent / "clients"
EIO = """
summary = "Reads fail"
[export]
size = 4096
[[fault]]
name = "EIO"
when = { command = "read" }
do = { error = "EIO" }
[expect]
outcome = "fails"
operations = ["read"]
"""
CORRECT = """
summary = "Nothing is wrong"
[export]
size = 4096
[expect]
operations = ["read"]
"""
ADAPTER = """
summary = "A client of the tests"
[operations.read]
command = ["{python}", "-E", "-S", "{script}", "{{socket}}", "{{output}}", "{{size}}"]
check = "file"
"""


@attrs.frozen
class Place:
    """A folder with profiles, clients, and whatever a run leaves there."""

    folder: Path

    def profile(self, name: str, text: str) -> None:
        path = self.folder / "profiles" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def client(self, name: str) -> str:
        path = self.folder / f"{name}.toml"
        script = CLIENTS / f"{name}.py"
        path.write_text(ADAPTER.format(python=sys.executable, script=script), encoding="utf-8")
        return path.name

    def run(self, **options: Any) -> subprocess.CompletedProcess[str]:
        """`run_check` within this process; what it raises is on standard error, by its name."""
        given: dict[str, Any] = {"profiles": ["profiles"], "seed": 1, **options}
        for name in ("junit", "report", "known_failures"):
            if name in given:
                given[name] = Path(given[name])
        finders = list(sys.meta_path)
        with (
            pytest.MonkeyPatch.context() as patch,
            warnings.catch_warnings(),
            captured(self.folder) as (output, errors),
        ):
            patch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
            warnings.resetwarnings()
            try:
                status = run_check(CheckOptions(**given))
            except FakenbdError as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                status = 1
            finally:
                # The inner pytest leaves the hook with which it rewrites assertions.
                sys.meta_path[:] = finders
            return subprocess.CompletedProcess([], status, content(output), content(errors))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.profile("eio", EIO)
    place.profile("faultless", CORRECT)
    return place


def test_verdicts_as_they_come_and_exit_status_0(place: Place) -> None:
    done = place.run(client=place.client("good"))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "client: good (A client of the tests), seed: 1"
    assert [line for line in lines if line.startswith("good::")] == [
        "good::plain (first) OK",
        "good::eio PASS [ 50%]",
        "good::faultless PASS [100%]",
        "good::plain (last) OK",
    ]


def test_a_failure_reads_from_the_requirement_to_the_command_that_repeats_it(place: Place) -> None:
    done = place.run(client=place.client("lies"), select=["eio"])
    assert done.returncode == 3
    assert (
        "lies fails on a correct server, so the client or the set-up is broken, not the cases: "
        "fail (wrong-data), read: in its output, byte 0 is 0x00, not "
    ) in done.stdout

    done = place.run(client=place.client("raises"))
    assert done.returncode == 1
    text = done.stdout
    parts = [
        "raises::eio FAIL (crash)",
        "requirement   Reads fail",
        "expected      read: it fails and reports it",
        "actual        crash: it ended with a traceback: KeyError: 0 [read]",
        "transcript",
        "⚡ 'EIO' (1st): ",
        "client output",
        "  KeyError: 0",
        "reproduce     fakenbd check profiles/eio.toml --seed 1 --client raises.toml",
        "eio: crash: it ended with a traceback: KeyError: 0 [read]",
        "1 failed, 1 passed",
    ]
    places = [text.find(part) for part in parts]
    assert -1 not in places, [part for part in parts if part not in text]
    assert places == sorted(places)


def test_who_breaks_an_obligation_on_an_correct_server_is_judged_all_the_same(place: Place) -> None:
    done = place.run(client=place.client("breaks_a_must"), select=["faultless"])
    assert done.returncode == 1
    assert "breaks_a_must::plain (first) works, but NBD_CMD_READ of 512 bytes" in done.stdout
    assert "breaks_a_must::faultless FAIL (violation)" in done.stdout


def test_nothing_selected_and_nothing_exercised_are_5(place: Place) -> None:
    client = place.client("good")
    assert place.run(client=client, select=["nowhere/*"]).returncode == 5
    place.profile("rude", EIO.replace('["read"]', "[]"))
    assert place.run(client=client, select=["rude"]).returncode == 5
    place.profile("late", EIO.replace('"read" }', '"read", nth = 9 }'))
    done = place.run(client=client, select=["late"])
    assert done.returncode == 5
    assert "late: fault 'EIO' never fired: the closest was NBD_CMD_READ number 1" in done.stdout


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"client": "nobody"},
            'ProfileError: --client: unknown client "nobody"; known are reference, libnbd, qemu, '
            "nbd-client, fio. A client of your own is a .toml file",
        ),
        (
            {"known_failures": "gone.toml"},
            "ProfileError: gone.toml: cannot be read: No such file or directory",
        ),
    ],
)
def test_what_cannot_be_is_reported(place: Place, options: dict[str, Any], text: str) -> None:
    done = place.run(**options)
    assert (done.stderr, done.stdout) == (text + "\n", "")


def test_a_profile_with_mistakes_is_2(place: Place) -> None:
    place.profile("wrong", "sumary = 7")
    done = place.run(client=place.client("good"))
    assert done.returncode == 2
    assert 'wrong.toml: unknown key "sumary"; did you mean "summary"?' in done.stdout


def test_a_program_that_is_missing_is_one_sentence(place: Place) -> None:
    (place.folder / "gone.toml").write_text('[operations.read]\ncommand = ["gone-for-good"]\n')
    done = place.run(client="gone.toml")
    assert done.returncode == 3
    assert "read: gone-for-good is not installed" in done.stdout


def test_junit_parses_whatever_a_client_prints(place: Place) -> None:
    place.profile("must", EIO.replace('"fails"', '"succeeds"'))
    done = place.run(client=place.client("noisy"), junit="junit.xml")
    assert done.returncode == 1, done.stdout
    assert "\0" not in done.stdout
    assert "\x1b" not in done.stdout
    suite = ElementTree.parse(place.folder / "junit.xml").getroot()
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert set(cases) == {"eio", "faultless", "must"}
    assert {case.get("classname") for case in cases.values()} == {"noisy"}
    failures = {name: case.find("failure") for name, case in cases.items()}
    assert failures["eio"] is failures["faultless"] is None
    assert failures["must"] is not None
    assert "requirement   Reads fail" in (failures["must"].text or "")


def test_parts_add_up_to_the_whole(place: Place) -> None:
    for number in range(3):
        place.profile(f"case-{number}", CORRECT)
    client = place.client("good")

    def cases(**options: Any) -> list[str]:
        done = place.run(client=client, report="report", **options)
        assert done.returncode == 0, done.stdout
        return ids(place.folder / "report")

    parts = [cases(shard=f"{part}/3") for part in (1, 2, 3)]
    assert sorted(case for part in parts for case in part) == cases()
    assert {len(part) for part in parts} == {1, 2}
    assert cases(jobs="2") == cases()
    some = {"skip": ["case-1"], "select": ["case-*"], "seed": None}
    assert cases(jobs="2", **some) == ["case-0", "case-2"]
    report = json.loads((place.folder / "report" / "report.json").read_text())
    assert len({case["seed"] for case in report["cases"]}) == 1


def ids(folder: Path) -> list[str]:
    report = json.loads((folder / "report.json").read_text())
    assert (report["format"], report["version"]) == ("fakenbd-report", 1)
    return [case["id"] for case in report["cases"]]


def test_known_failures_are_expected_until_they_pass(place: Place) -> None:
    client = place.client("raises")
    known = place.folder / "known.toml"
    known.write_text('[[known]]\ncase = "eio"\ncause = "crash"\nreason = "reported upstream"\n')
    done = place.run(client=client, known_failures="known.toml")
    assert done.returncode == 0, done.stdout
    assert "eio: crash: reported upstream (it ended with a traceback: KeyError: 0)" in done.stdout

    known.write_text('[[known]]\ncase = "*"\nreason = "reported upstream"\n')
    done = place.run(client=client, known_failures="known.toml")
    assert done.returncode == 1
    assert "raises::faultless XPASS" in done.stdout

    known.write_text(
        '[[known]]\ncase = "eio"\nreason = "r"\n[[known]]\ncase = "gone"\nreason = "old"\n'
    )
    done = place.run(client=client, known_failures="known.toml")
    assert done.returncode == 1
    assert 'the known failure "gone" matches no case (old)' in done.stdout


def test_one_command_is_enough(place: Place) -> None:
    script = str(CLIENTS / "good.py")
    command = [sys.executable, "-E", "-S", script, "{uri}", "{output}"]
    done = place.run(command=command, select=["faultless"])
    assert done.returncode == 3  # it wants a path, and gets a URI: broken, not judged
    assert "fails on a correct server" in done.stdout


def test_last_failed_and_exit_first_are_pytests_own(place: Place) -> None:
    client = place.client("raises")
    place.profile("also", EIO)
    done = place.run(client=client, exit_first=True)
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "passed" not in done.stdout
    done = place.run(client=client)
    assert "2 failed, 1 passed" in done.stdout
    done = place.run(client=client, last_failed=True)
    assert "2 failed, 1 deselected" in done.stdout
