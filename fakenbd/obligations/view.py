"""The state of one connection: what its client was shown, what is unanswered, what is certain.

Both directions write here: client messages set what is unanswered, server messages what was shown.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs

from fakenbd.obligations.in_flight import MOST_IN_FLIGHT, RequestTable
from fakenbd.obligations.negotiation_rules import Negotiation
from fakenbd.obligations.reply_progress import ReplyProgress
from fakenbd.obligations.request_rules import SECTOR
from fakenbd.obligations.shown import Phase, ShownState
from fakenbd.protocol.constants import MAXIMUM_PAYLOAD, Command, TransmissionFlag
from fakenbd.protocol.limits import Limits
from fakenbd.protocol.messages import Request

__all__ = ["ConnectionView"]

# Plain integers: members of an enumeration take ten times as long to hash.
_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)


@attrs.define(eq=False)
class ConnectionView:
    """`certain`: every message was seen, so that a rule may depend on several of them.

    `receiving` is the request whose payload is coming and that has no reply yet. `progress` has the
    state of replies of which a part has left. `limits` are, by command, those inside which a
    request without flags breaks no rule. `counts` counts breaches by rule.
    """

    certain: bool = True
    shown: ShownState = attrs.Factory(ShownState)
    negotiation: Negotiation = attrs.field(init=False)
    requests: RequestTable = attrs.field(init=False)
    receiving: Request | None = None
    last_command: int | None = None
    progress: dict[int, ReplyProgress] = attrs.Factory(dict)
    limits: dict[int, Limits] = attrs.Factory(dict)
    counts: Counter[str] = attrs.Factory(Counter)
    _replies_lost: bool = False

    def __attrs_post_init__(self) -> None:
        self.negotiation = Negotiation(self.shown)
        self.requests = RequestTable(self.shown)

    def track(self, request: Request) -> None:
        """Record a request that is whole: a reply is due."""
        if self._replies_lost or not self.certain:
            return
        self.requests.add(request)
        if len(self.requests) > MOST_IN_FLIGHT:
            self.lose_certainty()

    def lose_certainty(self) -> None:
        """Messages were not seen: their contents are unknown."""
        self.certain = False
        self._forget()

    def lose_replies(self) -> None:
        """The server's stream cannot be cut any more: any request may have been answered."""
        self._replies_lost = True
        if self.shown.phase not in (Phase.TRANSMISSION, Phase.DISCONNECTING):
            # What the client considers negotiated is unknown as well.
            self.certain = False
        self._forget()

    def _forget(self) -> None:
        self.negotiation.unanswered.clear()
        self.requests.forget()
        self.progress.clear()
        self.receiving = None
        self.refresh()

    def refresh(self) -> None:
        """Compute the limits anew."""
        shown, requests = self.shown, self.requests
        self.limits = {}
        if (
            shown.phase is not Phase.TRANSMISSION
            or shown.size is None
            or not requests.commanded
            or requests.shutdown_sent
            or requests.resizing is not None
            or self._replies_lost
            or not self.certain
        ):
            return
        mask = (shown.minimum - 1) | (shown.preferred - 1)
        maximum = MAXIMUM_PAYLOAD if shown.maximum is None else shown.maximum
        if not shown.block_size_negotiated:
            mask |= SECTOR - 1
            maximum = min(maximum, MAXIMUM_PAYLOAD)
        limits = Limits(shown.size, maximum, mask)
        self.limits[_READ] = limits
        # With extended headers a WRITE has a flag, which is to be looked at.
        if not (shown.extended or shown.flags & TransmissionFlag.READ_ONLY):
            self.limits[_WRITE] = limits
