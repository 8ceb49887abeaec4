"""A case's result as plain data: for workers to send, for report.json, and for the console.

`VERSION` goes up when a key changes its meaning or is removed. The output of a client is in it
unchanged: what displays it has to escape it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.check.case import CaseResult
from fakenbd.check.operation_result import OperationResult
from fakenbd.check.verdicts import Verdict
from fakenbd.profile import Expect, library_folder
from fakenbd.protocol.rules import rule

__all__ = ["VERSION", "case_json"]

VERSION: Final = 1

_OUTPUT_LIMIT: Final = 1 << 14
_OUTPUT_LIMIT_PASSED: Final = 1 << 11
"""Characters of output that are kept: of a client that failed, and of one that passed."""

_LINES: Final = 60
_LINES_PASSED: Final = 13
"""The same of the lines of a transcript."""

_OUTCOMES: Final = {
    "succeeds": "it succeeds, and the result is right",
    "fails": "it fails and reports it",
    "either": "it succeeds with the right result, or fails and reports it",
}
_SESSIONS: Final = {
    "continues": "the connection goes on",
    "disconnects": "the client drops the connection",
    "soft-disconnects": "the client disconnects cleanly",
    "reconnects": "the client connects again",
}


def case_json(result: CaseResult, verdict: Verdict, client: tuple[str, ...] = ()) -> dict[str, Any]:
    """One case as a JSON object. `client` are the words that select the client in `check`."""
    profile = result.profile
    ids = [*profile.rules, *([verdict.rule] if verdict.rule not in ("", *profile.rules) else [])]
    well = verdict.name in ("pass", "not-exercised")
    output, lines = (_OUTPUT_LIMIT_PASSED, _LINES_PASSED) if well else (_OUTPUT_LIMIT, _LINES)
    return {
        "id": result.id,
        "client": result.client,
        "seed": result.seed,
        "seconds": round(result.seconds, 3),
        "verdict": verdict.name,
        "cause": verdict.cause or "",
        "reason": verdict.reason,
        "rule": verdict.rule,
        "operation": verdict.operation,
        "also": [attrs.asdict(finding) for finding in verdict.also],
        "summary": profile.summary,
        "about": profile.about.strip(),
        "rules": [_rule(rule_id) for rule_id in ids],
        "expected": _expected(profile.expect),
        "operations": [_operation(each, output, lines) for each in result.operations],
        "reproduce": _reproduce(result, client),
    }


def _rule(rule_id: str) -> dict[str, str]:
    row = rule(rule_id)
    return {"id": row.id, "text": row.text, "level": row.level, "section": row.section or row.basis}


def _expected(expect: Expect) -> str:
    words = f"{' and '.join(expect.operations)}: {_OUTCOMES[expect.outcome]}"
    return words if expect.session is None else f"{words}; {_SESSIONS[expect.session]}"


def _operation(result: OperationResult, output: int, lines: int) -> dict[str, Any]:
    return {
        "operation": result.operation,
        "command": shlex.join(result.command),
        "seconds": round(result.seconds, 3),
        "ended": result.ended,
        "wrong": result.wrong,
        "output": _clipped(result.output, output),
        "errors": _clipped(result.errors, output),
        "fires": result.wire.fired,
        "transcript": _around_mark(result.transcript, lines),
    }


def _clipped(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _around_mark(transcript: str, limit: int) -> str:
    """At most `limit` lines, those around the mark if there is one."""
    lines = transcript.splitlines()
    mark = next((place for place, line in enumerate(lines) if line.startswith("▸")), 0)
    first = max(0, min(mark - limit // 2, len(lines) - limit))
    return "\n".join(lines[first : first + limit])


def _reproduce(result: CaseResult, client: tuple[str, ...]) -> str:
    source = result.profile.source
    words = ["fakenbd", "check"]
    if source is None or source.is_relative_to(library_folder()):
        words += ["--select", result.id]
    else:
        here = Path.cwd()
        words.append(str(source.relative_to(here) if source.is_relative_to(here) else source))
    return shlex.join([*words, "--seed", str(result.seed), *client])
