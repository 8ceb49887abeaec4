"""The client's rules on the data of one option: lengths, strings, queries.

These rules need nothing but the option itself; those that depend on earlier messages are in
negotiation_rules.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final

from fakenbd.obligations.finding import Level, Violation
from fakenbd.protocol.constants import MAXIMUM_STRING, Info, Option, spec_name
from fakenbd.protocol.messages import ExportName, InfoQuery, MetaContextQuery, OptionRequest

__all__ = ["asks_block_size", "data_violations", "export_name", "option_name"]

_LONGEST_RECOMMENDED: Final = 256

_IN_USE: Final = frozenset(Option) - {Option.PEEK_EXPORT}
# Options that carry no data, and the rule that requires it.
_EMPTY: Final[dict[int, str]] = {
    Option.LIST: "C-20",
    Option.STRUCTURED_REPLY: "C-21",
    Option.STARTTLS: "C-22",
    Option.ABORT: "C-23",
    Option.EXTENDED_HEADERS: "C-24",
}

_QUERIES: Final = (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT)


def option_name(option: int) -> str:
    return spec_name(Option, option)


def export_name(request: OptionRequest) -> str | None:
    """The export that the option names, or None where its data does not decode."""
    body = request.body
    if isinstance(body, ExportName | InfoQuery | MetaContextQuery):
        return body.name
    return None


def asks_block_size(request: OptionRequest) -> bool:
    body = request.body
    return isinstance(body, InfoQuery) and Info.BLOCK_SIZE in body.infos


def data_violations(request: OptionRequest) -> Iterator[Violation]:
    """The rules that the data of an option break, regardless of earlier messages."""
    option, body = request.option, request.body
    name = option_name(option)
    if option not in _IN_USE:  # C-17
        yield Violation("C-17", f"{name} is not an option that NBD uses")
    elif isinstance(body, InfoQuery):
        yield from _string("the export name", body.name, name)
        yield from _infos(body, name)
    elif isinstance(body, MetaContextQuery):
        yield from _string("the export name", body.name, name)
        for query in body.queries:
            yield from _string("a query", query, name)
            yield from _query(query, option)
    elif isinstance(body, ExportName):
        yield from _string("the export name", body.name, name)
    else:
        yield from _raw(option, bytes(body.data), request.length)


def _string(what: str, text: str, option: str) -> Iterator[Violation]:
    length = len(text.encode("utf-8", "surrogateescape"))
    if length > MAXIMUM_STRING:  # C-12
        yield Violation("C-12", f"{what} in {option} has {length} bytes; it may have 4096")
    elif length > _LONGEST_RECOMMENDED:  # C-15
        yield Violation(
            "C-15", f"{what} in {option} has {length} bytes; it should have 256 at most"
        )
    if "\0" in text:  # C-13
        yield Violation("C-13", f"{what} in {option} holds a NUL byte: {text!r}")
    if any("\udc80" <= letter <= "\udcff" for letter in text):  # C-14
        yield Violation("C-14", f"{what} in {option} is not UTF-8: {text!r}")


def _infos(body: InfoQuery, option: str) -> Iterator[Violation]:
    twice = sorted(info for info, count in Counter(body.infos).items() if count > 1)
    if twice:  # C-26
        names = ", ".join(spec_name(Info, info) for info in twice)
        yield Violation("C-26", f"{option} asks more than once for {names}")


def _query(query: str, option: int) -> Iterator[Violation]:
    namespace, colon, leaf = query.partition(":")
    name = option_name(option)
    if not colon or not namespace:  # C-38
        yield Violation("C-38", f"{name} has the query {query!r}, which names no namespace")
        return
    if not all(letter.isprintable() and not letter.isspace() for letter in namespace):  # C-39
        yield Violation("C-39", f"{name} has the query {query!r}, whose namespace is not printable")
    elif namespace not in ("base", "nbd-server", "qemu") and not (
        namespace.startswith("x-") and len(namespace) > 2
    ):  # C-39
        # The registry may have grown since.
        yield Violation(
            "C-39", f"{name} has the query {query!r}, whose namespace is not known", "advisory"
        )
    if not leaf and option == Option.SET_META_CONTEXT:  # C-41
        yield Violation(
            "C-41", f"{name} has the query {query!r}, a wildcard that selects nothing there"
        )


def _raw(option: int, data: bytes, stated: int | None) -> Iterator[Violation]:
    """Data that did not fit its option, or of an option without data.

    `stated` is the length in the header, where the data were too long to be kept.
    """
    length = len(data) if stated is None else stated
    name = option_name(option)
    if length > len(data) and option not in _EMPTY:  # C-12
        # Many queries may be that long; one name, or a list of 2^16 info types, cannot.
        level: Level = "advisory" if option in _QUERIES else "MUST"
        yield Violation("C-12", f"{name} announces {length} bytes of data", level)
    elif option in _EMPTY:
        if length:  # C-20 to C-24
            yield Violation(_EMPTY[option], f"{name} has data of length {length}; it may have none")
    elif option in (Option.INFO, Option.GO):
        yield _broken_info(data, name)
    elif option in _QUERIES:
        yield _broken_meta_context(data, name)
    elif option == Option.EXPORT_NAME:
        yield from _string("the export name", data.decode("utf-8", "surrogateescape"), name)


def _broken_info(data: bytes, option: str) -> Violation:
    name_length = int.from_bytes(data[:4], "big")
    if len(data) >= 6 and name_length > len(data) - 6:  # C-25
        return Violation(
            "C-25",
            f"{option} has {len(data)} bytes of data and claims an export name "
            f"of {name_length} bytes",
        )
    return Violation("C-08", f"{option} has {len(data)} bytes of malformed data")  # C-08


def _broken_meta_context(data: bytes, option: str) -> Violation:
    broken = Violation("C-08", f"{option} has {len(data)} bytes of malformed data")
    if len(data) < 8:
        return broken
    (name_length,) = struct.unpack_from(">I", data)
    at = 4 + name_length
    if at + 4 > len(data):
        return broken
    (count,) = struct.unpack_from(">I", data, at)
    at += 4
    for _ in range(count):
        length = int.from_bytes(data[at : at + 4], "big")
        at += 4 + length
        if at > len(data):  # C-40
            return Violation("C-40", f"{option} has a query that runs past the option's data")
    return broken
