"""The reference client as a user types it: output in full, status, and what is left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from fakenbd import background_server
from fakenbd.export import Zeros
from fakenbd.profile import Profile
from fakenbd.server import TLS
from tests.cli.test_verbs import NOTED
from tests.program import FAKENBD, fakenbd, process, started

SIZE = 3 << 20
LIMIT = 60


def content_of(server, size=SIZE):
    return bytes(server.export.read(0, size))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def quiet(*arguments, **options):
    """A run that has nothing to say and succeeds."""
    done = fakenbd(*map(str, arguments), **options)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def failing(*arguments, **options) -> str:
    """The one sentence with which a run fails."""
    done = fakenbd(*map(str, arguments), **options)
    assert (done.stdout, done.returncode) == ("", 1)
    return done.stderr


# --- list and info -----------------------------------------------------------------------------

TWO = Profile.of(
    exports=[
        {
            "name": "disk",
            "size": "1MiB",
            "description": "the first",
            "block-size": {"minimum": 512, "preferred": 4096, "maximum": "32MiB"},
            "flags": ["flush", "fua"],
        },
        {"name": "e\x1b[31mvil", "size": 1000, "flags": ["read-only"], "contexts": {}},
    ]
)


def test_list_for_people():
    with background_server(TWO) as server:
        done = process("list", server.uri)
    assert done.stdout == (
        "export:           disk\n"
        "size:             1048576\n"
        "flags:            NBD_FLAG_HAS_FLAGS, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_FUA\n"
        "minimum block:    512\n"
        "preferred block:  4096\n"
        "maximum payload:  33554432\n"
        "name:             disk\n"
        "description:      the first\n"
        "contexts:         base:allocation\n"
        "\n"
        "export:           e\\x1b[31mvil\n"
        "size:             1000\n"
        "flags:            NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY\n"
        "minimum block:    1\n"
        "preferred block:  4096\n"
        "maximum payload:  33554432\n"
        "name:             e\\x1b[31mvil\n"
        "description:      not advertised\n"
        "contexts:         none\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_list_for_programs():
    with background_server(TWO) as server:
        server.on(option="info", nth=2).refuse("policy", message="not you")
        done = fakenbd("list", "--json", server.uri)
    first, second = json.loads(done.stdout)
    assert first["export"] == "disk"
    assert (first["size"], first["minimum block"]) == (1 << 20, 512)
    assert second == {
        "export": "e\x1b[31mvil",
        "refused": 'the server does not open the export "e\\x1b[31mvil": '
        "NBD_REP_ERR_POLICY: not you",
    }
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_list_that_is_refused():
    with background_server(size="1MiB") as server:
        server.on(option="list").refuse("policy", message="ask\nme")
        assert failing("list", server.uri) == (
            "fakenbd: the server lists no exports: NBD_REP_ERR_POLICY: ask\\nme\n"
        )


def test_info_for_people():
    with background_server(TWO) as server:
        done = fakenbd("info", server.uri_of("disk"))
    assert done.stdout == (
        "export:           disk\n"
        "size:             1048576\n"
        "style:            fixed\n"
        "replies:          extended\n"
        "tls:              no\n"
        "flags:            NBD_FLAG_HAS_FLAGS, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_FUA\n"
        "minimum block:    512\n"
        "preferred block:  4096\n"
        "maximum payload:  33554432\n"
        "name:             disk\n"
        "description:      the first\n"
        "contexts:         base:allocation\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


# --- map ---------------------------------------------------------------------------------------

KNOWN = (
    "              0         1048576    0  data\n        1048576         1048576    3  hole,zero\n"
)
UNKNOWN = (
    "fakenbd: nothing is known from byte 2097152 on: the server answered NBD_CMD_BLOCK_STATUS of "
    "2097152+1099509530624 with NBD_EIO\n"
)
LATE = Profile.of(
    size="1TiB",
    content="zeros",
    contexts={
        "base:allocation": {
            "repeat": ["1MiB data", "1MiB hole,zero"],
            "policy": {"one-extent": True},
        }
    },
)


def test_a_map_that_fails_late_keeps_what_is_known():
    with background_server(LATE) as server:
        server.on("block-status", offset="2MiB").error("EIO")
        done = fakenbd("map", server.uri)
        assert (done.stdout, done.stderr, done.returncode) == (KNOWN, UNKNOWN, 1)
        done = fakenbd("map", "--json", server.uri)
        assert (done.stderr, done.returncode) == (UNKNOWN, 1)
        assert [(run["start"], run["length"], run["data"]) for run in json.loads(done.stdout)] == [
            (0, 1 << 20, True),
            (1 << 20, 1 << 20, False),
        ]
        server.on("block-status").error("EIO")
        assert failing("map", server.uri) == (
            "fakenbd: the server answered NBD_CMD_BLOCK_STATUS of 0+1099511627776 with NBD_EIO\n"
        )


# --- copy --------------------------------------------------------------------------------------


def test_copy_out_and_in(tmp_path):
    image = tmp_path / "image"
    with background_server(size=SIZE) as server:
        quiet("copy", "--verify", server.uri, image)
        assert image.read_bytes() == content_of(server)
        assert files(tmp_path) == ["image"]
        image.write_bytes(bytes(range(256)) * (SIZE // 256))
        quiet("copy", "--verify", "--in-flight", 1, "--connections", 1, image, server.uri)
        assert content_of(server) == image.read_bytes()


def test_copy_from_server_to_server():
    with background_server(size=SIZE) as one, background_server(size=SIZE, content="zeros") as two:
        quiet("copy", "--verify", one.uri, two.uri)
        assert content_of(two) == content_of(one)


@pytest.mark.parametrize("sparse", [True, False])
def test_holes_stay_holes_where_that_is_wished(sparse, tmp_path):
    image = tmp_path / "image"
    options = [] if sparse else ["--no-sparse"]
    with background_server(size=SIZE, content=Zeros()) as server:
        quiet("copy", *options, server.uri, image)
    assert image.read_bytes() == bytes(SIZE)
    assert (image.stat().st_blocks * 512 < SIZE) == sparse


def test_a_file_that_was_there_keeps_all_but_its_content(tmp_path):
    image, link = tmp_path / "image", tmp_path / "link"
    image.write_bytes(b"x" * (2 * SIZE))
    image.chmod(0o640)
    link.symlink_to("image")
    with background_server(size=SIZE) as server:
        quiet("copy", server.uri, link)
        assert image.read_bytes() == content_of(server)
    assert image.stat().st_mode & 0o7777 == 0o640
    assert link.is_symlink()
    assert files(tmp_path) == ["image", "link"]


def test_a_copy_that_fails_leaves_what_was_there(tmp_path):
    image = tmp_path / "image"
    with background_server(size=SIZE) as server:
        server.on("read", nth=2).error("EIO", message="bad\x1bsector")
        sentence = failing("copy", server.uri, image)
        assert re.fullmatch(
            r"fakenbd: the server answered NBD_CMD_READ of \d+\+1048576 with NBD_EIO: "
            r"bad\\x1bsector\n",
            sentence,
        )
        assert files(tmp_path) == []
        image.write_bytes(b"the old one")
        server.on("read", times=1).corrupt(byte=-1, xor="ff")
        sentence = failing("copy", "--verify", "--in-flight", 1, server.uri, image)
        assert re.fullmatch(
            r"fakenbd: the copy differs from the source at byte \d+: it has 0x.., not 0x..\n",
            sentence,
        )
        assert image.read_bytes() == b"the old one"
        assert files(tmp_path) == ["image"]


def test_a_copy_that_is_interrupted(tmp_path):
    image = tmp_path / "image"
    with background_server(size=SIZE) as server:
        server.on("read", nth=2).stall()
        arguments = ("copy", "--in-flight", "1", server.uri, str(image))
        with started(*arguments, stderr=subprocess.PIPE, text=True) as copying:
            server.wait_for("read", count=2, timeout=LIMIT)
            (part,) = files(tmp_path)
            assert re.fullmatch(r"image\.[0-9a-f]{8}\.part", part)
            copying.send_signal(signal.SIGINT)
            _, errors = copying.communicate(timeout=LIMIT)
        assert (errors, copying.returncode) == ("", 130)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "destination", "sentence"),
    [
        ("a", "b", "neither a nor b is the URI of an export"),
        ("a", "{uri}", "cannot open a: No such file or directory"),
        ("{uri}", "no/such/b", "cannot open no/such/b: No such file or directory"),
        ("{uri}", ".", "cannot open .: Is a directory"),
        ("{uri}", "/dev/null", "cannot open /dev/null: it is not a regular file"),
        ("{uri}", "{small}", "{small} holds 1024 bytes, fewer than the 3145728 of {uri}"),
    ],
)
def test_places_that_will_not_do(source, destination, sentence, tmp_path):
    with background_server(size=SIZE) as server, background_server(size=1024) as small:
        places = {"uri": server.uri, "small": small.uri}
        result = failing(
            "copy", source.format(**places), destination.format(**places), cwd=tmp_path
        )
    assert result == f"fakenbd: {sentence.format(**places)}\n"
    assert files(tmp_path) == []


# --- how patient, how strict -------------------------------------------------------------------


def test_retry_survives_a_loss(tmp_path):
    image = tmp_path / "image"
    with background_server(size=SIZE) as server:
        server.on("read", nth=2).cut(100)
        quiet("copy", "--retry", 2, server.uri, image)
        assert image.read_bytes() == content_of(server)
        server.on("read", times=1).cut(100)
        sentence = failing("copy", "--connections", 1, server.uri, tmp_path / "other")
        assert sentence.startswith("fakenbd: the server closed the connection in the middle of a")
    assert files(tmp_path) == ["image"]


@pytest.mark.parametrize("verb", ["info", "map", "list"])
def test_retry_comes_back_to_a_server_that_was_away(verb):
    with background_server(size=SIZE) as server:
        correct = fakenbd(verb, server.uri)
        for lose in (
            lambda: server.on("connect", times=2).refuse_connection(),
            lambda: server.on("greeting", times=1).cut(5),
        ):
            lose()
            done = fakenbd(verb, "--retry", "2", server.uri)
            assert (done.stdout, done.stderr, done.returncode) == (correct.stdout, "", 0)
        server.on("greeting", times=1).cut(5)
        assert failing(verb, server.uri) == (
            "fakenbd: the server closed the connection while the greeting was due\n"
        )


def test_timeout_bounds_each_wait(tmp_path):
    with background_server(size=SIZE) as server:
        server.on("read").stall()
        assert re.fullmatch(
            r"fakenbd: no whole reply to NBD_CMD_READ of \d+\+1048576 came within 3 s\n",
            failing("copy", "--timeout", "3", server.uri, tmp_path / "image"),
        )
    with background_server(size=SIZE) as server:
        server.on("greeting").stall()
        for verb in ("info", "map", "list"):
            assert failing(verb, "--timeout", "0.2", server.uri) == (
                "fakenbd: no greeting came within 0.2 s\n"
            )


def test_what_was_tolerated_is_reported_and_strictness_refuses_it(tmp_path):
    odd = fakenbd(
        "run", "quirks/qemu-odd-tail", "--", *FAKENBD, "copy", "{uri}", "image", cwd=tmp_path
    )
    assert (odd.stdout, odd.stderr, odd.returncode) == ("", NOTED, 0)
    command = ("copy", "--strict", "{uri}", "other")
    odd = fakenbd("run", "quirks/qemu-odd-tail", "--", *FAKENBD, *command, cwd=tmp_path)
    assert odd.stderr == (
        "fakenbd: the extent at 0 is 1000 bytes long, not a multiple of 512 (S-209)\n"
    )
    assert odd.returncode == 1
    assert files(tmp_path) == ["image"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("copy", "--in-flight", "0"), 'Invalid value "0" for --in-flight. Must be >= 1.'),
        (("copy", "--connections", "0"), 'Invalid value "0" for --connections. Must be >= 1.'),
        (("map", "--timeout", "0"), 'Invalid value "0.0" for --timeout. Must be > 0.'),
        (("info", "--timeout", "nan"), 'Invalid value "nan" for --timeout. Must be > 0.'),
        (("list", "--retry", "-1"), 'Invalid value "-1" for --retry. Must be >= 0.'),
    ],
)
def test_impossible_numbers(arguments, sentence):
    done = fakenbd(*arguments, "nbd://127.0.0.1/", *(["image"] if arguments[0] == "copy" else []))
    assert (done.stdout, done.stderr, done.returncode) == ("", f"fakenbd: {sentence}\n", 2)


# --- TLS ---------------------------------------------------------------------------------------


def test_credentials_as_options(tmp_path):
    with background_server(size=SIZE, tls=TLS("required", verify_clients=True)) as server:
        folder = server.security.directory
        named = ("--tls-certificates", folder, "--tls-hostname", "localhost")
        for verb in ("info", "map", "list"):
            done = fakenbd(verb, "--tls", "require", *map(str, named), server.uri)
            assert (done.stderr, done.returncode) == ("", 0)
        quiet("copy", "--verify", *named, server.uri, tmp_path / "image")
        assert (tmp_path / "image").read_bytes() == content_of(server)
        assert failing(
            "info", "--tls-ca", server.security.ca_file, "--tls-hostname", "elsewhere", server.uri
        ) == (
            "fakenbd: the TLS handshake failed: the server's certificate is not to be trusted: "
            "Hostname mismatch, certificate is not valid for 'elsewhere'.\n"
        )


def test_a_captive_client_is_given_what_to_trust():
    info, uri = f"{shlex.join(FAKENBD)} info", '"nbds://$FAKENBD_HOST:$FAKENBD_PORT/"'
    script = (
        f'{info} --tls-ca "$FAKENBD_CA" {uri} >/dev/null && '
        f'{info} --tls-certificates "$FAKENBD_CA_DIR" {uri} >/dev/null && '
        'ls "$FAKENBD_CA_DIR"'
    )
    done = fakenbd("run", "--tls", "required", "baseline/plain", "--", "sh", "-c", script)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "ca-cert.pem" in done.stdout.splitlines()


def test_no_credentials():
    with background_server(size=SIZE, tls=TLS("required")) as server:
        uri = server.uri_of("")
        assert uri.startswith("nbds://")
        sentence = failing("info", uri)
        assert sentence.startswith(
            "fakenbd: the TLS handshake failed: the server's certificate is not to be trusted: "
        )
        assert fakenbd("info", "--tls-no-verify", uri).returncode == 0
        assert failing("info", "--tls", "off", uri) == (
            f"fakenbd: {uri} requires TLS, which is switched off\n"
        )


def test_each_end_is_protected_as_its_own_uri_says(tmp_path):
    with background_server(size=SIZE) as clear, background_server(size=SIZE) as other:
        pretended = clear.uri.replace("nbd://", "nbds://")
        for source, destination in ((other.uri, pretended), (pretended, other.uri)):
            assert failing("copy", source, destination) == (
                "fakenbd: TLS is required, but the server refused it with NBD_REP_ERR_POLICY: "
                "this server speaks no TLS\n"
            )
    with (
        background_server(size=SIZE) as clear,
        background_server(size=SIZE, content="zeros", tls=TLS("required")) as protected,
    ):
        quiet("copy", clear.uri, protected.uri_of("", credentials=True))
        assert content_of(protected) == content_of(clear)


# --- a terminal --------------------------------------------------------------------------------


def test_progress_is_shown_on_a_terminal_and_leaves_only_the_sum(tmp_path):
    with background_server(size=SIZE) as server:
        server.on("read", nth=2).delay(0.3)
        ours, theirs = pty.openpty()
        with started(
            *("copy", server.uri, "image"),
            stderr=theirs,
            cwd=tmp_path,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        ) as copying:
            os.close(theirs)
            shown = b""
            try:
                while some := os.read(ours, 4096):
                    shown += some
            except OSError:  # the terminal's way to say that nobody writes any more
                pass
            finally:
                os.close(ours)
            assert copying.wait(LIMIT) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "→ image" in text
    assert "3.0 MiB" in text
    *_, last = filter(None, re.split(r"[\r\n]+", text))
    assert last == f"{SIZE} bytes, {SIZE} of them transferred"
    # The bar's line is erased before the sum takes its place.
    assert shown.rstrip().rpartition(b"\x1b[2K")[2].strip().endswith(last.encode())
