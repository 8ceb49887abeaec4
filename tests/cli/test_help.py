"""What `--help` says: a sentence for each verb, words for values instead of types, examples."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import import_module

import pytest

from fakenbd.cli import app, main
from fakenbd.cli.verbs import PROFILE_VERBS, VERBS, Verb

ALL = {
    **{(word,): verb for word, verb in VERBS.items()},
    **{("profiles", word): verb for word, verb in PROFILE_VERBS.items()},
}
EVERY = pytest.mark.parametrize(("words", "verb"), ALL.items(), ids=[" ".join(w) for w in ALL])

SERVE = """\
Usage: fakenbd serve [PROFILE] [OPTIONS]

Serve a profile until SIGINT or SIGTERM.

Prints one line of JSON with the address once it is listening. A profile is an id of the library, or
the path of a .toml or .py file; without one, an export of 1 MiB without faults is served. A socket
from systemd (LISTEN_FDS) is used in place of --tcp and --unix.

╭─ Arguments ──────────────────────────────────────────────────────────────────────────────────────╮
│ PROFILE  The profile; without one, an export of 1 MiB without faults.                            │
╰──────────────────────────────────────────────────────────────────────────────────────────────────╯
╭─ Options ────────────────────────────────────────────────────────────────────────────────────────╮
│ --all                        Serve all profiles; the export name selects one.                    │
│ --stdio                      Serve one client on standard input and output.                      │
│ --ready-file FILE            Write the line of JSON to this file, too.                           │
│ --tcp HOST:PORT              Address to listen on (default: loopback, any free port).            │
│ --unix PATH|-                Listen on a Unix socket; "-" makes a private one.                   │
│ --export NAME                Serve the first export under this name.                             │
│ --seed N                     Random seed.                                                        │
│ --tls off|optional|required  TLS mode (default: the profile's).                                  │
│ --tls-certificates FOLDER    A folder with ca-cert.pem, server-cert.pem and server-key.pem; by   │
│                              default certificates are made.                                      │
│ --tls-verify-peer            Accept only clients with a certificate of the CA.                   │
│ --tls-psk FILE               A file of pre-shared keys, USER:HEXKEY a line (needs Python 3.13).  │
│ --journal FILE               Write the journal of all messages to this JSONL file.               │
│ --pcap FILE                  Write the connections as a capture for Wireshark (pcapng).          │
│ --journal-data               Keep the data read and written in the journal.                      │
│ --journal-limit N            Entries that the journal holds in memory. [default: 100000]         │
│ --exit-with-parent           Exit when the parent process ends.                                  │
╰──────────────────────────────────────────────────────────────────────────────────────────────────╯

Examples:
  fakenbd serve quirks/qemu-odd-tail
  fakenbd serve --all --unix /run/user/1000/fake.sock
  fakenbd serve my-profile.toml --tcp 127.0.0.1:10809 --ready-file ready.json
"""


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred columns, wherever the tests run."""
    monkeypatch.setenv("COLUMNS", "100")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return "\n".join(line.rstrip() for line in captured.out.splitlines()) + "\n"


def test_of_serve_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "serve") == SERVE


@EVERY
def test_of_a_verb(words: tuple[str, ...], verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *words)
    assert text.startswith(f"Usage: fakenbd {' '.join(words)} {verb.usage}\n\n{verb.summary}\n")
    assert text.endswith(verb.epilogue + "\n")
    assert re.findall(r"\b(?:STR|INT|FLOAT|PATH\.\.\.|BOOL|CHOICE)\b", text) == []
    assert "[default: False]" not in text
    assert "--no-" not in text.replace("--no-sparse", "").replace("--no-colour", "")


@EVERY
def test_summary_is_what_the_function_says(words: tuple[str, ...], verb: Verb) -> None:
    module, _, name = verb.home.partition(":")
    described = inspect.getdoc(getattr(import_module(module), name)) or ""
    assert described.splitlines()[0] == verb.summary


@EVERY
def test_examples_are_understood(words: tuple[str, ...], verb: Verb) -> None:
    assert verb.examples
    for example in verb.examples:
        program, *rest = shlex.split(example)
        assert program == "fakenbd"
        ours = rest[: rest.index("--")] if "--" in rest else rest
        app.parse_args([*ours, *rest[len(ours) :]], exit_on_error=False, print_error=False)


@pytest.mark.parametrize(("words", "verbs"), [((), VERBS), (("profiles",), PROFILE_VERBS)])
def test_of_all_verbs(
    words: tuple[str, ...], verbs: dict[str, Verb], capsys: pytest.CaptureFixture[str]
) -> None:
    captured = re.sub(r"[│\s]+", " ", shown(capsys, *words))
    places = [captured.index(f" {word} {verb.summary} ") for word, verb in verbs.items()]
    assert places == sorted(places)


def test_without_a_verb_it_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    helped = shown(capsys)
    assert main([]) == 0
    assert "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n" == (
        helped
    )
