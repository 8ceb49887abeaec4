"""What a client leaves behind, compared with what it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from fakenbd.check.oracle import GroundTruth
from fakenbd.check.result_checks import Job, mismatch
from fakenbd.export import BlockSize, Export

SIZE = 4096
CONTENT = bytes(Export(size=SIZE).read(0, SIZE))


def job(tmp_path: Path, **options: Any) -> Job:
    export = Export(size=SIZE, **options)
    return Job(GroundTruth(export), 0, SIZE, tmp_path / "input", tmp_path / "output")


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("left", "sentence"),
    [
        (CONTENT, ""),
        (CONTENT[:-1], "its output has 4095 bytes, not 4096"),
        (CONTENT + b"x", "its output has 4097 bytes, not 4096"),
        (b"", "its output has 0 bytes, not 4096"),
        (None, "it left no output"),
        (
            flipped(CONTENT, 7),
            f"in its output, byte 7 is {CONTENT[7] ^ 0xFF:#04x}, not {CONTENT[7]:#04x}",
        ),
    ],
)
def test_a_file(tmp_path: Path, left: bytes | None, sentence: str) -> None:
    if left is not None:
        (tmp_path / "output").write_bytes(left)
    assert mismatch("file", job(tmp_path), "") == sentence


def test_a_last_block_that_nobody_may_ask_for_may_be_missing(tmp_path: Path) -> None:
    task = job(tmp_path, block_size=BlockSize(3000, 3000, 6000))
    (tmp_path / "output").write_bytes(CONTENT[:3000])
    assert mismatch("file", task, "") == ""


@pytest.mark.parametrize(("size", "sentence"), [(512, ""), (513, "its output has 513 bytes, ")])
def test_a_size_that_the_server_misstated_is_not_the_clients_fault(
    tmp_path: Path, size: int, sentence: str
) -> None:
    task = attrs.evolve(job(tmp_path), advertised=frozenset((512,)))
    (tmp_path / "output").write_bytes(CONTENT[:size])
    found = mismatch("file", task, "")
    assert found.startswith(sentence)
    assert bool(found) == bool(sentence)


def test_an_empty_export_may_be_one_empty_row(tmp_path: Path) -> None:
    export = Export(size=0)
    task = Job(GroundTruth(export), 0, 0, tmp_path / "input", tmp_path / "output")
    assert mismatch("nbdinfo-map", task, nbdinfo([(0, 0, 0)])) == ""
    assert mismatch("nbdinfo-map", task, "[]") == ""


def test_data_that_nobody_could_know_to_be_wrong_is_not_compared(tmp_path: Path) -> None:
    task = job(tmp_path)
    (tmp_path / "output").write_bytes(flipped(CONTENT, 7))
    task = attrs.evolve(task, ground_truth=attrs.evolve(task.ground_truth, data=False))
    assert mismatch("file", task, "") == ""


def test_an_input_must_have_arrived(tmp_path: Path) -> None:
    task = job(tmp_path)
    (tmp_path / "input").write_bytes(b"a" * SIZE)
    first = f"in the export, byte 0 is {CONTENT[0]:#04x}, not 0x61"
    assert mismatch("input", task, "") == first
    task.ground_truth.export.write(0, b"a" * SIZE)
    assert mismatch("input", task, "") == ""
    task.ground_truth.export.write(4095, b"b")
    assert mismatch("input", task, "") == "in the export, byte 4095 is 0x62, not 0x61"


def test_zeros_must_be_zeros(tmp_path: Path) -> None:
    task = attrs.evolve(job(tmp_path), length=1024)
    task.ground_truth.export.zero(0, 1024, hole=False)
    assert mismatch("zeros", task, "") == ""
    task.ground_truth.export.write(1023, b"\1")
    assert mismatch("zeros", task, "") == "in the export, byte 1023 is 0x01, not 0x00"


def test_a_trimmed_range_may_be_anything_but_new(tmp_path: Path) -> None:
    task = attrs.evolve(job(tmp_path), before=CONTENT)
    task.ground_truth.export.trim(0, 512)
    assert mismatch("trim", task, "") == ""
    task.ground_truth.export.write(600, bytes([CONTENT[600] ^ 0x55 or 1]))
    assert mismatch("trim", task, "") == (
        "in the export, byte 600 is neither trimmed nor as it was"
    )


def test_a_status_says_it_all(tmp_path: Path) -> None:
    assert mismatch("status", job(tmp_path), "whatever") == ""


SCRIPT = {"base:allocation": ["1024 data", "3072 hole,zero"]}
HALVES = [(0, 1024, 0), (1024, 3072, 3)]


def qemu(rows: list[tuple[int, int, int]]) -> str:
    return json.dumps(
        [
            {"start": start, "length": size, "data": not flags & 1, "zero": bool(flags & 2)}
            for start, size, flags in rows
        ]
    )


def nbdinfo(rows: list[tuple[int, int, int]]) -> str:
    return json.dumps(
        [{"offset": start, "length": size, "type": flags} for start, size, flags in rows]
    )


@pytest.mark.parametrize(("check", "written"), [("qemu-map", qemu), ("nbdinfo-map", nbdinfo)])
@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (HALVES, ""),
        ([(0, 1024, 0), (1024, 1024, 3), (2048, 2048, 3)], ""),
        ([(0, 4096, 0)], ""),
        ([(0, 4096, 3)], "the map has flags 0x3 for 0+1024, not 0x0"),
        ([(0, 1024, 0), (2048, 2048, 3)], "its map goes on at 2048, where 1024 was next"),
        ([(0, 1024, 0), (512, 3584, 3)], "its map goes on at 512, where 1024 was next"),
        ([(0, 1024, 0)], "its map is of 1024 bytes, not 4096"),
        ([(0, 1024, 0), (1024, 0, 0), (1024, 3072, 3)], "its map has 0 bytes at 1024"),
        ([(0, 1024, 0), (1024, 4096, 3)], "its map is of 5120 bytes, not 4096"),
        ([], "its map is of 0 bytes, not 4096"),
    ],
)
def test_a_map(
    tmp_path: Path,
    check: Any,
    written: Any,
    rows: list[tuple[int, int, int]],
    sentence: str,
) -> None:
    assert mismatch(check, job(tmp_path, contexts=SCRIPT), written(rows)) == sentence


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "",
            "it wrote no map that can be read "
            "(JSONDecodeError: Expecting value: line 1 column 1 (char 0))",
        ),
        ("[{}]", "it wrote no map that can be read (KeyError: 'offset')"),
        ("[7]", "it wrote no map that can be read (TypeError: 'int' object is not subscriptable)"),
    ],
)
def test_what_is_no_map(tmp_path: Path, output: str, sentence: str) -> None:
    assert mismatch("nbdinfo-map", job(tmp_path), output) == sentence
