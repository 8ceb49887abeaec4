"""Naming messages of an answer: by place ("first", -1) or by type ("data", "info-export").

Messages are the steps that carry bytes of the protocol; pauses, endings and the like are never
selected, and of lazy steps only the messages that `materialised` makes of them.
One table gives each type its word, its test, and its name in sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from fakenbd.faults.answer import Answer, RepeatMessages, SendPieces, Step
from fakenbd.faults.pieces import MAXIMUM_PIECES
from fakenbd.faults.readers import integer, shown
from fakenbd.protocol import messages
from fakenbd.protocol.constants import Info
from fakenbd.protocol.messages import ServerMessage

__all__ = [
    "SELECTORS",
    "Selector",
    "is_message",
    "materialised",
    "noun",
    "selected",
    "selector",
]

Selector: TypeAlias = str | int

_MESSAGES: Final = (
    messages.SimpleReply,
    messages.Chunk,
    messages.OptionReply,
    messages.Greeting,
    messages.OldstyleGreeting,
    messages.ExportNameReply,
    messages.Raw,
)


def is_message(step: Step) -> bool:
    """Whether a step is a message of the server (or bytes in place of one)."""
    return isinstance(step, _MESSAGES)


def materialised(answer: Answer) -> Answer:
    """The answer with its lazy steps as the messages that they stand for.

    What repeats for ever, with pauses, or as more than 65536 messages, stays one step.
    """
    if not any(isinstance(step, (RepeatMessages, SendPieces)) for step in answer):
        return answer
    steps: Answer = []
    for step in answer:
        if isinstance(step, SendPieces) or (
            isinstance(step, RepeatMessages)
            and step.times is not None
            and not step.seconds
            and step.times * len(step.one_round) <= MAXIMUM_PIECES
        ):
            steps += step.messages()
        else:
            steps.append(step)
    return steps


def _is(kind: type | tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda message: isinstance(message, kind)


def _has(*bodies: type) -> Callable[[Any], bool]:
    return lambda message: isinstance(getattr(message, "body", None), bodies)


def _informs(info: int) -> Callable[[Any], bool]:
    def informs(message: Any) -> bool:
        body = getattr(message, "body", None)
        return isinstance(body, messages.InfoText) and body.info == info

    return informs


# Word, test, and noun; a message's own name is the first row that fits.
_TYPES: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("data", _has(messages.Data), "data chunk"),
    ("hole", _has(messages.Hole), "hole chunk"),
    ("none", _has(messages.NoneChunk), "none chunk"),
    ("status", _has(messages.Status), "status chunk"),
    ("simple", _is(messages.SimpleReply), "simple reply"),
    ("ack", _has(messages.Ack), "ack"),
    ("server", _has(messages.Server), "server reply"),
    ("info-export", _has(messages.InfoExport), "info-export reply"),
    ("info-name", _informs(Info.NAME), "info-name reply"),
    ("info-description", _informs(Info.DESCRIPTION), "info-description reply"),
    ("info-block-size", _has(messages.InfoBlockSize), "info-block-size reply"),
    (
        "info",
        _has(messages.InfoExport, messages.InfoText, messages.InfoBlockSize),
        "info reply",
    ),
    ("meta-context", _has(messages.MetaContext), "meta-context reply"),
    ("refusal", _has(messages.ErrorReply), "refusal"),
    ("error", _has(messages.ErrorChunk, messages.ErrorReply), "error chunk"),
    ("greeting", _is((messages.Greeting, messages.OldstyleGreeting)), "greeting"),
    ("export-name", _is(messages.ExportNameReply), "export-name reply"),
    ("chunk", _is(messages.Chunk), "chunk"),
    ("option-reply", _is(messages.OptionReply), "option reply"),
    ("raw", _is(messages.Raw), "raw bytes"),
)
_TESTS: Final = {word: test for word, test, _ in _TYPES}

SELECTORS: Final = ("first", "last", "each", *_TESTS)


def selector(value: Any) -> Selector:
    """Read a selector: "first", "last", "each", an index (from the end if negative) or a type."""
    if isinstance(value, str):
        if value not in SELECTORS:
            raise ValueError(
                f"expected an index or one of {', '.join(SELECTORS)}, got {shown(value)}"
            )
        return value
    return integer(value)


def optional_selector(value: Any) -> Selector | None:
    """A selector, or None for the whole answer."""
    return None if value is None else selector(value)


def selected(answer: Answer, at: Selector) -> list[int]:
    """The positions in `answer` of the messages that `at` names, in order."""
    places = [place for place, step in enumerate(answer) if is_message(step)]
    if at == "each":
        return places
    if at == "first":
        return places[:1]
    if at == "last":
        return places[-1:]
    if isinstance(at, int):
        return [places[at]] if -len(places) <= at < len(places) else []
    test = _TESTS[at]
    return [place for place in places if test(answer[place])]


def noun(message: ServerMessage) -> str:
    """What a message is called in a sentence: "data chunk", "simple reply"."""
    return next(name for _, test, name in _TYPES if test(message))
