"""The report of a run: report.json, and index.html, which is made from it.

Reports of several runs merge into one: a matrix of cases by clients. Of the same case and client
the later run counts. The page is one file, without scripts or resources from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fakenbd import __version__
from fakenbd.check.case_json import VERSION
from fakenbd.errors import FakenbdError

__all__ = ["merge", "write"]

FORMAT: Final = "fakenbd-report"
_DATA: Final = "report.json"
_PAGE: Final = "index.html"


def write(folder: Path, cases: Iterable[Mapping[str, Any]]) -> None:
    """Write the report of these cases. Raises FakenbdError where the folder cannot be written."""
    ordered = sorted(cases, key=lambda case: (case["id"], case["client"]))
    report = {"format": FORMAT, "version": VERSION, "fakenbd": __version__, "cases": ordered}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=1, ensure_ascii=True)
        (folder / _DATA).write_text(text + "\n", encoding="utf-8")
        (folder / _PAGE).write_text(_page(ordered), encoding="utf-8")
    except OSError as error:
        raise FakenbdError(f"cannot write the report to {folder}: {error.strerror}") from None


def merge(folders: Sequence[Path], output: Path) -> None:
    """Write one report from several. Raises FakenbdError for one that cannot be read."""
    cases: dict[tuple[str, str], Mapping[str, Any]] = {}
    for folder in folders:
        for case in _read(folder):
            cases[case["id"], case["client"]] = case
    write(output, cases.values())


def _read(folder: Path) -> list[dict[str, Any]]:
    path = folder / _DATA if folder.is_dir() else folder
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FakenbdError(f"cannot read the report {path}: {error.strerror}") from None
    except ValueError as error:
        raise FakenbdError(f"{path} is no report: {error}") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise FakenbdError(f'{path} is no report: it has no "format": "{FORMAT}"')
    if report.get("version") != VERSION:
        raise FakenbdError(
            f"{path} is a report of version {report.get('version')}, and only version {VERSION} "
            "can be read"
        )
    cases: list[dict[str, Any]] = report["cases"]
    return cases


# --- the page ----------------------------------------------------------------------------------

_GRAVITY: Final = ("error", "fail", "xpass", "warn", "not-exercised", "xfail", "pass")


def _page(cases: Sequence[Mapping[str, Any]]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # slow to import

    environment = Environment(
        loader=PackageLoader("fakenbd.check", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["lines"] = _lines
    clients = sorted({case["client"] for case in cases})
    ids = sorted({case["id"] for case in cases})
    return environment.get_template("report.html.j2").render(
        cases=[_anchored(case) for case in cases],
        clients=clients,
        folders=sorted({_folder(case_id) for case_id in ids}),
        rows=[_row(case_id, clients, cases) for case_id in ids],
        counts=[
            (verdict, count)
            for verdict in _GRAVITY
            if (count := sum(case["verdict"] == verdict for case in cases))
        ],
        version=__version__,
    )


def _anchor(case: Mapping[str, Any]) -> str:
    """A name for links, without the characters of an id that an anchor cannot have."""
    text = f"{case['client']}--{case['id']}"
    return "".join(one if one.isascii() and one.isalnum() else f"-{ord(one):x}-" for one in text)


def _anchored(case: Mapping[str, Any]) -> dict[str, Any]:
    return {**case, "anchor": _anchor(case), "folder": _folder(case["id"])}


def _folder(case_id: str) -> str:
    return case_id.rpartition("/")[0] or "."


def _row(
    case_id: str, clients: Sequence[str], cases: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    mine = {case["client"]: _anchored(case) for case in cases if case["id"] == case_id}
    return {
        "id": case_id,
        "folder": _folder(case_id),
        "summary": next(iter(mine.values()))["summary"],
        "cells": [mine.get(client) for client in clients],
        "verdicts": sorted({case["verdict"] for case in mine.values()}),
    }


def _lines(transcript: str) -> list[tuple[str, str]]:
    """The lines of a transcript, each with its CSS class."""
    return [(_kind(line), line) for line in transcript.splitlines()]


def _kind(line: str) -> str:
    marked = "marked " if line.startswith("▸") else ""
    for sign, kind in (("⚡", "firing"), ("✗", "breach"), ("!!", "breach")):
        if f" {sign} " in line:
            return marked + kind
    for sign, kind in ((" C> ", "received"), (" <S ", "sent")):
        if sign in line:
            return marked + kind
    return marked + "note"
