"""Sources of correct replies: the exports of this server, or another server behind it.

A source decides what is acceptable and what the correct reply is. It answers at once, with the
whole reply, or returns PENDING and has its owner call `answered` on the connection later. A request
within its `limits` has one successful reply, which the fast path makes without asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal, Protocol, TypeAlias

import attrs

from fakenbd.conversation.export_commands import answer_command, command_limits
from fakenbd.conversation.export_options import Catalogue, answer_option
from fakenbd.export import Export
from fakenbd.faults.answer import Answer
from fakenbd.protocol.limits import Limits
from fakenbd.protocol.messages import OptionRequest, Request
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["PENDING", "Correct", "ExportSource", "Source"]


class _Pending(Enum):
    PENDING = "pending"


PENDING: Final = _Pending.PENDING
"""The reply comes later."""

Correct: TypeAlias = Answer | Literal[_Pending.PENDING]


class Source(Protocol):
    """A source of correct replies."""

    def limits(self, state: NegotiatedState, command: int) -> Limits | None:
        """The bounds of plain READs or WRITEs that succeed; None if there are none."""

    def direct(self, state: NegotiatedState) -> Export | None:
        """The export that requests within the limits read from and write to, if it is local."""

    def answer(
        self,
        token: tuple[int, int],
        message: OptionRequest | Request,
        state: NegotiatedState,
        *,
        effect: bool,
    ) -> Correct:
        """The correct reply, or PENDING.

        `token` (connection, journal index) identifies the message in the later call of `answered`.
        Without `effect` nothing may be changed or forwarded.
        """


@attrs.define(eq=False)
class ExportSource:
    """Answers from exports, at once."""

    catalogue: Catalogue

    @property
    def exports(self) -> Mapping[str, Export]:
        """The exports by name."""
        return self.catalogue.exports

    def limits(self, state: NegotiatedState, command: int) -> Limits | None:
        export = self.catalogue.find(state.export)
        return None if export is None else command_limits(export, state, command)

    def direct(self, state: NegotiatedState) -> Export | None:
        return self.catalogue.find(state.export)

    def answer(
        self,
        token: tuple[int, int],
        message: OptionRequest | Request,
        state: NegotiatedState,
        *,
        effect: bool,
    ) -> Correct:
        if isinstance(message, OptionRequest):
            return answer_option(self.catalogue, state, message)
        export = self.catalogue.find(state.export)
        assert export is not None, "requests come after an export was opened"
        return answer_command(export, state, message, effect=effect)
