"""The observer of one connection: the bytes of both sides in, findings out.

Each direction has a framer that cuts it into messages. A message of the client's is judged against
what the client was shown before; a message of the server's against the option or the request that
it answers, and then becomes part of what the client was shown. Bytes that left count, faults
included, so a corrupted reply, a delayed one, or half of one is judged as the client saw it.

Avoiding false alarms comes first. Where bytes of either side were never seen, or the server's
framing is lost in the handshake, only rules are judged whose breach shows in the client's messages
themselves. `excuses` has the rules that are void after a breach by the server, or while it owes.

A MUST is reported each time it is broken, anything milder once a connection; `counts` counts all.
No method reads `at`: no rule of NBD is about time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

import attrs

from fakenbd.obligations.breach import Breach
from fakenbd.obligations.client_findings import ClientFindings
from fakenbd.obligations.client_framer import ClientFramer, FromClient
from fakenbd.obligations.excuses import CERTAIN, VOID, Void
from fakenbd.obligations.finding import Finding, Judged, Violation, level_of
from fakenbd.obligations.framing import looks_like_tls, misframed
from fakenbd.obligations.in_flight import MOST_IN_FLIGHT
from fakenbd.obligations.reply_progress import RequestFacts
from fakenbd.obligations.server_findings import ServerFindings
from fakenbd.obligations.server_framer import FromServer, ServerFramer
from fakenbd.obligations.server_reply_rules import is_plain
from fakenbd.obligations.shown import Phase
from fakenbd.obligations.siblings import Siblings
from fakenbd.obligations.stream import End, Gap, Start
from fakenbd.obligations.view import ConnectionView
from fakenbd.protocol.encode import encode
from fakenbd.protocol.limits import Limits
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    ClientMessage,
    Raw,
    Request,
    ServerMessage,
    SimpleReply,
)

__all__ = ["Observer"]

_NOTHING: Final[Sequence[Finding]] = ()
_OUTDATED: Final = frozenset(("SSLv3", "TLSv1", "TLSv1.1"))
"""Versions of TLS that a client should not offer by default."""
_COMMAND_BYTE: Final = {False: -21, True: -25}
"""Position of the last command's low byte in a run of headers, from its end, extended or not."""
_MESSAGE_PHASES: Final = (Phase.OPTIONS, Phase.TRANSMISSION, Phase.ABORTED)
"""Phases in which options or requests are judged."""
_ENDING: Final = (Phase.ABORTED, Phase.DISCONNECTING, Phase.TLS_FAILED)
"""Phases in which the server has to end the connection."""


@attrs.define(eq=False, repr=False)
class Observer:
    """Judges one connection by the bytes of both sides; each call returns the findings it caused.

    `client` is the label of the client, None where it is unknown; `siblings` is one object for all
    connections of a server. `in_flight` has the cookies of the requests whose reply has not left;
    it is the same dict for life. `broken`: the server broke a rule here that allows its client to
    end the connection in any way.
    """

    start: Start = Start.GREETING
    client: Hashable | None = None
    siblings: Siblings | None = None
    counts: Counter[str] = attrs.field(init=False)
    broken: bool = attrs.field(init=False, default=False)
    in_flight: dict[int, RequestFacts] = attrs.field(init=False)
    _view: ConnectionView = attrs.field(init=False)
    _client: ClientFramer = attrs.field(init=False)
    _server: ServerFramer = attrs.field(init=False)
    _client_findings: ClientFindings = attrs.field(init=False)
    _server_findings: ServerFindings = attrs.field(init=False)
    _gave_cause: bool = attrs.field(init=False, default=False)
    """The client broke a MUST: the server may end the connection."""
    _excused: bool = attrs.field(init=False, default=False)
    _excused_until: int = attrs.field(init=False, default=-1)
    _reading_stopped: bool = attrs.field(init=False, default=False)
    _client_ended: bool = attrs.field(init=False, default=False)
    _server_ended: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        hunting = self.start is Start.UNKNOWN
        self._view = view = ConnectionView(certain=not hunting)
        self.in_flight, self.counts = view.requests.by_cookie, view.counts
        self._client = ClientFramer(hunting, shown=view.shown, negotiation=view.negotiation)
        self._server = ServerFramer(
            hunting, shown=view.shown, negotiation=view.negotiation, in_flight=self.in_flight
        )
        self._server.greeted = hunting
        self._client_findings = ClientFindings(view, self.siblings, self)
        self._server_findings = ServerFindings(view)
        if self.siblings is not None:
            self.siblings.join(self)

    # --- where the connection stands -----------------------------------------------------------

    @property
    def client_offset(self) -> int:
        """Bytes of the client's stream that were received."""
        return self._client.offset

    @property
    def server_offset(self) -> int:
        """Bytes of the server's stream that left."""
        return self._server.offset

    @property
    def server_at_boundary(self) -> bool:
        """Whether the server's next byte begins a message; False where that is unknown."""
        return self._server.at_boundary

    @property
    def owes(self) -> bool:
        """Whether the server owes the client something.

        That is: the greeting, its half of the TLS handshake, a final option reply, a reply, or the
        rest of one, has not left; or it does not read.
        """
        return bool(
            not self._server.greeted
            or self._reading_stopped
            or self._view.shown.phase is Phase.TLS_HANDSHAKE
            or self._view.negotiation.unanswered
            or self.in_flight
            or self._server.skip
            or self._server.head
        )

    def limits(self, command: int) -> Limits | None:
        """The limits inside which requests with that command and without flags break no rule.

        None: each request has to be shown. One whose cookie is in flight has to be shown, too.
        """
        return self._view.limits.get(command)

    # --- the client's stream -------------------------------------------------------------------

    def client_sent(self, data: Buffer | Gap, at: float) -> Sequence[Finding]:
        """Take the next bytes of the client's stream, split anywhere."""
        found: list[Finding] = []
        for event in self._client.feed(data):
            found += self._report(self._client_findings.judge(event))
        return found or _NOTHING

    def client_message(self, message: ClientMessage, size: int, at: float) -> Sequence[Finding]:
        """Take a whole message of the client's, `size` bytes with its payload, at a boundary."""
        framer = self._client
        if type(message) is Request:
            limits = None if message.flags else self._view.limits.get(message.command)
            offset, length, cookie = message.offset, message.length, message.cookie
            if (
                limits is not None
                and 0 < length <= limits.maximum
                and offset + length <= limits.end
                and not (offset | length) & limits.mask
                and cookie not in self.in_flight
                and len(self.in_flight) < MOST_IN_FLIGHT
                and message.extended == self._view.shown.extended
            ):
                framer.offset += size
                self._view.last_command = message.command
                self.in_flight[cookie] = RequestFacts(message.command, 0, offset, length)
                return _NOTHING
        phase = self._view.shown.phase
        if phase not in _MESSAGE_PHASES or isinstance(message, Raw):
            return self.client_sent(encode(message), at)
        if framer.lost:
            framer.offset += size
            return _NOTHING
        framer.take(size)
        early = bool(self._view.negotiation.unanswered)
        event = FromClient(message, framer.begin, phase, early)
        return self._report(self._client_findings.judge(event)) or _NOTHING

    def plain_batch(self, headers: Buffer, count: int, at: float, received: int, sent: int) -> None:
        """Take `count` READs and WRITEs inside `limits`, each answered with success.

        `headers` are theirs, one after the other; `received` and `sent` count all bytes of the
        requests and of the replies.
        """
        self._client.offset += received
        self._server.offset += sent
        self._view.last_command = headers[_COMMAND_BYTE[self._view.shown.extended]]

    def stopped_reading(self, at: float) -> None:
        """The server reads no more of the client's stream, which may therefore end anywhere."""
        self._reading_stopped = True

    def client_closed(self, how: End, at: float) -> Sequence[Finding]:
        """The client's stream has ended; `stopped_reading` first, where bytes were not read."""
        if self._client_ended:
            return _NOTHING
        self._client_ended = True
        if self.siblings is not None:
            if self.owes:
                self.siblings.excuse_others(self)
            self.siblings.leave(self)
        self._view.limits = {}
        if self._server_ended or self._client.lost or not self._view.certain:
            return _NOTHING
        begin = self._client.begin if self._client.head or self._client.skip else None
        found: list[Finding] = []
        for event in self._client.finish():
            found += self._report(self._client_findings.judge(event))
        if not self._client.lost:
            left = self._client_findings.left(how, self._client)
            found += self._report(((each, begin) for each in left), leaving=True)
        return found or _NOTHING

    # --- the server's stream -------------------------------------------------------------------

    def server_sent(self, data: Buffer | Gap, at: float) -> Sequence[Finding]:
        """Take the next bytes that left, split anywhere."""
        found: list[Finding] = []
        for event in self._server.feed(data):
            found += self._report(self._server_findings.judge(event, self._server))
        return found or _NOTHING

    def server_message(self, message: ServerMessage, size: int, at: float) -> Sequence[Finding]:
        """Take a whole message that left as encoded, `size` bytes, at a boundary."""
        framer = self._server
        if isinstance(message, SimpleReply | Chunk):
            cookie = message.cookie
            request = self.in_flight.get(cookie)
            if (
                request is not None
                and not (self._view.progress or self._view.requests.namesakes)
                and is_plain(request, message, self._view.shown)
            ):
                framer.offset += size
                del self.in_flight[cookie]
                self._server_findings.completed(cookie)
                return _NOTHING
        elif isinstance(message, Raw):
            return self.server_sent(message.data, at)
        if framer.lost:
            framer.offset += size
            return _NOTHING
        framer.take(size)
        framer.greeted = True
        event = FromServer(message, framer.begin)
        return self._report(self._server_findings.judge(event, framer)) or _NOTHING

    def server_closed(self, how: End, at: float) -> Sequence[Finding]:
        """The server's stream has ended: nothing more will leave."""
        if self._server_ended:
            return _NOTHING
        self._server_ended = True
        found: list[Finding] = []
        framer = self._server
        if self._view.certain and not (self._client_ended or self._gave_cause or framer.lost):
            begin = framer.begin if framer.part else None
            ended = self._server_findings.ended(how, framer)
            found = self._report((each, begin) for each in ended)
            if self._view.shown.phase not in _ENDING and not framer.is_export_name_due():
                # The server may be shutting down, which its client cannot know.
                self._set_free()
        if self.siblings is not None:
            self.siblings.leave(self)
        return found or _NOTHING

    # --- TLS -----------------------------------------------------------------------------------

    def tls_started(self, version: str, at: float) -> Sequence[Finding]:
        """TLS is in force; `version` is OpenSSL's name of it, "" if unknown."""
        self._view.negotiation.tls_started()
        self._client.restart()
        self._server.restart()
        if version in _OUTDATED:  # C-60
            return self._report([(Violation("C-60", f"the client agreed to {version}"), None)])
        return _NOTHING

    def tls_failed(self, by: str, head: Buffer, at: float) -> Sequence[Finding]:
        """The TLS handshake failed, ended `by` "client" or "server".

        `head` are the first bytes that the client sent for it, or in place of it.
        """
        found: list[Finding] = []
        first = bytes(head[:8])
        if first:
            begin = self._client.offset
            broken = misframed(first, None, self._view.shown)
            found += self._report((each, begin) for each in broken)
        if by == "server" and (not first or looks_like_tls(first)):
            self._set_free()
        self._view.shown.phase = Phase.TLS_FAILED
        return found or _NOTHING

    # --- excuses -------------------------------------------------------------------------------

    def excuse(self) -> None:
        """The server broke a rule on another connection, whose client may be the same."""
        if self.client is None:
            # A client that sends something after that was not affected by the breach.
            self._excused_until = self._client.offset
        else:
            self._excused = True

    def _set_free(self) -> None:
        """The client may end this connection, and its others, in any way."""
        self.broken = True
        if self.siblings is not None:
            self.siblings.excuse_others(self)

    def _is_void(self, rule: str, leaving: bool) -> bool:
        void = VOID[rule]
        if void is Void.NEVER:
            return False
        if self.broken or not leaving or void is not Void.LEAVING:
            return self.broken
        if self._excused or self._excused_until == self._client.offset or self.owes:
            return True
        return self.siblings is not None and self.siblings.is_owed_elsewhere(self)

    # --- findings ------------------------------------------------------------------------------

    def _report(self, judged: Iterable[Judged], *, leaving: bool = False) -> list[Finding]:
        """The findings for what was judged, without those that are void; `leaving`: at the end of
        the client's stream."""
        found: list[Finding] = []
        for broken, offset in judged:
            rule = broken.rule
            if isinstance(broken, Violation):
                level = broken.level or level_of(rule)
                self._gave_cause = self._gave_cause or level == "MUST"
                if self._is_void(rule, leaving) or not (self._view.certain or rule in CERTAIN):
                    continue
                finding = Finding(rule, "client", level, broken.sentence, offset)
            elif self._view.certain:
                if _sets_free(broken):
                    self._set_free()
                level = broken.level or level_of(rule)
                finding = Finding(rule, "server", level, broken.sentence, offset)
            else:
                continue
            self.counts[rule] += 1
            if finding.level == "MUST" or self.counts[rule] == 1:
                found.append(finding)
        return found


def _sets_free(breach: Breach) -> bool:
    # Imported here: the whole table, needed only after a breach.
    from fakenbd.protocol.rules import rule

    return rule(breach.rule).permits_disconnect
