"""The report: its data, its page as a browser sees it, and several runs in one."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fakenbd.check.report import merge, write
from fakenbd.errors import FakenbdError
from tests.peers import require

EVIL = "</pre><script>document.title = 'taken'</script><img src=x onerror=alert(1)>\0\x1b[31m"


def case(case_id: str, client: str, verdict: str = "pass", **changes: Any) -> dict[str, Any]:
    return {
        "id": case_id,
        "client": client,
        "seed": 7,
        "seconds": 0.1,
        "verdict": verdict,
        "cause": "hang" if verdict == "fail" else "",
        "reason": "it was still running after 10 s",
        "rule": "",
        "operation": "read",
        "also": [],
        "summary": f"The summary of {case_id}",
        "about": "Why it happens.",
        "rules": [{"id": "S-128", "text": "too few bytes", "level": "MUST", "section": "Replies"}],
        "expected": "read: it fails and reports it",
        "operations": [
            {
                "operation": "read",
                "command": "client nbd://x",
                "seconds": 0.1,
                "ended": "exit status 0",
                "wrong": "",
                "output": "",
                "errors": "what the client printed",
                "fires": 1,
                "transcript": "  0.001  #1  C> NBD_CMD_READ\n▸     ⚡ 'cut' (1st): cut off\n",
            }
        ],
        "reproduce": f"fakenbd check --select {case_id} --seed 7",
        **changes,
    }


CASES = [
    case("reads/one", "alpha"),
    case("reads/one", "beta", "fail"),
    case("extents/two@a b", "alpha", "warn"),
    case("extents/two@a b", "beta", "not-exercised"),
]


def test_the_data_is_what_it_was(tmp_path: Path) -> None:
    write(tmp_path / "new" / "folder", CASES)
    report = json.loads((tmp_path / "new" / "folder" / "report.json").read_text())
    assert (report["format"], report["version"]) == ("fakenbd-report", 1)
    assert sorted(report["cases"], key=CASES.index) == CASES


def test_runs_merge_and_the_later_counts(tmp_path: Path) -> None:
    write(tmp_path / "first", CASES[:2])
    write(tmp_path / "second", [case("reads/one", "beta"), case("writes/three", "alpha")])
    merge([tmp_path / "first", tmp_path / "second"], tmp_path / "both")
    report = json.loads((tmp_path / "both" / "report.json").read_text())
    assert [(each["id"], each["client"], each["verdict"]) for each in report["cases"]] == [
        ("reads/one", "alpha", "pass"),
        ("reads/one", "beta", "pass"),
        ("writes/three", "alpha", "pass"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot read the report {path}: No such file or directory"),
        ("{", "{path} is no report: Expecting property name enclosed in double quotes: line 1"),
        ("[]", '{path} is no report: it has no "format": "fakenbd-report"'),
        (
            '{"format": "fakenbd-report", "version": 99}',
            "{path} is a report of version 99, and only version 1 can be read",
        ),
    ],
)
def test_what_is_no_report_is_reported_so(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FakenbdError) as caught:
        merge([path], tmp_path / "out")
    assert str(caught.value).startswith(sentence.replace("{path}", str(path)))


def test_a_folder_that_cannot_be_written_is_reported_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FakenbdError) as caught:
        write(tmp_path / "file", CASES)
    assert str(caught.value) == f"cannot write the report to {tmp_path / 'file'}: File exists"


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, CASES)
    page = (tmp_path / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:,)', page)
    assert not re.findall(r"@import|url\(|https?://", page)


# --- as a browser sees it ----------------------------------------------------------------------


def seen(page: Path, fragment: str = "") -> tuple[str, str]:
    """The document after its scripts have run, and what they wrote to the console."""
    done = subprocess.run(
        [
            require("chromium"),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={page.parent / 'browser'}", "--enable-logging=stderr"),
            *("--virtual-time-budget=2000", "--dump-dom", f"{page.as_uri()}{fragment}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line)
    return done.stdout, console


def tags(document: str, pattern: str) -> list[str]:
    return re.findall(pattern, document)


def test_the_link_of_a_failed_case_leads_to_its_transcript(tmp_path: Path) -> None:
    write(tmp_path, CASES)
    page = (tmp_path / "index.html").read_text()
    (link,) = tags(page, r'<a class="fail" href="(#[^"]+)">hang</a>')
    document, console = seen(tmp_path / "index.html", link)
    assert console == ""
    opened = tags(document, r'<article id="([^"]+)"[^>]*>\s*<details open="">')
    assert opened == [link[1:]]
    article = document.partition(f'<article id="{link[1:]}"')[2].partition("</article>")[0]
    assert "<span class=\"marked firing\">▸     ⚡ 'cut' (1st): cut off</span>" in article
    for piece in (
        "too few bytes",
        "it fails and reports it",
        "it was still running after 10 s",
        "what the client printed",
        "fakenbd check --select reads/one --seed 7",
    ):
        assert piece in article


FILTER = """
<script>
const form = document.getElementById("filters");
{change}
form.dispatchEvent(new Event("input"));
</script>
</body>
"""


@pytest.mark.parametrize(
    ("change", "rows", "articles"),
    [
        ("", 2, 4),
        ('form.querySelector("[value=fail]").checked = false;', 2, 3),
        ('for (const box of form.verdict) box.checked = box.value === "fail";', 1, 1),
        ('form.folder.value = "extents";', 1, 2),
        ('form.text.value = "ONE";', 1, 2),
        ('form.text.value = "nowhere";', 0, 0),
    ],
)
def test_filters_leave_what_was_asked_for(
    tmp_path: Path, change: str, rows: int, articles: int
) -> None:
    write(tmp_path, CASES)
    page = tmp_path / "index.html"
    page.write_text(page.read_text().replace("</body>", FILTER.replace("{change}", change)))
    document, console = seen(page)
    assert console == ""
    shown = r"<{}(?: [a-z-]+=\"[^\"]*\")* data-verdicts=\"[^\"]*\">"
    assert len(tags(document, shown.format("tr"))) == rows
    assert len(tags(document, shown.format("article"))) == articles


def test_what_a_client_prints_stays_text(tmp_path: Path) -> None:
    evil = case(EVIL, EVIL, "fail", reason=EVIL, summary=EVIL, about=EVIL, reproduce=EVIL)
    for name in ("command", "ended", "wrong", "output", "errors", "transcript"):
        evil["operations"][0][name] = EVIL
    write(tmp_path, [evil])
    document, console = seen(tmp_path / "index.html")
    assert console == ""
    assert "<title>NBD clients on fakenbd's profiles</title>" in document
    assert "<img" not in document
    assert document.count("<script") == 1
