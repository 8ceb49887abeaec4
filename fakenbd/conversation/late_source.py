"""A source of correct replies that answers late, in any order, for tests.

For tests of what waits for replies. It is what a source behind a network looks like to its owner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from fakenbd.conversation.source import PENDING, Correct, Source
from fakenbd.export import Export
from fakenbd.faults.answer import Answer
from fakenbd.protocol.limits import Limits
from fakenbd.protocol.messages import OptionRequest, Request
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["Asked", "LateSource"]


@attrs.frozen
class Asked:
    """A message that waits for its reply: the arguments of `answer`."""

    token: tuple[int, int]
    message: OptionRequest | Request
    state: NegotiatedState
    effect: bool


@attrs.define(eq=False)
class LateSource:
    """Keeps messages until `reply` lets `inner` answer them; `late` selects those that wait."""

    inner: Source
    late: Callable[[OptionRequest | Request], bool] = lambda message: True
    asked: list[Asked] = attrs.field(factory=list)

    def limits(self, state: NegotiatedState, command: int) -> Limits | None:
        return None

    def direct(self, state: NegotiatedState) -> Export | None:
        return None

    def answer(
        self,
        token: tuple[int, int],
        message: OptionRequest | Request,
        state: NegotiatedState,
        *,
        effect: bool,
    ) -> Correct:
        if not self.late(message):
            return self.inner.answer(token, message, state, effect=effect)
        self.asked.append(Asked(token, message, state, effect))
        return PENDING

    def reply(self, place: int = 0) -> tuple[Any, Answer]:
        """The token of the waiting message at `place`, and its correct reply."""
        asked = self.asked.pop(place)
        answer = self.inner.answer(asked.token, asked.message, asked.state, effect=asked.effect)
        if answer is PENDING:
            raise ValueError("the inner source is late itself")
        return asked.token, answer
