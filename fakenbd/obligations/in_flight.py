"""The requests of one connection that are unanswered, and the client's rules across requests.

These concern cookies, order, the area of a resize, and messages after ESHUTDOWN. A cookie that is
used again while it is in flight (C-72) is queued behind the first: replies are taken to come in
order. Requests of a plain batch are not recorded here, which can only hide a breach.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from fakenbd.obligations.finding import Violation
from fakenbd.obligations.reply_progress import RequestFacts
from fakenbd.obligations.request_rules import effect_length
from fakenbd.obligations.shown import Phase, ShownState
from fakenbd.protocol.constants import ChunkFlag, Command, Error, spec_name
from fakenbd.protocol.messages import Chunk, ErrorChunk, Request, SimpleReply

__all__ = ["MOST_IN_FLIGHT", "RequestTable", "facts_of"]

MOST_IN_FLIGHT: Final = 1 << 16
"""Requests without a reply that are tracked; with more of them nothing is certain."""

# Up to so many requests may have been on their way when ESHUTDOWN was sent; a client that sends
# more has ignored it.
_ON_THEIR_WAY: Final = 1024
# Plain integers: members of an enumeration take ten times as long to compare.
_DONE: Final = int(ChunkFlag.DONE)
_ESHUTDOWN: Final = int(Error.ESHUTDOWN)
_RESIZE: Final = int(Command.RESIZE)
_STATUS_HEAD: Final = 8
"""Bytes before the context ids in the payload of NBD_CMD_BLOCK_STATUS: the effect length."""


def facts_of(request: Request) -> RequestFacts:
    """What the replies to a request are judged against."""
    contexts = None
    length = request.length
    if request.command == Command.BLOCK_STATUS and len(request.payload) >= _STATUS_HEAD:
        length = effect_length(request) or 0
        count = (len(request.payload) - _STATUS_HEAD) // 4
        contexts = struct.unpack_from(f">{count}I", request.payload, _STATUS_HEAD)
    return RequestFacts(request.command, request.flags, request.offset, length, contexts)


@attrs.define(eq=False)
class RequestTable:
    """The requests of one connection; `by_cookie` is the same dict for life.

    `commanded`: a request other than NBD_CMD_DISC was received. `resizing`: the area, from and to,
    that an unanswered NBD_CMD_RESIZE changes.
    """

    shown: ShownState
    by_cookie: dict[int, RequestFacts] = attrs.Factory(dict)
    commanded: bool = False
    resizing: tuple[int, int] | None = None
    namesakes: dict[int, list[RequestFacts]] = attrs.Factory(dict)
    _waiting_namesakes: int = 0
    _shutdown_cookies: set[int] = attrs.Factory(set)
    _since_shutdown: int = 0

    def __len__(self) -> int:
        return len(self.by_cookie) + self._waiting_namesakes

    @property
    def shutdown_sent(self) -> bool:
        """Whether a reply with ESHUTDOWN has left."""
        return bool(self._shutdown_cookies)

    def judge(self, request: Request) -> Iterator[Violation]:
        """The rules that a request breaks; it is not in flight before `add`."""
        if request.cookie in self.by_cookie:  # C-72
            name, cookie = _name(request), request.cookie
            yield Violation(
                "C-72", f"{name} has the cookie {cookie:#x} of a request still in flight"
            )
        if request.command == Command.DISC:
            yield from self._disconnect()
            return
        if self._shutdown_cookies:
            self._since_shutdown += 1
            # Only a request that cannot have been on its way shows that the client ignored it.
            if (
                request.cookie in self._shutdown_cookies or self._since_shutdown > _ON_THEIR_WAY
            ):  # C-127
                yield Violation(
                    "C-127", f"{_name(request)} came after NBD_ESHUTDOWN, not NBD_CMD_DISC"
                )
        if request.command == Command.RESIZE:
            yield from self._resize(request)
        elif self.resizing is not None and _overlaps(request, self.resizing):  # C-111
            sentence = f"{_name(request)} came for an area that NBD_CMD_RESIZE is changing"
            yield Violation("C-111", sentence)
        self.commanded = True

    def add(self, request: Request) -> None:
        """The request is whole: from now on a reply is due."""
        facts = facts_of(request)
        if request.cookie in self.by_cookie:
            self.namesakes.setdefault(request.cookie, []).append(facts)
            self._waiting_namesakes += 1
        else:
            self.by_cookie[request.cookie] = facts

    def replied(self, reply: SimpleReply | Chunk) -> bool:
        """Record a reply, or a chunk of one, that left; returns whether the limits change."""
        if isinstance(reply, SimpleReply):
            error, done = reply.error, True
        else:
            error = reply.body.error if isinstance(reply.body, ErrorChunk) else 0
            done = bool(reply.flags & _DONE)
        if error == _ESHUTDOWN and len(self._shutdown_cookies) < _ON_THEIR_WAY:
            self._shutdown_cookies.add(reply.cookie)
        request = self._answered(reply.cookie) if done else None
        if request is not None and request.command == _RESIZE:
            self.resizing = None
            if not error:
                self.shown.size = request.offset
            return True
        return error == _ESHUTDOWN

    def forget(self) -> None:
        """Drop all: it is unknown which requests were answered, and whether a resize is done."""
        for request in self.by_cookie.values():
            if request.command == _RESIZE:
                self.shown.size = max(self.shown.size or 0, request.offset)
        self.by_cookie.clear()
        self.namesakes.clear()
        self._waiting_namesakes = 0
        self.resizing = None

    def closed(self) -> Iterator[Violation]:
        """The rules broken by an end of the stream between two requests, without NBD_CMD_DISC."""
        if self._shutdown_cookies:  # C-127
            yield Violation("C-127", "the client left after NBD_ESHUTDOWN without NBD_CMD_DISC")
        elif not self.shown.oldstyle or self.commanded:  # C-128
            # Oldstyle has no other way to decline an export than to end the connection at once.
            yield Violation("C-128", "the client left transmission without NBD_CMD_DISC")

    def _answered(self, cookie: int) -> RequestFacts | None:
        request = self.by_cookie.pop(cookie, None)
        if self.namesakes and cookie in self.namesakes:
            namesakes = self.namesakes[cookie]
            self.by_cookie[cookie] = namesakes.pop(0)
            self._waiting_namesakes -= 1
            if not namesakes:
                del self.namesakes[cookie]
        return request

    def _disconnect(self) -> Iterator[Violation]:
        if self.by_cookie:  # C-131
            # Advisory, because a correct client that gives up waiting does the same.
            yield Violation(
                "C-131", f"NBD_CMD_DISC came with requests unanswered: {len(self)}", "advisory"
            )
        self.shown.phase = Phase.DISCONNECTING

    def _resize(self, request: Request) -> Iterator[Violation]:
        size = self.shown.size
        if size is None:
            return
        self.resizing = area = (min(size, request.offset), max(size, request.offset))
        busy = sum(_overlaps(place, area) for place in self.by_cookie.values())
        if busy:  # C-111
            yield Violation(
                "C-111",
                f"NBD_CMD_RESIZE came with requests in flight in the area it changes: {busy}",
            )


def _name(request: Request) -> str:
    return spec_name(Command, request.command)


def _overlaps(place: RequestFacts | Request, area: tuple[int, int]) -> bool:
    return place.offset < area[1] and place.offset + place.length > area[0]
