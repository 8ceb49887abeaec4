"""The judge of the server's messages, each with the request or option that it answers.

The rules are in the server_…_rules; this module has what messages are judged against, and applies
what a message changes: what the client was shown, and what is unanswered. That may reveal a breach
by the client. The last complete reply is kept, so that a second one can be distinguished from a
stray one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeGuard

import attrs

from fakenbd.obligations.breach import Breach
from fakenbd.obligations.finding import Judged
from fakenbd.obligations.framing import out_of_place
from fakenbd.obligations.in_flight import facts_of
from fakenbd.obligations.negotiation_rules import UnansweredOption
from fakenbd.obligations.option_rules import option_name
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.obligations.server_end_rules import EndStage, judge_end
from fakenbd.obligations.server_framer import (
    FromServer,
    MissedReply,
    ServerEvent,
    ServerFramer,
    Unreadable,
)
from fakenbd.obligations.server_greeting_rules import judge_export_name_reply, judge_greeting
from fakenbd.obligations.server_option_rules import judge_option_reply
from fakenbd.obligations.server_reply_rules import judge_reply
from fakenbd.obligations.shown import Phase
from fakenbd.obligations.stream import Counted, End
from fakenbd.obligations.view import ConnectionView
from fakenbd.protocol.constants import ChunkFlag, Option
from fakenbd.protocol.messages import (
    Chunk,
    ExportNameReply,
    Greeting,
    OldstyleGreeting,
    OptionReply,
    RawBody,
    ServerMessage,
    SimpleReply,
)

__all__ = ["ServerFindings"]

_STAGES: Final[dict[Phase, EndStage]] = {
    Phase.GREETING: "client-flags",
    Phase.OPTIONS: "options",
    Phase.ABORTED: "options",
    Phase.TLS_HANDSHAKE: "tls",
    Phase.TRANSMISSION: "transmission",
    Phase.DISCONNECTING: "disc",
}
_COMPLETE: Final = ReplyProgress(begun=True, done=True)


@attrs.define(eq=False)
class ServerFindings:
    """The server's rules, applied message by message."""

    view: ConnectionView
    _last_cookie: int | None = None
    _last_progress: ReplyProgress = _COMPLETE

    def judge(self, event: ServerEvent, framer: ServerFramer) -> Iterator[Judged]:
        """The rules that a message breaks; then apply what it changes."""
        if isinstance(event, FromServer):
            yield from self._message(event.message, event.offset)
        elif isinstance(event, Unreadable):
            yield Breach(event.rule, event.sentence), event.offset
            if framer.lost:
                self.view.lose_replies()
        elif isinstance(event, MissedReply):
            self.view.lose_certainty()

    def completed(self, cookie: int) -> None:
        """Record a complete reply that breaks no rule."""
        self._last_cookie, self._last_progress = cookie, _COMPLETE

    def ended(self, how: End, framer: ServerFramer) -> Iterator[Breach]:
        """The rules that the server breaks by ending its stream without a cause."""
        view = self.view
        stage = _STAGES.get(view.shown.phase) if framer.greeted else "greeting"
        if stage is not None:
            yield from judge_end(
                stage,
                how,
                view.shown,
                part=framer.part,
                option=view.negotiation.current,
                progress=view.negotiation.progress,
                in_flight=len(view.requests),
            )

    def _message(self, message: ServerMessage, offset: int) -> Iterator[Judged]:
        if isinstance(message, SimpleReply | Chunk):
            yield from self._reply(message, offset)
            return
        if isinstance(message, OptionReply):
            yield from self._option_reply(message, offset)
        elif isinstance(message, ExportNameReply):
            yield from self._export_name_reply(message, offset)
        elif isinstance(message, Greeting | OldstyleGreeting):
            yield from _at(offset, judge_greeting(message))
            self.view.negotiation.greeted(message)
        self.view.refresh()

    # --- handshake -----------------------------------------------------------------------------

    def _option_reply(self, reply: OptionReply, offset: int) -> Iterator[Judged]:
        view, negotiation = self.view, self.view.negotiation
        skipped = negotiation.skip_to(reply.option)
        if reply.option != Option.ABORT:
            # Replies to options before an ABORT are no longer expected.
            yield from _at(offset, _unanswered(skipped))
        found = judge_option_reply(negotiation.current, reply, negotiation.progress, view.shown)
        yield from _at(offset, found)
        if not negotiation.unanswered:
            return
        at = negotiation.unanswered[0].offset
        for violation in negotiation.replied(reply):
            yield violation, at
        if view.shown.phase is Phase.TLS_HANDSHAKE:
            # Options received in clear behind NBD_OPT_STARTTLS.
            while negotiation.unanswered:
                request, at = negotiation.unanswered.pop(0)
                name = option_name(request.option)
                for violation in out_of_place(name, Phase.OPTIONS, Phase.TLS_HANDSHAKE, view.shown):
                    yield violation, at

    def _export_name_reply(self, reply: ExportNameReply, offset: int) -> Iterator[Judged]:
        negotiation = self.view.negotiation
        yield from _at(offset, _unanswered(negotiation.skip_to(Option.EXPORT_NAME)))
        yield from _at(offset, judge_export_name_reply(reply, self.view.shown))
        if negotiation.unanswered:
            negotiation.export_name_replied(reply)

    # --- transmission --------------------------------------------------------------------------

    def _reply(self, reply: SimpleReply | Chunk, offset: int) -> Iterator[Judged]:
        view, cookie = self.view, reply.cookie
        request = view.requests.by_cookie.get(cookie)
        early = None
        if request is None and view.receiving is not None and view.receiving.cookie == cookie:
            # Answered before its payload has come.
            early, request = view.receiving, facts_of(view.receiving)
        yield from _at(offset, self._judged(request, reply))
        if view.requests.replied(reply):
            view.refresh()
        if early is not None and cookie not in view.progress:
            view.receiving = None

    def _judged(self, request: RequestFacts | None, reply: SimpleReply | Chunk) -> Sequence[Breach]:
        cookie, kept = reply.cookie, self.view.progress
        if request is not None:
            progress = kept.get(cookie)
            if progress is None:
                progress = kept[cookie] = ReplyProgress()
        elif cookie == self._last_cookie:
            progress = self._last_progress
        else:
            progress = ReplyProgress()
        if request is not None and _is_unread(reply):
            progress.begun = progress.blind = True
            progress.done = bool(reply.flags & ChunkFlag.DONE)
            found: Sequence[Breach] = ()
        else:
            found = judge_reply(request, reply, progress, self.view.shown)
        if request is not None and progress.done:
            del kept[cookie]
            self._last_cookie, self._last_progress = cookie, progress
        return found


def _at(offset: int, breaches: Iterable[Breach]) -> Iterator[Judged]:
    for breach in breaches:
        yield breach, offset


def _is_unread(reply: SimpleReply | Chunk) -> TypeGuard[Chunk]:
    """Whether the body was too long to be kept."""
    return (
        isinstance(reply, Chunk)
        and isinstance(reply.body, RawBody)
        and isinstance(reply.body.data, Counted)
    )


def _unanswered(skipped: Iterable[UnansweredOption]) -> Iterator[Breach]:
    for request, _ in skipped:
        yield Breach("S-29", f"{option_name(request.option)} got no final reply")  # S-29
