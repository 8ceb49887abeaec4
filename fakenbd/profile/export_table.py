"""Reads export tables, from TOML or from Python, into specifications.

The keys are those of the profile's [export]. Python may also give what TOML cannot write: a
content object, bytes, a function; a BlockSize; extents from a table or a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import attrs

from fakenbd.export import BlockSize, ExtentList, Hex, Policy, Repeated, parse_extent
from fakenbd.export.export import ExtentSpec
from fakenbd.faults.readers import (
    TableError,
    boolean,
    integer,
    one_of,
    positive,
    shown,
    text,
    unknown,
)
from fakenbd.profile.export_spec import ContentKind, ContentSpec, ExportSpec
from fakenbd.profile.table_reader import Reader, list_of, nested, number, read_table, size
from fakenbd.protocol.constants import MAXIMUM_STRING, TransmissionFlag, slug
from fakenbd.protocol.constants import number as flag_value
from fakenbd.protocol.messages import Extent

__all__ = ["read_export", "utf8"]

_CONTENTS: Final = "pattern", "zeros"
_CONTENT_TABLES: Final = "text", "hex", "file", "random"


def utf8(value: Any) -> str:
    """A text that fits in a string of the protocol."""
    result = text(value)
    if len(result.encode()) > MAXIMUM_STRING:
        raise ValueError(
            f"expected at most {MAXIMUM_STRING} bytes of UTF-8, got {len(result.encode())}"
        )
    return result


# --- content -----------------------------------------------------------------------------------


def _content(value: Any, folder: Path | None) -> ContentSpec:
    if isinstance(value, str):
        return ContentSpec("zeros" if one_of(value, _CONTENTS) == "zeros" else "pattern")
    if isinstance(value, Mapping):
        return _content_table(value, folder)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return ContentSpec("bytes", bytes(value))
    if hasattr(value, "segments") and hasattr(value, "read"):
        return ContentSpec("content", value)
    if callable(value):
        return ContentSpec("function", value)
    raise ValueError(
        'expected "pattern", "zeros", or a table with one of text, hex, file and random, '
        f"got {shown(value)}"
    )


def _content_table(value: Mapping[str, Any], folder: Path | None) -> ContentSpec:
    readers: dict[str, Reader] = {
        "text": text,
        "hex": _hex_digits,
        "file": partial(_file, folder=folder),
        "random": _seed,
    }
    read = read_table(value, readers)
    if len(read) != 1:
        given = " and ".join(read) or "an empty table"
        raise ValueError(f"expected one of text, hex, file and random, got {given}")
    ((kind, item),) = read.items()
    return ContentSpec(cast(ContentKind, kind), item)


def _hex_digits(value: Any) -> str:
    Hex(text(value))
    return str(value)


def _file(value: Any, folder: Path | None) -> str:
    if isinstance(value, Path):
        value = str(value)
    if not text(value):
        raise ValueError('expected the path of a file, got ""')
    return str((folder or Path()) / value)


def _seed(value: Any) -> int | str:
    return value if isinstance(value, str) else integer(value)


# --- sizes and flags ---------------------------------------------------------------------------

_BLOCK_SIZES: Final[Mapping[str, Reader]] = {
    name: size(32) for name in ("minimum", "preferred", "maximum")
}


def _block_size(value: Any) -> BlockSize | None:
    if value is False:
        return None
    if isinstance(value, BlockSize):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(
            "expected a table with minimum, preferred and maximum, or false to advertise none, "
            f"got {shown(value)}"
        )
    given = read_table(value, _BLOCK_SIZES)
    # Values left out follow those given, so that naming one of them is not a breach by itself.
    default = BlockSize()
    minimum = given.get("minimum", default.minimum)
    preferred = given.get("preferred", max(default.preferred, minimum))
    return BlockSize(minimum, preferred, given.get("maximum", max(default.maximum, preferred)))


def _flag(value: Any) -> int:
    if isinstance(value, str):
        try:
            return flag_value(TransmissionFlag, value)
        except ValueError:
            known = [
                slug(TransmissionFlag, flag).removeprefix("send-") for flag in TransmissionFlag
            ]
            raise ValueError(unknown("flag", value, known)) from None
    return number(16)(value)


_flags_listed: Final = list_of(_flag)


def _flags(value: Any) -> int:
    """An integer is all of the flags; a list names what is offered, and implies HAS_FLAGS."""
    if isinstance(value, int):
        return number(16)(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError(
            f"expected a list of flags, or all of them as a number, got {shown(value)}"
        )
    result = int(TransmissionFlag.HAS_FLAGS)
    for flag in _flags_listed(value):
        result |= flag
    return result


# --- contexts ----------------------------------------------------------------------------------


def _extent(value: Any) -> Extent:
    if isinstance(value, str):
        return parse_extent(value)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        length, flags = value
        return Extent(number(64)(length), number(64)(flags))
    raise ValueError(
        f'expected an extent such as "1000 data" or "24 hole,zero", got {shown(value)}'
    )


_extents: Final = list_of(_extent)


def _repeated(value: Any) -> Repeated:
    return Repeated(list(_extents(value)))


def _true(value: Any) -> bool:
    if value is not True:
        raise ValueError(f"expected true, or to be left out, got {shown(value)}")
    return True


_POLICY: Final[Mapping[str, Reader]] = {
    "one-extent": boolean,
    "split": size(64),
    "overrun": boolean,
    "merge": boolean,
}


def _policy(value: Any) -> dict[str, Any]:
    given = read_table(value, _POLICY)
    if given.get("split") == 0:
        raise TableError(["split: expected a size from 1, got 0"])
    return {key.replace("-", "_"): item for key, item in given.items()}


_CONTEXT: Final[Mapping[str, Reader]] = {
    "extents": _extents,
    "repeat": _repeated,
    "seek-hole": _true,
    "policy": _policy,
}
_SOURCES: Final = "extents", "repeat", "seek-hole"


@attrs.frozen
class _Context:
    source: ExtentSpec
    seek_hole: bool = False


def _context(value: Any) -> _Context:
    if value is None or callable(value) or hasattr(value, "block_status"):
        return _Context(value)
    if isinstance(value, (list, tuple)):
        return _Context(_extents(value))
    if not isinstance(value, Mapping):
        raise ValueError(
            'expected a list of extents such as ["1000 data", "24 hole,zero"], or a table with '
            f"extents, repeat, seek-hole or policy, got {shown(value)}"
        )
    given = read_table(value, _CONTEXT)
    sources = [key for key in _SOURCES if key in given]
    if len(sources) > 1:
        raise ValueError(f"expected one of {', '.join(_SOURCES)}, got {' and '.join(sources)}")
    source: ExtentSpec = given.get("repeat", given.get("extents"))
    if "policy" in given:
        source = Policy(_as_extent_source(source), **given["policy"])
    return _Context(source, seek_hole="seek-hole" in given)


def _as_extent_source(source: ExtentSpec) -> Any:
    return ExtentList(list(source)) if isinstance(source, tuple) else source


def _contexts(value: Any) -> dict[str, _Context]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table of contexts by name, got {shown(value)}")
    result, mistakes = {}, []
    for name, item in value.items():
        place = f'"{name}"'
        try:
            utf8(name)
            result[name] = _context(item)
        except ValueError as error:
            mistakes += nested(place, error)
    if mistakes:
        raise TableError(mistakes)
    return result


# --- the export --------------------------------------------------------------------------------

_EXPORT: Final[Mapping[str, Reader]] = {
    "name": utf8,
    "size": size(64),
    "round-size-to": positive,
    "block-size": _block_size,
    "flags": _flags,
    "description": utf8,
    "canonical-name": utf8,
    "contexts": _contexts,
    "any-alignment": boolean,
    "tls-only": boolean,
}


def read_export(value: Any, folder: Path | None = None) -> ExportSpec:
    """The specification of one export. Raises TableError with every mistake, under its key path."""
    readers: dict[str, Reader] = {**_EXPORT, "content": partial(_content, folder=folder)}
    given = read_table(value, readers)
    mistakes = []
    contexts: dict[str, _Context] = given.pop("contexts", None)
    content: ContentSpec = given.get("content", ContentSpec())
    if contexts is not None:
        for name, context in contexts.items():
            if context.seek_hole and content.kind != "file":
                mistakes.append(
                    f'contexts."{name}".seek-hole: expected content = {{ file = … }} beside it, '
                    f"got {_described(content)}"
                )
            elif context.seek_hole:
                given["content"] = attrs.evolve(content, seek_hole=True)
        given["contexts"] = {name: context.source for name, context in contexts.items()}
    # Of a size that is not given yet only the last step matters.
    rounded = given.get("size", 1)
    rounded += -rounded % given.get("round-size-to", 1)
    if rounded >= 1 << 64:
        mistakes.append(
            f"round-size-to: expected a rounded size of at most 2^64 - 1 bytes, got {rounded}"
        )
    if mistakes:
        raise TableError(mistakes)
    return ExportSpec(**{key.replace("-", "_"): item for key, item in given.items()})


def _described(content: ContentSpec) -> str:
    return f'"{content.kind}"' if content.value is None else f"{{ {content.kind} = … }}"
