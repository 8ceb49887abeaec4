"""A fault as an English sentence: when it strikes, then what the server does instead.

A kind without words of its own here is told by the first sentence of its documentation, and
parameters that the words do not speak of are listed behind them: nothing is left unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, IntFlag
from typing import Any, Final

import attrs

from fakenbd.faults import Fault, Kind, When
from fakenbd.faults.condition import ANY, Range
from fakenbd.faults.content import Content
from fakenbd.faults.event import EVENT_KINDS
from fakenbd.faults.fault import Change, kind_name
from fakenbd.faults.fields import Number
from fakenbd.faults.literal import Literal
from fakenbd.faults.registry import parameters
from fakenbd.profile.quantities import count, extents, listed, octets, ordinal
from fakenbd.protocol.constants import (
    Command,
    CommandFlag,
    Error,
    Option,
    Reply,
    flag_names,
    spec_name,
)
from fakenbd.protocol.messages import Raw

__all__ = ["fault_sentence"]


# --- when --------------------------------------------------------------------------------------


def _noun(fault: Fault) -> str:
    when = fault.when
    for kind, numbers in ((Option, when.option), (Command, when.command)):
        if numbers == ANY:
            return "option" if kind is Option else "command"
        if numbers is not None:
            names = [spec_name(kind, number) for number in sorted(numbers)]
            return listed(names, "or")
    kinds = [kind for kind in EVENT_KINDS if kind in fault.events]
    return listed(["connection" if kind == "connect" else kind for kind in kinds], "or")


def _span(value: int | Range) -> str:
    if isinstance(value, int):
        return octets(value)
    if value.stop is None:
        return f"{octets(value.start)} or more"
    return f"{octets(value.start)} to {octets(value.stop)}"


def _area(value: int | Range) -> str:
    if isinstance(value, int):
        return f"that starts at offset {value}"
    if value.stop is None:
        return f"that touches offset {value.start} or later"
    return f"that touches offsets {value.start} to {value.stop - 1}"


def _is(value: bool, words: str) -> str:
    return words if value else f"without {words.removeprefix('with ')}"


_DETAILS: Final[dict[str, Callable[[Any], str]]] = {
    "length": lambda value: f"of {_span(value)}",
    "offset": _area,
    "flags": lambda value: f"with {flag_names(CommandFlag, value).replace('|', ' and ')}",
    "without": lambda value: f"without {flag_names(CommandFlag, value).replace('|', ' and ')}",
    "connection": lambda value: f"on the {listed([ordinal(n) for n in sorted(value)])} connection",
    "tls": lambda value: _is(value, "with TLS"),
    "structured": lambda value: _is(value, "with structured replies"),
    "extended": lambda value: _is(value, "with extended headers"),
}


def _when(fault: Fault) -> str:
    when: When = fault.when
    noun = _noun(fault)
    if noun == "connection" and when.connection is not None:
        noun = f"{listed([ordinal(number) for number in sorted(when.connection)])} connection"
        words = [f"the {noun}"]
    elif when.nth is not None:
        words = [f"the {ordinal(when.nth)} {noun}"]
    elif when.every is not None and when.every > 1:
        words = [f"every {ordinal(when.every)} {noun}"]
    else:
        words = [f"{'the first' if when.times == 1 and not when.after else 'each'} {noun}"]
    if when.per == "connection":
        words.append("of each connection")
    for name, describe in _DETAILS.items():
        value = getattr(when, name)
        if value is not None and not (name == "connection" and noun.endswith(name)):
            words.append(describe(value))
    if when.after:
        words.append(f"after the first {when.after}" if when.after > 1 else "after the first")
    if when.times is not None and (when.times > 1 or when.after):
        words.append(f"({count(when.times, 'time')} at most)")
    if when.chance is not None:
        words.append(f"(with a probability of {when.chance * 100:g} %)")
    return " ".join(words)


# --- what --------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= 60 else f'"{text[:57]}..."'


def _messages(at: Any) -> str:
    if at is None:
        return "the answer"
    if at == "each":
        return "every message of the answer"
    if at in ("first", "last"):
        return f"the {at} message of the answer"
    if isinstance(at, int):
        if at < 0:
            return f"the {ordinal(-at)} message from the answer's end"
        return f"the {ordinal(at + 1)} message of the answer"
    return f"each {at} message"


_ENUMERATED: Final = {"error": Error, "option": Option}


def _setting(name: str, value: Any) -> str:
    if isinstance(value, Number):
        if name in _ENUMERATED and not (value.relative or value.swapped):
            return spec_name(_ENUMERATED[name], value.value)
        if value.swapped:
            return "its bytes in the other order"
        if value.relative:
            return f"{'+' if value.value >= 0 else ''}{value.value} of the honest value"
        return str(value.value) if abs(value.value) < 1 << 16 else f"{value.value:#x}"
    if isinstance(value, Content):
        if value.resize is None:
            return octets(len(value.data)) + " of its own"
        if not value.relative:
            return f"the honest bytes, cut or filled up to {octets(value.resize)}"
        many = octets(abs(value.resize))
        if value.resize < 0:
            return f"the honest bytes but for the last {many}"
        return f"the honest bytes with {many} more"
    return extents(value)


def _hyphened(name: str) -> str:
    return name.replace("_", "-")


def _set(kind: Any) -> str:
    fields = [
        f"{_hyphened(name)} to {_setting(name, value)}" for name, value in kind.fields.items()
    ]
    return f"sets {listed(fields)} in {_messages(kind.at)}"


def _said(message: Any) -> str:
    if isinstance(message, Literal):
        if not message.settings:
            return f"a message {_quoted(message.word)}"
        fields = [
            f"{_hyphened(name)} {_setting(name, value)}" for name, value in message.settings.items()
        ]
        return f"a message {_quoted(message.word)} with {listed(fields)}"
    if isinstance(message, Raw):
        return f"{octets(len(message.data))} of its own"
    return f"a {type(message).__name__}"


def _first_bytes(number: int, at: Any) -> str:
    if number < 0:
        return f"all but the last {octets(-number)} of {_messages(at)}"
    if number == 0:
        return f"nothing of {_messages(at)}"
    return f"{octets(number)} of {_messages(at)}"


_ENDINGS: Final = {
    "close": "closes the connection",
    "reset": "resets the connection",
    "half-close": "closes its sending half",
    "truncate": "drops the connection without TLS's goodbye",
    "stall": "falls silent",
    "answer": "answers",
}


def _named(kind: type[IntEnum] | type[IntFlag], value: int) -> str:
    return spec_name(kind, value)


def _with_text(words: str, text: str) -> str:
    return f"{words}, saying {_quoted(text)}" if text else words


def _insert(kind: Any) -> str:
    at = kind.before if kind.before is not None else "last" if kind.after is None else kind.after
    side = "after" if kind.before is None else "before"
    return f"inserts {_said(kind.message)} {side} {_messages(at)}"


def _error(kind: Any) -> str:
    words = _with_text(f"answers {_named(Error, kind.error)} instead", kind.message)
    return words if kind.offset is None else f"{words}, for offset {kind.offset}"


def _end(verb: str) -> Callable[[Any], str]:
    def words(kind: Any) -> str:
        order = "after the answer" if kind.after else "instead of answering"
        taken = (
            f", having taken {octets(kind.reading)} more of the client's" if kind.reading else ""
        )
        return f"{_ENDINGS[getattr(kind, 'how', verb)]} {order}{taken}"

    return words


def _split(kind: Any) -> str:
    size = kind.size
    if size == "holes":
        return f"sends the zero sectors of {_messages(kind.at)} as holes"
    pieces = "pieces of random length" if size == "random" else f"pieces of {octets(size)}"
    return f"sends {_messages(kind.at)} in {pieces}"


def _garble(kind: Any) -> str:
    if kind.byte is None:
        return f"changes {count(kind.count, 'byte')} of {_messages(kind.at)}, drawn by the seed"
    size = len(kind.xor if kind.overwrite is None else kind.overwrite)
    return f"changes {octets(size)} of {_messages(kind.at)}, from byte {kind.byte} on"


def _dribble(kind: Any) -> str:
    if isinstance(kind.size, int):
        words = f"sends {_messages(kind.at)} {octets(kind.size)} at a time"
    else:
        sizes = listed([str(size) for size in kind.size])
        words = f"sends {_messages(kind.at)} in writes of {sizes} bytes and the rest"
    return f"{words}, {kind.seconds:g} s apart" if kind.seconds else words


def _delay(kind: Any) -> str:
    least = f"{kind.seconds:g} s" if kind.seconds else "up"
    most = f" to {kind.seconds + kind.jitter:g} s" if kind.jitter else ""
    where = "first" if kind.at is None else f"before {_messages(kind.at)}"
    return f"lets {least}{most} pass {where}"


def _hold(kind: Any) -> str:
    idle = f"there was silence for {kind.idle:g} s"
    if kind.replies is not None:
        idle = f"{count(kind.replies, 'other answer')} went first, or {idle}"
    return f"keeps {_messages(kind.at)} back until {idle}"


def _away(kind: Any) -> str:
    many = (
        f"{kind.seconds:g} s"
        if kind.attempts is None
        else count(kind.attempts, "connection attempt")
    )
    return f"{_ENDINGS[kind.then]} and takes its listener away for {many}"


_CERTIFICATES: Final = {
    "expired": "a certificate that has expired",
    "wrong-host": "the certificate of another host",
    "untrusted": "a certificate that nobody trusted has signed",
    "self-signed": "a certificate that it has signed itself",
}
_UNENCRYPTED: Final = {
    "clear": "goes on in clear",
    "silence": "falls silent",
    "close": "closes the connection",
    "reset": "resets the connection",
}


def _abort(kind: Any) -> str:
    many = (
        f"after {octets(kind.after)} of its half of" if kind.after else "before it says a word in"
    )
    return f"agrees to TLS and drops the connection {many} the handshake"


def _repeat(kind: Any) -> str:
    many = "without end" if kind.times is None else count(kind.times, "time")
    apart = f", {kind.seconds:g} s apart" if kind.seconds else ""
    return f"says {_messages(kind.at)} again, {many}{apart}"


_WORDS: Final[Mapping[str, Callable[[Any], str]]] = {
    "error": _error,
    "refuse": lambda kind: _with_text(f"refuses with {_named(Reply, kind.reply)}", kind.message),
    "reply": lambda kind: (
        f"answers {listed([_said(each) for each in kind.messages]) or 'nothing'} instead"
    ),
    "extents": lambda kind: f"tells of {extents(kind.extents)} instead",
    "set": _set,
    "drop": lambda kind: f"leaves out {_messages(kind.at)}",
    "repeat": _repeat,
    "insert": _insert,
    "split": _split,
    "shuffle": lambda kind: f"shuffles {_messages(kind.at)}",
    "reverse": lambda kind: f"reverses the order of {_messages(kind.at)}",
    "cut": lambda kind: f"sends {_first_bytes(kind.after, kind.at)}, then {_ENDINGS[kind.then]}",
    "garble": _garble,
    "dribble": _dribble,
    "delay": _delay,
    "hold": _hold,
    "stall": lambda kind: f"sends {_first_bytes(kind.byte, kind.at)} and falls silent",
    "rate": lambda kind: f"sends {octets(kind.rate)} a second",
    "refuse-connection": lambda _: "resets it at once",
    "mute": lambda _: "never greets",
    "close": _end("close"),
    "reset": _end("reset"),
    "stop-reading": lambda _: "reads nothing more from the client",
    "shutdown": lambda _: "shuts down: this request and all that follow fail",
    "away": _away,
    "certificate": lambda kind: f"shows {_CERTIFICATES[kind.certificate]}",
    "plaintext-after-ack": lambda kind: (
        f"says {_said(kind.message)} in clear right behind the ack, before the handshake"
    ),
    "no-handshake": lambda kind: f"agrees to TLS and {_UNENCRYPTED[kind.instead]} instead",
    "tls-version": lambda kind: f"speaks TLS {kind.version} only",
    "keep-state": lambda _: "forgets nothing of what was agreed before TLS",
    "abort-handshake": _abort,
    "no-close-notify": lambda _: "ends the connection without TLS's goodbye",
}


@attrs.define(eq=False)
class _Heard:
    """A kind that remembers which of its parameters were looked at."""

    _kind: Kind
    looked_at: set[str] = attrs.field(factory=set)

    def __getattr__(self, name: str) -> Any:
        self.looked_at.add(name)
        return getattr(self._kind, name)


def _documented(kind: Any) -> str:
    first = " ".join(kind.__doc__.split()).partition(". ")[0].rstrip(".")
    return f"does this: {first[0].lower()}{first[1:]}"


def _change(change: Change) -> str:
    if not isinstance(change, Kind):
        return f"does what the function {kind_name(change)} says"
    if change.slug not in _WORDS:
        words, looked_at = _documented(change), set[str]()
    else:
        heard = _Heard(change)
        words, looked_at = _WORDS[change.slug](heard), heard.looked_at
    unsaid = [
        f"{_hyphened(name)} = {getattr(change, name)}"
        for name, field in parameters(type(change)).items()
        if name not in looked_at and getattr(change, name) != field.default
    ]
    return f"{words} ({listed(unsaid)})" if unsaid else words


def fault_sentence(fault: Fault) -> str:
    """What a fault does and when: "On the 2nd NBD_CMD_READ it answers NBD_EIO instead."."""
    what = listed([_change(change) for change in fault.do])
    also = ", and other faults may strike too" if fault.also else ""
    return f"On {_when(fault)} it {what}{also}."
