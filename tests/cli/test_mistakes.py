"""What users get wrong: one sentence and an exit status for each, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakenbd.cli import main
from tests.program import FAKENBD, fakenbd, started

BOTH = "fakenbd: serve: expected either {} or {}, got both\n"
NO_TLS = "fakenbd: {}: expected --tls optional or required, too\n"

MISTAKES = [
    ("serve --bogus", "fakenbd: Unknown option: --bogus.\n"),
    ("serve --seed x", 'fakenbd: Invalid value for --seed: unable to convert "x" into int.\n'),
    (
        "serve --tls maybe",
        'fakenbd: Invalid value "maybe" for --tls. Choose from: "off", "optional", "required".\n',
    ),
    ("serve a b c", "fakenbd: unexpected arguments: b c\n"),
    ("serve a --all", BOTH.format("a profile", "--all")),
    ("serve --all --export x", BOTH.format("--export", "--all")),
    ("serve --stdio --tcp :0", BOTH.format("--stdio", "--tcp")),
    ("serve --stdio --unix -", BOTH.format("--stdio", "--unix")),
    ("serve --stdio --ready-file x", BOTH.format("--stdio", "--ready-file")),
    (
        "serve --tcp :0 --unix -",
        "fakenbd: --tcp and --unix: only one of them can be given\n",
    ),
    ("serve --tls-psk keys", NO_TLS.format("--tls-psk")),
    ("serve --tls off --tls-certificates pki", NO_TLS.format("--tls-certificates")),
    ("run baseline/plain --tls-verify-peer -- true", NO_TLS.format("--tls-verify-peer")),
    (
        "serve --journal-limit 0",
        'fakenbd: Invalid value "0" for --journal-limit. Must be >= 1.\n',
    ),
    ("run", 'fakenbd: Command "run" parameter PROFILE requires an argument.\n'),
    ("run -- true", "fakenbd: run: expected a client to run after --\n"),
    ("info", 'fakenbd: Command "info" parameter URI requires an argument.\n'),
    ("copy nbd://x", 'fakenbd: Command "copy" parameter DESTINATION requires an argument.\n'),
    ("info --timeout -1 nbd://x", 'fakenbd: Invalid value "-1.0" for --timeout. Must be > 0.\n'),
    ("info --retry -1 nbd://x", 'fakenbd: Invalid value "-1" for --retry. Must be >= 0.\n'),
    ("check --timeout 0", 'fakenbd: Invalid value "0.0" for --timeout. Must be > 0.\n'),
    ("check --memory 0", 'fakenbd: Invalid value "0" for --memory. Must be >= 1.\n'),
    (
        "check --jobs many",
        'fakenbd: Invalid value "many" for --jobs. Must be a number from 1, or "auto".\n',
    ),
    (
        "check --shard 3/2",
        'fakenbd: Invalid value "3/2" for --shard. Must be a part such as "2/5".\n',
    ),
    (
        "check --client libnbd -- my-client",
        "fakenbd: check: expected either --client or a command after --, got both\n",
    ),
    ("check --", "fakenbd: check: expected a client to run after --\n"),
    ("merge-reports -o x", "fakenbd: merge-reports: expected the folders of at least one report\n"),
    (
        "profiles show zzz",
        "fakenbd: zzz: no such profile; `fakenbd profiles list` shows them all\n",
    ),
    (
        "serve reads/gap-before-done",
        "fakenbd: reads/gap-before-done: is a family of 3 profiles; name one, such as "
        "reads/gap-before-done@first\n",
    ),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_of_the_command_line(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr() == ("", sentence)


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["srve"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith('fakenbd: Unknown command "srve". Did you mean "serve"?')
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("words", [["profiles", "list"], ["profiles", "show", "baseline/plain"]])
def test_a_reader_that_has_seen_enough(words: list[str]) -> None:
    """No word of it, and success: `fakenbd profiles list | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*FAKENBD, *words], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["profiles", "list"], ["profiles", "show", "baseline/plain"]])
def test_an_output_on_a_full_disk(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*FAKENBD, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.stderr == "fakenbd: cannot write the output: No space left on device\n"
    assert done.returncode == 3


def test_nobody_to_complain_to() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*FAKENBD, "info"], stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")


def test_serving_although_nobody_reads_the_line(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ready = tmp_path / "ready"
    os.mkfifo(ready.with_suffix(".go"))
    arguments = ("serve", "--unix", str(tmp_path / "s"), "--ready-file", str(ready))
    with started(*arguments, stdout=writer, stderr=subprocess.PIPE) as server:
        os.close(writer)
        shown = fakenbd("info", "--retry", "9", f"nbd+unix:///?socket={tmp_path / 's'}")
        assert (shown.returncode, shown.stderr) == (0, "")
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=60) == (None, b"")
    assert server.returncode == 0


def test_an_export_renamed_without_a_profile() -> None:
    done = subprocess.run(
        [*FAKENBD, "serve", "--export", "disk", "--stdio"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout.startswith(b"NBDMAGIC")
    assert (done.returncode, done.stderr) == (0, b"")


CLIENT = """
import subprocess, sys
fakenbd = "import sys; from fakenbd.cli import main; sys.exit(main())"
sys.exit(subprocess.run([sys.executable, "-c", fakenbd, "copy", *sys.argv[1:]]).returncode)
"""


def test_a_client_of_this_folder_is_found_from_the_folder_it_runs_in(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT)
    done = subprocess.run(
        [
            *(*FAKENBD, "check", "baseline/plain"),
            *("--", sys.executable, "./client.py", "{uri}", "{output}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert "::baseline/plain PASS" in done.stdout
    assert done.returncode == 0
