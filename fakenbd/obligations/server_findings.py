"""Where every message of the server's passes with the request it answers, to be judged.

The rules stand in the server_…_rules; here is what they are judged against: progress by option and
by cookie. The last complete reply is remembered, so that a second one can be told from a stray one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.obligations.breach import Breach
from fakenbd.obligations.negotiation_rules import Negotiation, UnansweredOption
from fakenbd.obligations.option_rules import option_name
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.obligations.server_end_rules import EndPart, EndStage, judge_end
from fakenbd.obligations.server_greeting_rules import judge_export_name_reply, judge_greeting
from fakenbd.obligations.server_option_rules import judge_option_reply
from fakenbd.obligations.server_reply_rules import judge_reply
from fakenbd.obligations.shown import Phase, ShownState
from fakenbd.protocol.messages import (
    Chunk,
    ExportNameReply,
    Greeting,
    OldstyleGreeting,
    OptionReply,
    SimpleReply,
)

__all__ = ["End", "ServerFindings"]

End: TypeAlias = Literal["EOF", "RST", "TLS close"]
"""How a stream ended."""

_STAGES: Final[dict[Phase, EndStage]] = {
    Phase.GREETING: "client-flags",
    Phase.OPTIONS: "options",
    Phase.ABORTED: "options",
    Phase.TLS_HANDSHAKE: "tls",
    Phase.TRANSMISSION: "transmission",
    Phase.DISCONNECTING: "disc",
}


@attrs.define(eq=False)
class ServerFindings:
    """What one server broke, message by message.

    `progress` is that of the requests of which some, but not all of the reply has left;
    `last_progress` that of the last reply that was complete.
    """

    shown: ShownState
    negotiation: Negotiation
    progress: dict[int, ReplyProgress] = attrs.Factory(dict)
    last_cookie: int | None = None
    last_progress: ReplyProgress = attrs.Factory(ReplyProgress)

    def greeting(self, message: Greeting | OldstyleGreeting) -> Sequence[Breach]:
        """The greeting."""
        return tuple(judge_greeting(message))

    def option_reply(
        self, reply: OptionReply, skipped: Sequence[UnansweredOption]
    ) -> Sequence[Breach]:
        """A reply to an option, before it takes effect; `skipped` will get none any more."""
        unanswered = [
            Breach("S-29", f"{option_name(each.request.option)} got no final reply")  # S-29
            for each in skipped
        ]
        negotiation = self.negotiation
        found = judge_option_reply(negotiation.current, reply, negotiation.progress, self.shown)
        return (*unanswered, *found)

    def export_name_reply(self, reply: ExportNameReply) -> Sequence[Breach]:
        """The bare reply to NBD_OPT_EXPORT_NAME."""
        return tuple(judge_export_name_reply(reply, self.shown))

    def reply(self, request: RequestFacts | None, reply: SimpleReply | Chunk) -> Sequence[Breach]:
        """A simple reply or a chunk; `request` is the one in flight with its cookie, if any."""
        cookie = reply.cookie
        if request is not None:
            progress = self.progress.get(cookie)
            if progress is None:
                progress = self.progress[cookie] = ReplyProgress()
        elif cookie == self.last_cookie:
            progress = self.last_progress
        else:
            progress = ReplyProgress()
        found = judge_reply(request, reply, progress, self.shown)
        if request is not None and progress.done:
            del self.progress[cookie]
            self.last_cookie, self.last_progress = cookie, progress
        return found

    def ended(self, how: End, part: EndPart, greeted: bool, in_flight: int) -> Sequence[Breach]:
        """The server ended its stream, though the client had given it no cause."""
        stage = _STAGES.get(self.shown.phase) if greeted else "greeting"
        if stage is None:
            return ()
        negotiation = self.negotiation
        found = judge_end(
            stage,
            how,
            self.shown,
            part=part,
            option=negotiation.current,
            progress=negotiation.progress,
            in_flight=in_flight,
        )
        return tuple(found)
