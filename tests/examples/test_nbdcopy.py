"""nbdcopy and a fake server: what arrives, what it asks for, what becomes of a failed read."""

import subprocess

import pytest


def copy(server, folder):
    """Copy the server's export to a file with nbdcopy, and return what arrived."""
    target = folder / "copy.img"
    subprocess.run(["nbdcopy", server.uri, target], check=True, timeout=60)
    return target.read_bytes()


def content(server):
    return bytes(server.export.read(0, server.export.size))


def test_replies_out_of_order(nbd_server, tmp_path):
    nbd_server.on("read", nth=1).hold(3)  # until three replies to later requests have left
    assert copy(nbd_server, tmp_path) == content(nbd_server)


def test_replies_in_pieces(nbd_server, tmp_path):
    nbd_server.on("read").split(1000)
    assert copy(nbd_server, tmp_path) == content(nbd_server)


def test_no_structured_replies(nbd_server, tmp_path):
    nbd_server.on(option="structured-reply").refuse("ERR_UNSUP")
    assert copy(nbd_server, tmp_path) == content(nbd_server)
    nbd_server.journal.expect_none("block-status")  # which needs structured replies


@pytest.mark.fakenbd(contexts={"base:allocation": ["64KiB data", "960KiB hole,zero"]})
def test_holes_are_not_read(nbd_server, tmp_path):
    copy(nbd_server, tmp_path)
    nbd_server.journal.expect_none("read", offset=range(64 * 1024, nbd_server.export.size))


@pytest.mark.fakenbd(profile="quirks/qemu-odd-tail")
def test_size_that_the_extents_do_not_fill(nbd_server, tmp_path):
    assert copy(nbd_server, tmp_path) == content(nbd_server)


@pytest.mark.fakenbd(violations="ignore")  # how it hangs up is not the question here
def test_failed_read_is_reported(nbd_server, tmp_path):
    nbd_server.on("read", nth=3).error("EIO", message="bad sector")
    with pytest.raises(subprocess.CalledProcessError):
        copy(nbd_server, tmp_path)
