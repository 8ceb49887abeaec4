"""What users import: it is there, it is listed, it costs nothing until it is used."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, metadata, version
from pathlib import Path

import pytest

import fakenbd
from fakenbd.profile import library_folder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fakenbd.__path__, "fakenbd.")
    if not any(part.startswith("_") for part in module.name.split("."))
)
HEAVY = (
    *("cyclopts", "rich", "jinja2", "pytest", "_pytest"),
    *("ssl", "trustme", "cryptography", "socket", "trio", "attrs"),
)


def kind(name: str) -> tuple[int, str]:
    """As ruff sorts them: CONSTANTS, Types, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def loaded(code: str) -> set[str]:
    """The modules, and the packages they are in, that a fresh interpreter has after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    names = done.stdout.split()
    return {*names, *(name.partition(".")[0] for name in names)}


@pytest.mark.parametrize("name", ["fakenbd", *MODULES])
def test_all_is_there_and_sorted(name: str) -> None:
    module = importlib.import_module(name)
    listed = list(module.__all__)
    assert [each for each in listed if not hasattr(module, each)] == []
    assert listed == sorted(set(listed), key=kind)


def test_dir_shows_what_is_imported_later() -> None:
    assert set(fakenbd.__all__) <= set(dir(fakenbd))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"^module 'fakenbd' has no attribute 'nothing'$"):
        fakenbd.nothing  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    assert loaded("import fakenbd") & set(HEAVY) == set()


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import fakenbd.pytest_plugin", ("cyclopts", "jinja2", "ssl", "trustme", "cryptography")),
        ("import fakenbd; fakenbd.Profile", ("cyclopts", "rich", "jinja2", "ssl", "trio")),
        ("import fakenbd; fakenbd.Client", ("cyclopts", "rich", "jinja2", "trustme", "pytest")),
        ("import fakenbd; fakenbd.open_server", ("cyclopts", "rich", "jinja2", "trustme")),
        # What reads profiles is not needed to serve a value.
        (
            "import fakenbd; fakenbd.open_server",
            ("fakenbd.profile.loader", "fakenbd.faults.kinds", "tomllib"),
        ),
        ("import fakenbd.cli.serve", ("rich", "jinja2", "trustme", "cryptography", "pytest")),
    ],
)
def test_what_each_door_leaves_outside(code: str, absent: tuple[str, ...]) -> None:
    assert loaded(code) & set(absent) == set()


def test_one_version() -> None:
    assert fakenbd.__version__ == PROJECT["project"]["version"] == version("fakenbd")


def test_what_is_imported_is_required() -> None:
    imported = set()
    for path in (ROOT / "fakenbd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    required = {
        text.replace("<", ">").partition(">")[0] for text in PROJECT["project"]["dependencies"]
    }
    assert imported - set(sys.stdlib_module_names) - {"fakenbd"} <= required


def test_the_wheel_has_the_library_where_it_is_looked_for() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"profiles": "fakenbd/_profiles"}
    assert library_folder() in (ROOT / "profiles", Path(fakenbd.__path__[0]) / "_profiles")
    assert (library_folder() / "quirks" / "qemu-odd-tail.toml").is_file()


def test_it_is_a_command_and_a_plugin_of_pytest() -> None:
    found = {(each.group, each.value) for each in entry_points(name="fakenbd")}
    assert {("console_scripts", "fakenbd.cli:main"), ("pytest11", "fakenbd.pytest_plugin")} <= found
    assert metadata("fakenbd")["Requires-Python"] == ">=3.11"
