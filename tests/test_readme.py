"""What the README says is so: its commands, profiles, kinds, snippets and the example suite."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from fakenbd.check.adapters import bundled
from fakenbd.check.known_failures import read_known_failures
from fakenbd.check.placeholders import PLACEHOLDERS
from fakenbd.check.verdicts import Cause, VerdictName
from fakenbd.cli import app
from fakenbd.faults import KINDS
from fakenbd.profile import find, find_all

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for word, text in BLOCKS if word == language]


def commands() -> list[str]:
    """What follows `fakenbd` wherever it is called."""
    lines = [
        line for word in ("console", "sh") for text in blocks(word) for line in text.split("\n")
    ]
    shell = [line.removeprefix("$ ") for line in lines if not line.startswith(("#", "{"))]
    spans = re.findall(r"`(fakenbd [^`]+)`", README)
    return [call for line in shell + spans for call in re.findall(r"(?:\bfakenbd )(.*)", line)]


def test_the_client_and_the_known_failures_can_be_read(tmp_path: Path) -> None:
    named = dict(re.findall(r"<!-- (client|known) -->\n```toml\n(.*?)```\n", README, re.DOTALL))
    for name, text in named.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    assert bundled(str(tmp_path / "client.toml")).command_for("read").check == "file"
    (known,) = read_known_failures(tmp_path / "known.toml")
    assert known.cause == "hang"


def test_every_verdict_and_every_cause_is_reported() -> None:
    table = README.partition("| verdict | |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`([a-z-]+)`", table))
    assert listed == {*get_args(VerdictName), *get_args(Cause)}


def test_every_placeholder_is_listed() -> None:
    table = README.partition("| placeholder | |")[2].partition("\n\n")[0]
    assert re.findall(r"`\{([a-z0-9-]+)\}`", table) == list(PLACEHOLDERS)


def test_example_suite_is_the_file() -> None:
    named = re.findall(r"<!-- (\S+) -->\n```python\n(.*?)```\n", README, re.DOTALL)
    assert [path for path, _ in named] == ["tests/examples/test_nbdcopy.py"]
    for path, text in named:
        assert text == (ROOT / path).read_text(encoding="utf-8")


def test_there_are_two_commands_to_set_up() -> None:
    assert [re.sub(r"venv .venv && .*", "…", text) for text in blocks("sh")] == [
        "python3.11 -m …\n",
        "python3.11 -m …\n",
    ]


@pytest.mark.parametrize("verb", sorted({call.split()[0] for call in commands()}))
def test_verb_exists(verb: str) -> None:
    assert verb in list(app)


def test_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for call in commands():
        ours = call.partition(" -- ")[0]
        for option in re.findall(r"--[a-z]+(?:-[a-z]+)*", ours):
            app([*ours.split()[:1], "--help"], result_action="return_value")
            assert option in capsys.readouterr().out, call


def test_profiles_exist() -> None:
    folders = "|".join(path.name for path in (ROOT / "profiles").iterdir() if path.is_dir())
    named = set(re.findall(rf"\b(?:{folders})/[a-z][a-z0-9-]*(?![\w./-])", README))
    assert "quirks/qemu-odd-tail" in named
    for name in named:
        assert find_all(name)


def test_profile_is_valid(tmp_path: Path) -> None:
    (text,) = (text for text in blocks("toml") if "[expect]" in text)
    path = tmp_path / "second-read-fails.toml"
    path.write_text(text, encoding="utf-8")
    assert find(str(path)).summary == "The second read fails"


def test_table_of_kinds_is_complete() -> None:
    rows = {
        family: re.findall(r"`([a-z-]+)`", words)
        for family, words in re.findall(
            r"^\| (\w+) \| (`[a-z-]+`(?:, `[a-z-]+`)*) \|$", README, re.M
        )
    }
    families: dict[str, list[str]] = {}
    for slug, kind in KINDS.items():
        families.setdefault(kind.family, []).append(slug)
    assert rows == families


@pytest.mark.parametrize("text", blocks("python"))
def test_python_is_python(text: str) -> None:
    compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_settings_of_the_plugin(pytestconfig: pytest.Config) -> None:
    names = set(re.findall(r"`(fakenbd_\w+)`", README))
    assert names == {"fakenbd_unfired", "fakenbd_violations", "fakenbd_errors", "fakenbd_seed"}
    for name in names:
        pytestconfig.getini(name)
    for option in re.findall(r"--(fakenbd-\w+)", README):
        pytestconfig.getoption(option.replace("-", "_"))
