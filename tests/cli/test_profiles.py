"""The library as a user looks at it: its profiles, their mistakes, the kinds of faults."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import fill

import pytest

from fakenbd.cli import main
from fakenbd.profile import library_folder
from fakenbd.protocol.rules import rule
from tests.profile.test_loader import BROKEN
from tests.program import FAKENBD, fakenbd, process

SNIPPET = Path(__file__).parents[1] / "profile" / "python_profile.py"


def test_there_are_more_than_twenty_broken_files() -> None:
    assert len(BROKEN) > 20


@pytest.mark.parametrize("text", BROKEN)
def test_every_mistake_of_a_file_is_printed(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "x.toml"
    source.write_text(text, encoding="utf-8")
    assert main(["profiles", "validate", str(source)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "0 of 1 valid\n"
    assert printed.err == "".join(f"{source}: {mistake}\n" for mistake in BROKEN[text])


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small library, one folder of which is broken."""
    for name, text in {
        "errors/bad.toml": "summary = 1",
        "errors/worse.toml": "[sweep",
        "reads/cut.toml": 'summary = "Cut after {n}"\n[sweep]\nn = [1, 12]',
        "reads/plain.toml": 'summary = "Nothing is wrong"\nrules = ["Q-46"]',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("fakenbd.profile.lookup.library_folder", lambda: tmp_path)
    return tmp_path


def test_a_broken_profile_does_not_hide_the_others(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profiles", "list"]) == 1
    printed = capsys.readouterr()
    assert printed.out == (
        "reads/cut@1   Cut after 1\nreads/cut@12  Cut after 12\nreads/plain   Nothing is wrong\n"
    )
    bad, worse = printed.err.splitlines()
    assert bad == f"fakenbd: {shelf / 'errors/bad.toml'}: summary: expected a text, got 1"
    assert worse.startswith(f"fakenbd: {shelf / 'errors/worse.toml'}: is not TOML: ")


def test_a_folder_is_listed_whatever_another_one_holds(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profiles", "list", "reads/p*"]) == 0
    assert capsys.readouterr() == ("reads/plain  Nothing is wrong\n", "")


# --- one of them ----------------------------------------------------------------------------------

PLAIN = '''\
summary = "Nothing is wrong"
about = """
A server of {n} exports that keeps the rules and says so in more than eighty columns.

    as   it   stands
"""
rules = ["Q-46", "S-209"]

[export]
size = 512 # a sector
'''
PLAIN_PAGE = """\
reads/plain
Nothing is wrong

A server of {n} exports that keeps the rules and says so in more than eighty
columns.

    as   it   stands

Q-46  {basis}
  {unusual}
S-209  SHOULD  NBD_CMD_BLOCK_STATUS
  lengths not multiples of 512 or the advertised minimum

rules = ["Q-46", "S-209"]

[export]
size = 512 # a sector
"""
FAMILY = """\
summary = "Cut after {n}"

[sweep]
n = [1, 12]

[export]
size = "$n"
"""
FAMILY_PAGE = """\
reads/cut
Cut after {n}

[sweep]
n = [1, 12]

[export]
size = "$n"

reads/cut@1   Cut after 1
reads/cut@12  Cut after 12
"""
MEMBER_PAGE = """\
reads/cut@12
Cut after 12

[export]
size = 12
"""
PYTHON = """\
from fakenbd.profile import Profile

profile = Profile.of(summary="Mine", size=1)
"""

PAGES = {
    "reads/plain": PLAIN_PAGE,
    "reads/cut": FAMILY_PAGE,
    "reads/cut@12": MEMBER_PAGE,
    "mine.py": f"mine\nMine\n\n{PYTHON}",
}


@pytest.fixture
def pages(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf / "reads/plain.toml").write_text(PLAIN)
    (shelf / "reads/cut.toml").write_text(FAMILY)
    (shelf / "mine.py").write_text(PYTHON)
    monkeypatch.chdir(shelf)
    monkeypatch.setenv("COLUMNS", "80")


def expected(name: str) -> str:
    row = rule("Q-46")
    unusual = fill(row.text, 78).replace("\n", "\n  ")
    return PAGES[name].replace("{basis}", row.basis).replace("{unusual}", unusual)


@pytest.mark.parametrize("name", PAGES)
def test_a_profile_is_shown(name: str, pages: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", name]) == 0
    assert capsys.readouterr() == (expected(name), "")


@pytest.mark.parametrize("name", PAGES)
def test_a_terminal_shows_the_source_in_colours(
    name: str, pages: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["profiles", "show", name]) == 0
    coloured = capsys.readouterr().out
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == expected(name)


def test_a_profile_with_a_mistake_is_not_shown(
    pages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profiles", "show", "errors/bad"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("errors/bad.toml: summary: expected a text, got 1\n")


# --- kinds ---------------------------------------------------------------------------------------


def test_kinds_are_listed() -> None:
    done = process("faults")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == ("error                Fail a command without performing it.")
    assert "no-greeting          Accept the connection and never greet." in lines


def test_a_kind_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faults", "no-greeting", "stall"]) == 0
    assert capsys.readouterr().out == (
        "no-greeting (connection) fires at connects and greetings\n"
        "\n"
        "Accept the connection and never greet.\n"
        "\n"
        "  do = { no-greeting = true }\n"
        "\n"
        "\n"
        "stall (time) fires at connects, greetings, options and commands\n"
        "\n"
        "Never go on with the answer. In mid-message that silences the whole connection.\n"
        "\n"
        '  do = { stall = 8, at = "last" }\n'
        "\n"
        "  stall  bytes that leave before; a negative number counts from the end (default 0)\n"
        "  at     count within these messages instead of the whole answer (default nothing)\n"
    )


def test_a_kind_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faults", "stal"]) == 2
    assert capsys.readouterr() == ("", 'fakenbd: unknown kind "stal"; did you mean "stall"?\n')


# --- a profile in Python -------------------------------------------------------------------------


def test_the_snippet_of_the_readme_is_the_file() -> None:
    readme = (library_folder() / "README.md").read_text(encoding="utf-8")
    snippet = readme.partition("<!-- tests/profile/python_profile.py -->\n```python\n")[2]
    assert snippet.partition("```\n")[0] == SNIPPET.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("verb", "status", "printed", "error"),
    [
        ("copy", 1, "", "fakenbd: the server answered NBD_CMD_READ of 1024+512 with NBD_EIO\n"),
        (
            "map",
            0,
            "              0             512    0  data\n"
            "            512             512    2  zero\n",
            "fakenbd: fault 'bad stripe' never fired: the closest was "
            'NBD_CMD_BLOCK_STATUS number 1 on connection 1 (wanted command = "read")\n',
        ),
    ],
)
def test_a_profile_in_python_is_run(
    verb: str, status: int, printed: str, error: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SNIPPET.read_text(encoding="utf-8"), encoding="utf-8")
    client = [*FAKENBD, verb, "{uri}", *(["copied"] if verb == "copy" else [])]
    done = fakenbd("run", "./mine.py", "--", *client, cwd=tmp_path)
    assert done.stdout[: len(printed)] == printed
    assert (done.returncode, done.stderr) == (status, error)
