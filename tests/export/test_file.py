from __future__ import annotations

import errno
import os

import pytest

from fakenbd.errors import ServeError
from fakenbd.export import Export, File
from fakenbd.protocol.messages import Extent

MIB = 1 << 20
REQ_ONE = 8


@pytest.fixture
def odd(tmp_path):
    """The seed's file: 1000 bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"%01000d" % 1)
    return path


@pytest.fixture
def sparse(tmp_path):
    """64 KiB hole, 5000 bytes of data (two pages), a hole up to 1 MiB, 1000 bytes of data."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(65536)
        file.write(b"x" * 5000)
        file.seek(MIB)
        file.write(b"y" * 1000)
    return path


@pytest.mark.parametrize("seek_hole", [False, True])
@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 4, b"0000"),
        (998, 4, b"01\0\0"),
        (1000, 24, bytes(24)),
        (2**63 - 1, 2, bytes(2)),
        (2**64 - 2, 2, bytes(2)),
        (10, 0, b""),
    ],
)
def test_read(odd, seek_hole, offset, length, expected):
    content = File(odd, seek_hole=seek_hole)
    assert content.size == 1000
    assert content.read(offset, length) == expected
    content.close()


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, MIB + 1024, [(65536, 3), (8192, 0), (MIB - 73728, 3), (1000, 0), (24, 3)]),
        (512, 512, [(512, 3)]),
        (65535, 2, [(1, 3), (1, 0)]),
        (73000, 1000, [(728, 0), (272, 3)]),
        (MIB + 512, 512, [(488, 0), (24, 3)]),
        (MIB + 1000, 24, [(24, 3)]),
        (2**63, 2**62, [(2**62, 3)]),
        (0, 0, []),
    ],
)
def test_segments_are_the_holes_of_the_file_system(sparse, offset, length, expected):
    content = File(sparse, seek_hole=True)
    assert list(content.segments(offset, length)) == [Extent(*e) for e in expected]
    assert content.sparse
    content.close()


def test_segments_without_seek_hole_are_data_up_to_the_end(sparse):
    content = File(sparse)
    assert list(content.segments(0, MIB + 1024)) == [Extent(MIB + 1000, 0), Extent(24, 3)]
    assert not content.sparse
    content.close()


def test_a_hole_at_the_end_and_the_rounding_are_one_extent(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4096)
    os.truncate(path, 9000)
    export = Export(content=File(path, seek_hole=True), round_size_to=512)
    assert export.size == 9216
    assert export.segments(0, 9216) == [Extent(4096, 0), Extent(5120, 3)]
    export.close()


@pytest.mark.parametrize(
    ("length", "size", "offset", "many", "one"),
    [
        (1000, 1024, 0, [(1000, 0), (24, 3)], [(1000, 0)]),
        (1000, 1024, 512, [(488, 0), (24, 3)], [(488, 0)]),
        (1000, 1024, 1000, [(24, 3)], [(24, 3)]),
        (1300, 1536, 0, [(1300, 0), (236, 3)], [(1300, 0)]),
        (1300, 1536, 1024, [(276, 0), (236, 3)], [(276, 0)]),
        (513, 1024, 0, [(513, 0), (511, 3)], [(513, 0)]),
        (513, 1024, 512, [(1, 0), (511, 3)], [(1, 0)]),
        (1, 512, 0, [(1, 0), (511, 3)], [(1, 0)]),
        (1024, 1024, 0, [(1024, 0)], [(1024, 0)]),
    ],
)
def test_the_seed(tmp_path, length, size, offset, many, one):
    path = tmp_path / "file"
    path.write_bytes(b"1" * length)
    export = Export(content=File(path, seek_hole=True), round_size_to=512)
    assert export.size == size
    assert export.sparse
    left = size - offset
    assert export.block_status("base:allocation", offset, left, 0) == [Extent(*e) for e in many]
    assert export.block_status("base:allocation", offset, left, REQ_ONE) == [
        Extent(*e) for e in one
    ]
    assert export.segments(offset, left) == [Extent(*e) for e in many]
    assert export.read(0, size) == b"1" * length + bytes(size - length)
    export.close()


def test_the_file_is_never_written(odd):
    before = odd.read_bytes()
    export = Export(content=File(odd))
    export.write(0, b"overlay")
    export.trim(100, 100)
    assert export.read(0, 8) == b"overlay0"
    export.close()
    assert odd.read_bytes() == before


def test_a_file_that_shrinks_while_it_is_served_reads_as_zeros(odd):
    content = File(odd, seek_hole=True)
    assert content.size == 1000
    os.truncate(odd, 2)
    assert content.read(0, 4) == b"00\0\0"
    assert list(content.segments(0, 4)) == [Extent(2, 0), Extent(2, 3)]
    content.close()


def test_a_file_that_vanishes_is_served_while_open_and_refused_afterwards(odd):
    content = File(odd)
    assert content.read(999, 1) == b"1"
    odd.unlink()
    assert content.read(999, 1) == b"1"
    content.close()
    content.close()
    with pytest.raises(ServeError) as caught:
        content.read(999, 1)
    assert str(caught.value) == f"cannot open {odd}: No such file or directory"


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ServeError) as caught:
            Export(content=File(path))
        assert str(caught.value) == (f"cannot serve {path}: not a regular file or a block device")


def test_a_file_that_cannot_be_read_is_reported(odd, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    content = File(odd, seek_hole=True)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(ServeError) as caught:
        content.read(512, 4)
    assert str(caught.value) == f"cannot read {odd} at offset 512: Input/output error"
    content.close()


def test_holes_that_cannot_be_found_are_reported(odd, monkeypatch):
    true_seek = os.lseek

    def fail(descriptor, offset, whence):
        if whence == os.SEEK_DATA:
            raise OSError(errno.EIO, "Input/output error")
        return true_seek(descriptor, offset, whence)

    content = File(odd, seek_hole=True)
    monkeypatch.setattr(os, "lseek", fail)
    with pytest.raises(ServeError) as caught:
        list(content.segments(0, 1000))
    assert str(caught.value) == f"cannot find the holes of {odd}: Input/output error"
    content.close()


def test_a_short_read_of_the_operating_system_is_read_on(odd, monkeypatch):
    true_read = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, offset: true_read(fd, min(n, 300), offset))
    content = File(odd)
    assert content.read(0, 1024) == odd.read_bytes() + bytes(24)
    content.close()
