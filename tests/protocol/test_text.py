"""Words of a server, made visible."""

from __future__ import annotations

import pytest

from fakenbd.protocol.text import escaped, quoted

TEXTS = {
    "plain": ("disk image.raw", "disk image.raw"),
    "not ASCII": ("Größe 大小", "Größe 大小"),
    "terminal escape": ("\x1b[31mred", "\\x1b[31mred"),
    "line breaks": ("a\r\nb\tc", "a\\r\\nb\\tc"),
    "NUL": ("a\0b", "a\\x00b"),
    "not UTF-8": (b"\xff\xfe".decode("utf-8", "surrogateescape"), "\\xff\\xfe"),
    "right to left override": ("\u202egnp", "\\u202egnp"),
    "beyond the basic plane": ("\U000e0001", "\\U000e0001"),
    "long": ("x" * 5000, "x" * 256 + "…"),
}


@pytest.mark.parametrize(("text", "shown"), TEXTS.values(), ids=TEXTS)
def test_visible(text, shown):
    assert escaped(text) == shown
    assert quoted(text) == f'"{shown}"'
