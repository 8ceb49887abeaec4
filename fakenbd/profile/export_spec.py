"""The specification of an export, from which each server builds its own.

A profile outlives the servers that use it, and what a client writes belongs to one server only. So
a profile holds specifications, and each server builds exports from them, with overlays of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from fakenbd.export import (
    BlockSize,
    BytesContent,
    Content,
    Export,
    File,
    FunctionContent,
    Hex,
    Pattern,
    RandomBytes,
    Text,
    Zeros,
)
from fakenbd.export.export import ExtentSpec

__all__ = ["ContentKind", "ContentSpec", "ExportSpec"]

ContentKind: TypeAlias = Literal[
    "pattern", "zeros", "text", "hex", "file", "random", "bytes", "function", "content"
]

_BUILDERS: Final[dict[str, Callable[[Any], Content]]] = {
    "pattern": lambda _: Pattern(),
    "zeros": lambda _: Zeros(),
    "text": Text,
    "hex": Hex,
    "random": RandomBytes,
    "bytes": BytesContent,
    "function": FunctionContent,
    "content": lambda content: content,
}


@attrs.frozen
class ContentSpec:
    """The specification of a content.

    `value` is the text, the hexadecimal digits, the seed, the path, the bytes, the function
    `(offset, length) -> bytes`, or a content that is used as it is. `seek_hole` is for files.
    """

    kind: ContentKind = "pattern"
    value: Any = None
    seek_hole: bool = False

    def build(self) -> Content:
        """The content; each call makes a new one, but for the kind "content"."""
        if self.kind == "file":
            return File(Path(self.value), seek_hole=self.seek_hole)
        return _BUILDERS[self.kind](self.value)


def _true_allocation() -> Mapping[str, ExtentSpec]:
    return {"base:allocation": None}


@attrs.frozen
class ExportSpec:
    """The specification of an export; the fields are those of `Export`."""

    name: str = ""
    size: int | None = None
    content: ContentSpec = attrs.field(factory=ContentSpec)
    round_size_to: int | None = None
    block_size: BlockSize | None = attrs.field(factory=BlockSize)
    flags: int | None = None
    description: str = ""
    canonical_name: str | None = None
    contexts: Mapping[str, ExtentSpec] = attrs.field(factory=_true_allocation)
    any_alignment: bool = False
    tls_only: bool = False

    def build(self) -> Export:
        """A new export, without writes. Raises ServeError for a file that is gone."""
        return Export(
            self.name,
            size=self.size,
            content=self.content.build(),
            round_size_to=self.round_size_to,
            block_size=self.block_size,
            flags=self.flags,
            description=self.description,
            canonical_name=self.canonical_name,
            contexts=self.contexts,
            any_alignment=self.any_alignment,
            tls_only=self.tls_only,
        )
