"""What a run of cases can be told, once for `fakenbd check` and once for pytest.

It is imported whenever pytest starts with fakenbd installed, so it imports next to nothing.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["DEFAULT_TIMEOUT", "add_options", "shard"]

DEFAULT_TIMEOUT: Final = 10.0
DEFAULT_MEMORY: Final = 1024


def shard(text: str) -> tuple[int, int]:
    """The part and the number of parts that "2/5" stands for. Raises ValueError."""
    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise ValueError(f'expected a part such as "2/5", got "{text}"')


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "--fakenbd-client": {
        "metavar": "CLIENT",
        "help": "run the profiles against this client: reference, libnbd, qemu, nbd-client, fio, "
        "or a .toml file that describes one",
    },
    "--fakenbd-command": {
        "metavar": "JSON",
        "help": "run the profiles against this command, a JSON list of words",
    },
    "--fakenbd-select": {
        "metavar": "PATTERN",
        "action": "append",
        "default": [],
        "help": "run only the cases whose id matches (may be repeated)",
    },
    "--fakenbd-skip": {
        "metavar": "PATTERN",
        "action": "append",
        "default": [],
        "help": "leave out the cases whose id matches (may be repeated)",
    },
    "--fakenbd-shard": {"metavar": "I/N", "help": "run only the I-th of N parts of the cases"},
    "--fakenbd-timeout": {
        "metavar": "SECONDS",
        "type": float,
        "default": DEFAULT_TIMEOUT,
        "help": f"a client that runs longer hangs (default: {DEFAULT_TIMEOUT:g})",
    },
    "--fakenbd-memory": {
        "metavar": "MIB",
        "type": int,
        "default": DEFAULT_MEMORY,
        "help": f"a client that uses more is bloated (default: {DEFAULT_MEMORY})",
    },
    "--fakenbd-seed": {"metavar": "N", "type": int, "help": "the seed of everything random"},
    "--fakenbd-known": {
        "metavar": "FILE",
        "help": "known failures, a .toml file with a reason for each",
    },
    "--fakenbd-report": {
        "metavar": "DIR",
        "help": "write report.json and index.html into this folder",
    },
}


def add_options(parser: Any) -> None:
    """Add all of them to pytest's parser, unless they are there already."""
    group = parser.getgroup("fakenbd", "run NBD profiles against a client")
    there = {name for option in group.options for name in option.names()}
    for name, given in _OPTIONS.items():
        if name not in there:
            group.addoption(name, **given)
