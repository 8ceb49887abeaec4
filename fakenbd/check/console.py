"""A case as text for a terminal: the word for its verdict, and the paragraphs of a failure.

requirement  the text of the rules
expected     what a correct client does
actual       what this client did
transcript   the messages before and after the firing
reproduce    the command that repeats the case
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fakenbd.protocol.text import escaped

__all__ = ["failure", "headline", "status"]

_WIDTH: Final = 100
_LABEL: Final = 14
_OUTPUT_LIMIT: Final = 12

_STATUS: Final[dict[str, tuple[str, str, str]]] = {
    "pass": ("passed", ".", "PASS"),
    "warn": ("warn", "w", "WARN"),
    "fail": ("failed", "F", "FAIL"),
    "not-exercised": ("not-exercised", "n", "NOT-EXERCISED"),
    "xfail": ("xfailed", "x", "XFAIL"),
    "xpass": ("failed", "X", "XPASS"),
    "error": ("error", "E", "ERROR"),
}
_COLOURS: Final = {"passed": "green", "failed": "red", "error": "red"}


def status(case: Mapping[str, Any]) -> tuple[str, str, tuple[str, dict[str, bool]]]:
    """Category, letter and word for a verdict, as pytest's hook returns them."""
    category, letter, name = _STATUS[case["verdict"]]
    if case["cause"] and case["verdict"] == "fail":
        name = f"{name} ({case['cause']})"
    return category, letter, (name, {_COLOURS.get(category, "yellow"): True})


def headline(case: Mapping[str, Any]) -> str:
    """The case and its verdict, in one line."""
    return escaped(f"{case['id']}: {_actual(case)}", limit=1000)


def failure(case: Mapping[str, Any]) -> str:
    """Why a case failed, and how to repeat it."""
    return "\n".join(_lines(case))


def _lines(case: Mapping[str, Any]) -> Iterator[str]:
    for rule in case["rules"]:
        level = f" ({rule['level']})" if rule["level"] else ""
        yield from _paragraph("requirement", f"{rule['id']}{level}: {rule['text']}")
    if not case["rules"]:
        yield from _paragraph("requirement", case["summary"])
    yield from _paragraph("expected", case["expected"])
    yield from _paragraph("actual", _actual(case))
    for finding in case["also"]:
        rule = f" ({finding['rule']})" if finding["rule"] else ""
        yield from _paragraph("also", f"{finding['cause']}: {finding['reason']}{rule}")
    operation = _decisive(case)
    if operation is not None:
        if operation["command"]:
            yield from _paragraph("command", operation["command"])
        yield from _block("transcript", operation["transcript"].splitlines())
        output = (operation["errors"] or operation["output"]).splitlines()
        yield from _block("client output", output[-_OUTPUT_LIMIT:])
    yield from _paragraph("reproduce", case["reproduce"])


def _actual(case: Mapping[str, Any]) -> str:
    cause = f"{case['cause']}: " if case["cause"] else ""
    where = f" [{case['operation']}]" if case["operation"] else ""
    rule = f" ({case['rule']})" if case["rule"] else ""
    return f"{cause}{case['reason']}{rule}{where}"


def _decisive(case: Mapping[str, Any]) -> Mapping[str, Any] | None:
    operations: list[Mapping[str, Any]] = case["operations"]
    for operation in operations:
        if operation["operation"] == case["operation"]:
            return operation
    return operations[0] if operations else None


def _paragraph(label: str, words: str) -> Iterator[str]:
    # Not broken: commands and paths must stay whole to be copied.
    wrapped = textwrap.wrap(
        escaped(words, limit=4000), _WIDTH - _LABEL, break_long_words=False, break_on_hyphens=False
    )
    if label in ("reproduce", "command"):
        wrapped = [escaped(words, limit=4000)]
    for index, line in enumerate(wrapped):
        yield f"{label if not index else '':<{_LABEL}}{line}"


def _block(label: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield label
        yield from (f"  {escaped(line, limit=400)}" for line in lines)
