"""The observer of one connection: the bytes of both sides in, findings out.

Each direction has a framer that cuts it into messages. A message of the client's is judged against
what the client was shown before; a message of the server's against the option or the request that
it answers, and then becomes part of what the client was shown. What left counts, faults included,
so a corrupted reply, a delayed one, or half of one is judged as the client saw it.

No false alarm is the first duty. Where bytes of either side were never seen, or the server lost its
own framing in the handshake, only rules are judged whose breach stands in the client's messages
themselves. `excuses` says which rules are void after a breach by the server, or while it owes.

A MUST is reported each time it is broken, anything milder once a connection; `counts` counts all.
No method reads `at`: how long something took is nothing that a rule of NBD speaks of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from fakenbd.obligations.breach import Breach
from fakenbd.obligations.client_framer import (
    ClientEvent,
    ClientFramer,
    FromClient,
    Misframed,
    Missed,
    PayloadEnded,
    SkippedFlags,
)
from fakenbd.obligations.excuses import CERTAIN, VOID, Void
from fakenbd.obligations.finding import Finding, Level, Violation, level_of
from fakenbd.obligations.framing import looks_like_tls, misframed, out_of_place, wrong_form
from fakenbd.obligations.in_flight import MOST_IN_FLIGHT, RequestTable, facts_of
from fakenbd.obligations.negotiation_rules import MOST_UNANSWERED, Negotiation
from fakenbd.obligations.option_rules import option_name
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.obligations.request_rules import SECTOR, command_violations, is_off_preferred
from fakenbd.obligations.server_findings import End, ServerFindings
from fakenbd.obligations.server_framer import (
    FromServer,
    MissedReply,
    ServerEvent,
    ServerFramer,
    Unreadable,
)
from fakenbd.obligations.server_reply_rules import is_plain
from fakenbd.obligations.shown import Phase, ShownState
from fakenbd.obligations.siblings import Siblings
from fakenbd.obligations.stream import Gap, Start
from fakenbd.protocol.constants import (
    MAXIMUM_PAYLOAD,
    Command,
    Option,
    TransmissionFlag,
    spec_name,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.limits import Limits
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    ClientFlags,
    ClientMessage,
    ExportNameReply,
    Greeting,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    Raw,
    Request,
    ServerMessage,
    SimpleReply,
)

__all__ = ["End", "Observer"]

_NOTHING: Final[Sequence[Finding]] = ()
_OUTDATED: Final = frozenset(("SSLv3", "TLSv1", "TLSv1.1"))
"""Versions that a client should not offer unless it was told to."""
_COMMAND_BYTE: Final = {False: -21, True: -25}
"""Where the low byte of the last command stands in a row of headers, extended or not."""

_MESSAGE_PHASES: Final = (Phase.OPTIONS, Phase.TRANSMISSION, Phase.ABORTED)
"""Where an option or a request is taken for what it is."""

# Plain integers: members of an enumeration take ten times as long to hash.
_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)
_COMPLETE: Final = ReplyProgress(begun=True, done=True)


@attrs.define(eq=False)
class Observer:
    """Judges one connection by what each side really sent; every call returns what it found.

    `client` labels whose connection it is, None where nobody can tell; `siblings` is one object for
    all connections of a server. `in_flight` has the cookies of the requests whose reply has not
    left; it is the same dict for life. `broken`: the server broke a rule here that sets its client
    free to leave.
    """

    start: Start = Start.GREETING
    client: Hashable | None = None
    siblings: Siblings | None = None
    counts: Counter[str] = attrs.field(init=False, factory=Counter)
    broken: bool = attrs.field(init=False, default=False)
    in_flight: dict[int, RequestFacts] = attrs.field(init=False)
    _shown: ShownState = attrs.field(init=False, factory=ShownState)
    _negotiation: Negotiation = attrs.field(init=False)
    _requests: RequestTable = attrs.field(init=False)
    _findings: ServerFindings = attrs.field(init=False)
    _client: ClientFramer = attrs.field(init=False)
    _server: ServerFramer = attrs.field(init=False)
    _plain: dict[int, Limits] = attrs.field(init=False, factory=dict)
    _last_command: int | None = attrs.field(init=False, default=None)
    _receiving: Request | None = attrs.field(init=False, default=None)
    """The request whose payload is coming, until it is answered."""
    _certain: bool = attrs.field(init=False)
    _replies_lost: bool = attrs.field(init=False, default=False)
    _cause_given: bool = attrs.field(init=False, default=False)
    """The client broke a MUST, and the server may leave."""
    _excused: bool = attrs.field(init=False, default=False)
    _excused_until: int = attrs.field(init=False, default=-1)
    _client_ended: bool = attrs.field(init=False, default=False)
    _server_ended: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        shown = self._shown
        self._certain = self.start is Start.GREETING
        self._negotiation = negotiation = Negotiation(shown)
        self._requests = RequestTable(shown)
        self._findings = ServerFindings(shown, negotiation)
        self.in_flight = self._requests.by_cookie
        hunting = not self._certain
        self._client = ClientFramer(
            hunting, shown=shown, is_early=lambda: bool(negotiation.unanswered)
        )
        self._server = ServerFramer(
            hunting,
            shown=shown,
            content_length=self._content_length,
            export_name_due=lambda: any(
                each.request.option == Option.EXPORT_NAME for each in negotiation.unanswered
            ),
        )
        self._server.greeted = hunting
        if self.siblings is not None:
            self.siblings.join(self)

    # --- where the connection stands -----------------------------------------------------------

    @property
    def client_offset(self) -> int:
        """Bytes of the client's stream that came."""
        return self._client.offset

    @property
    def server_offset(self) -> int:
        """Bytes of the server's stream that left."""
        return self._server.offset

    @property
    def server_at_boundary(self) -> bool:
        """Whether the server's next byte begins a message; False where nobody can tell any more."""
        return self._server.at_boundary

    @property
    def owes(self) -> bool:
        """Whether the greeting, its half of TLS, a final option reply or a reply has not left."""
        return bool(
            not self._server.greeted
            or self._shown.phase is Phase.TLS_HANDSHAKE
            or self._negotiation.unanswered
            or self.in_flight
            or self._server.skip
            or self._server.head
        )

    def limits(self, command: int) -> Limits | None:
        """Inside of which requests with that command and without flags break no rule.

        None: each request has to be shown. One whose cookie is in flight has to be shown, too.
        """
        return self._plain.get(command)

    # --- the client's stream -------------------------------------------------------------------

    def client_sent(self, data: Buffer | Gap, at: float) -> Sequence[Finding]:
        """The next bytes of the client's stream, split anywhere."""
        found: list[Finding] = []
        for event in self._client.feed(data):
            found += self._from_client(event)
        return found or _NOTHING

    def client_message(self, message: ClientMessage, size: int, at: float) -> Sequence[Finding]:
        """A whole message of the client's, `size` bytes with its payload, at a boundary."""
        framer = self._client
        if type(message) is Request:
            limits = None if message.flags else self._plain.get(message.command)
            offset, length, cookie = message.offset, message.length, message.cookie
            if (
                limits is not None
                and 0 < length <= limits.maximum
                and offset + length <= limits.end
                and not (offset | length) & limits.mask
                and cookie not in self.in_flight
                and len(self.in_flight) < MOST_IN_FLIGHT
                and message.extended == self._shown.extended
            ):
                framer.offset += size
                self._last_command = message.command
                self.in_flight[cookie] = RequestFacts(message.command, 0, offset, length)
                return _NOTHING
        phase = self._shown.phase
        if phase not in _MESSAGE_PHASES or isinstance(message, Raw):
            return self.client_sent(encode(message), at)
        if framer.lost:
            framer.offset += size
            return _NOTHING
        framer.take(size)
        early = bool(self._negotiation.unanswered)
        return tuple(self._from_client(FromClient(message, framer.begin, phase, early)))

    def plain_batch(self, headers: Buffer, count: int, at: float, received: int, sent: int) -> None:
        """`count` READs and WRITEs inside `limits`, each answered with success.

        `headers` are theirs, one after the other; `received` and `sent` count all bytes of the
        requests and of the replies.
        """
        self._client.offset += received
        self._server.offset += sent
        self._last_command = headers[_COMMAND_BYTE[self._shown.extended]]

    def client_closed(self, how: End, at: float) -> Sequence[Finding]:
        """The client's stream has ended. Bytes of it that nobody read: show them as a Gap first."""
        if self._client_ended:
            return _NOTHING
        self._client_ended = True
        if self.siblings is not None:
            self.siblings.leave(self)
        self._plain = {}
        if self._server_ended or self._client.lost or not self._certain:
            return _NOTHING
        begin = self._client.begin if self._client.head or self._client.skip else None
        found = [finding for event in self._client.finish() for finding in self._from_client(event)]
        if not found:
            found += self._blame(self._left(how), begin, leaving=True)
        return found or _NOTHING

    # --- the server's stream -------------------------------------------------------------------

    def server_sent(self, data: Buffer | Gap, at: float) -> Sequence[Finding]:
        """The next bytes that left, split anywhere."""
        found: list[Finding] = []
        for event in self._server.feed(data):
            found += self._from_server(event)
        return found or _NOTHING

    def server_message(self, message: ServerMessage, size: int, at: float) -> Sequence[Finding]:
        """A whole message that left as it encodes, `size` bytes, at a boundary."""
        framer = self._server
        if isinstance(message, SimpleReply | Chunk):
            cookie = message.cookie
            request = self.in_flight.get(cookie)
            if (
                request is not None
                and not (self._findings.progress or self._requests.namesakes)
                and is_plain(request, message, self._shown)
            ):
                framer.offset += size
                del self.in_flight[cookie]
                self._findings.last_cookie = cookie
                self._findings.last_progress = _COMPLETE
                return _NOTHING
        elif isinstance(message, Raw):
            return self.server_sent(message.data, at)
        if framer.lost:
            framer.offset += size
            return _NOTHING
        framer.take(size)
        framer.greeted = True
        return tuple(self._from_server(FromServer(message, framer.begin)))

    def server_closed(self, how: End, at: float) -> Sequence[Finding]:
        """The server's stream has ended: what has not left will not leave."""
        if self._server_ended:
            return _NOTHING
        self._server_ended = True
        found: list[Finding] = []
        if not (self._client_ended or self._cause_given or self._server.lost) and self._certain:
            framer = self._server
            breaches = self._findings.ended(how, framer.part, framer.greeted, len(self._requests))
            found += self._break(breaches, framer.begin if framer.part else None)
            if self._shown.phase not in (Phase.ABORTED, Phase.DISCONNECTING, Phase.TLS_FAILED):
                # It may be shutting down, which its client cannot know.
                self._set_free()
        if self.siblings is not None:
            self.siblings.leave(self)
        return found or _NOTHING

    # --- TLS -----------------------------------------------------------------------------------

    def tls_started(self, version: str, at: float) -> Sequence[Finding]:
        """TLS is in force; `version` as OpenSSL names it, "" where it is not known."""
        self._negotiation.tls_started()
        self._client.restart()
        self._server.restart()
        if version in _OUTDATED:  # C-60
            return tuple(self._blame([Violation("C-60", f"the client agreed to {version}")], None))
        return _NOTHING

    def tls_failed(self, by: str, head: Buffer, at: float) -> Sequence[Finding]:
        """The TLS handshake failed, ended `by` "client" or "server".

        `head` are the first bytes that the client sent for it, or in place of it.
        """
        found: list[Finding] = []
        first = bytes(head[:8])
        if first:
            found += self._blame(misframed(first, None, self._shown), self._client.offset)
        if by == "server" and (not first or looks_like_tls(first)):
            self._set_free()
        self._shown.phase = Phase.TLS_FAILED
        return found or _NOTHING

    # --- excuses -------------------------------------------------------------------------------

    def excuse(self) -> None:
        """The server broke a rule on another connection of what may be the same client."""
        if self.client is None:
            # Whoever goes on after that is somebody else, or did not mind.
            self._excused_until = self._client.offset
        else:
            self._excused = True

    def _set_free(self) -> None:
        """The client may leave as it likes, and from its other connections, too."""
        self.broken = True
        if self.siblings is not None:
            self.siblings.breached(self)

    def _is_void(self, rule: str, leaving: bool) -> bool:
        void = VOID[rule]
        if void is Void.NEVER:
            return False
        if self.broken or not leaving:
            return self.broken
        excused = self._excused or self._excused_until == self._client.offset
        return excused or (void is Void.LEAVING and self.owes)

    # --- findings ------------------------------------------------------------------------------

    def _blame(
        self, violations: Iterable[Violation], offset: int | None, *, leaving: bool = False
    ) -> Iterator[Finding]:
        for violation in violations:
            rule = violation.rule
            level = violation.level or level_of(rule)
            if level == "MUST":
                self._cause_given = True
            if self._is_void(rule, leaving) or not (self._certain or rule in CERTAIN):
                continue
            yield from self._report(Finding(rule, "client", level, violation.sentence, offset))

    def _break(self, breaches: Iterable[Breach], offset: int | None) -> Iterator[Finding]:
        for breach in breaches:
            if not self._certain:
                return
            from fakenbd.protocol.rules import rule  # a whole table, for servers that break one

            if rule(breach.rule).frees:
                self._set_free()
            level: Level = level_of(breach.rule)
            yield from self._report(Finding(breach.rule, "server", level, breach.sentence, offset))

    def _report(self, finding: Finding) -> Iterator[Finding]:
        self.counts[finding.rule] += 1
        if finding.level == "MUST" or self.counts[finding.rule] == 1:
            yield finding

    # --- what the client sent ------------------------------------------------------------------

    def _from_client(self, event: ClientEvent) -> Iterator[Finding]:
        if isinstance(event, FromClient):
            message = event.message
            if isinstance(message, Request):
                yield from self._request(message, event)
            elif isinstance(message, OptionRequest):
                yield from self._option(message, event)
            elif isinstance(message, ClientFlags):
                yield from self._blame(self._negotiation.client_flags(message), event.offset)
        elif isinstance(event, PayloadEnded):
            if self._receiving is not None:
                self._track(self._receiving)
                self._receiving = None
        elif isinstance(event, SkippedFlags):
            self._negotiation.skipped_flags()
            what = "an option" if event.option else "a request"
            sentence = f"{what} came where the client flags were due"
            yield from self._blame([Violation("C-06", sentence)], event.offset)  # C-06
        elif isinstance(event, Misframed):
            found = misframed(event.head, self._last_command, self._shown)
            yield from self._blame(found, event.offset)
            self._plain = {}
        elif isinstance(event, Missed):
            self._lose_certainty()

    def _phase_of(self, event: FromClient, due: Phase) -> Phase:
        """The phase in which the client sent a message."""
        phase = self._shown.phase
        if not self._certain and phase in (Phase.GREETING, Phase.OPTIONS, Phase.TRANSMISSION):
            self._shown.phase = due
            return due
        return event.phase if phase in (Phase.OPTIONS, Phase.TRANSMISSION) else phase

    def _option(self, request: OptionRequest, event: FromClient) -> Iterator[Finding]:
        phase = self._phase_of(event, Phase.OPTIONS)
        negotiation = self._negotiation
        if phase is not Phase.OPTIONS:
            name = option_name(request.option)
            found = out_of_place(name, Phase.OPTIONS, phase, self._shown)
            yield from self._blame(found, event.offset)
            return
        yield from self._blame(negotiation.option(request, event.offset, event.early), event.offset)
        if not self._certain or len(negotiation.unanswered) > MOST_UNANSWERED:
            self._lose_certainty()

    def _request(self, request: Request, event: FromClient) -> Iterator[Finding]:
        phase = self._phase_of(event, Phase.TRANSMISSION)
        shown, requests = self._shown, self._requests
        self._last_command = request.command
        if phase is not Phase.TRANSMISSION:
            name = spec_name(Command, request.command)
            found = out_of_place(name, Phase.TRANSMISSION, phase, shown)
            yield from self._blame(found, event.offset)
        elif request.extended != shown.extended and self._certain:
            yield from self._blame([wrong_form(shown.extended)], event.offset)
        else:
            first = not requests.commanded
            yield from self._blame(self._command(request), event.offset)
            if first or request.command in (Command.DISC, Command.RESIZE):
                self._refresh()
        if request.command != Command.DISC:
            if event.whole:
                self._track(request)
            else:
                self._receiving = request

    def _command(self, request: Request) -> Iterator[Violation]:
        shown, requests = self._shown, self._requests
        yield from command_violations(request, shown)
        if not requests.commanded and request.command != Command.DISC:
            yield from self._first_command()
        yield from requests.judge(request)
        if is_off_preferred(request, shown):  # C-90
            self.counts["C-90"] += 1

    def _first_command(self) -> Iterator[Violation]:
        if self.siblings is None:
            return
        export = self._shown.export or ""
        connections = self.siblings.command(self, export)
        if connections > 1 and not self._shown.flags & TransmissionFlag.CAN_MULTI_CONN:  # C-102
            yield Violation(
                "C-102",
                f"the client uses {connections} connections to export {export!r} without "
                "NBD_FLAG_CAN_MULTI_CONN in the transmission flags",
            )

    def _track(self, request: Request) -> None:
        if self._replies_lost or not self._certain:
            return
        self._requests.add(request)
        if len(self._requests) > MOST_IN_FLIGHT:
            self._lose_certainty()

    def _left(self, how: End) -> Iterator[Violation]:
        """The breaches of ending the stream here."""
        shown, framer = self._shown, self._client
        phase = shown.phase
        if phase is Phase.GREETING:
            if framer.head:  # C-06
                count = len(framer.head)
                yield Violation("C-06", f"the client left after {count} of 4 bytes of client flags")
        elif phase is Phase.OPTIONS:
            yield from self._negotiation.closed()
        elif phase is Phase.TRANSMISSION:
            if framer.skip:  # C-100
                yield Violation("C-100", "the client left before it had sent the whole payload")
            else:
                yield from self._requests.closed()
        elif phase in (Phase.ABORTED, Phase.DISCONNECTING) and shown.tls and how == "EOF":  # C-62
            # After RST nobody can tell: it overtakes a close_notify that was sent.
            last = "NBD_OPT_ABORT" if phase is Phase.ABORTED else "NBD_CMD_DISC"
            level: Level = "MUST" if self._negotiation.abort_acked else "SHOULD"
            yield Violation(
                "C-62", f"the client left after {last} without shutting TLS down", level
            )

    # --- what the server sent ------------------------------------------------------------------

    def _from_server(self, event: ServerEvent) -> Iterator[Finding]:
        if isinstance(event, FromServer):
            message, offset = event.message, event.offset
            if isinstance(message, SimpleReply | Chunk):
                yield from self._replied(message, offset)
                return
            if isinstance(message, OptionReply):
                yield from self._option_replied(message, offset)
            elif isinstance(message, ExportNameReply):
                yield from self._export_name_replied(message, offset)
            elif isinstance(message, Greeting | OldstyleGreeting):
                yield from self._break(self._findings.greeting(message), offset)
                self._negotiation.greeted(message)
            self._refresh()
        elif isinstance(event, Unreadable):
            yield from self._break([Breach(event.rule, event.sentence)], event.offset)
            if self._server.lost:
                self._lose_replies()
        elif isinstance(event, MissedReply):
            self._lose_certainty()

    def _option_replied(self, reply: OptionReply, offset: int) -> Iterator[Finding]:
        negotiation = self._negotiation
        skipped = negotiation.skip_to(reply.option)
        yield from self._break(self._findings.option_reply(reply, skipped), offset)
        if not negotiation.unanswered:
            return
        at = negotiation.unanswered[0].offset
        yield from self._blame(negotiation.replied(reply), at)
        if self._shown.phase is Phase.TLS_HANDSHAKE:
            # These came behind NBD_OPT_STARTTLS, in clear.
            while negotiation.unanswered:
                request, at = negotiation.unanswered.popleft()
                name = option_name(request.option)
                found = out_of_place(name, Phase.OPTIONS, Phase.TLS_HANDSHAKE, self._shown)
                yield from self._blame(found, at)

    def _export_name_replied(self, reply: ExportNameReply, offset: int) -> Iterator[Finding]:
        negotiation = self._negotiation
        skipped = negotiation.skip_to(Option.EXPORT_NAME)
        if skipped:  # S-29
            sentence = f"{option_name(skipped[0].request.option)} got no final reply"
            yield from self._break([Breach("S-29", sentence)], offset)
        yield from self._break(self._findings.export_name_reply(reply), offset)
        if negotiation.unanswered:
            negotiation.export_name_replied(reply)

    def _replied(self, reply: SimpleReply | Chunk, offset: int) -> Iterator[Finding]:
        cookie = reply.cookie
        request = self.in_flight.get(cookie)
        receiving = self._receiving
        if request is None and receiving is not None and receiving.cookie == cookie:
            # Answered before its payload has come.
            request = facts_of(receiving)
        yield from self._break(self._findings.reply(request, reply), offset)
        if self._requests.replied(reply):
            self._refresh()
        if (
            receiving is not None
            and receiving.cookie == cookie
            and cookie not in (self._findings.progress)
        ):
            self._receiving = None

    def _content_length(self, cookie: int) -> int:
        request = self.in_flight.get(cookie)
        return request.length if request is not None and request.command == _READ else 0

    # --- what is not known any more ------------------------------------------------------------

    def _lose_certainty(self) -> None:
        """Messages were not seen: what they said and answered is unknown."""
        self._certain = False
        self._negotiation.unanswered.clear()
        self._forget_requests()

    def _lose_replies(self) -> None:
        """The server's stream has no messages any more: the client may take any for answered."""
        self._replies_lost = True
        self._negotiation.unanswered.clear()
        self._forget_requests()
        if self._shown.phase not in (Phase.TRANSMISSION, Phase.DISCONNECTING):
            self._certain = False

    def _forget_requests(self) -> None:
        self._requests.forget()
        self._findings.progress.clear()
        self._receiving = None
        self._refresh()

    def _refresh(self) -> None:
        """Work out anew which requests need no look."""
        shown, requests = self._shown, self._requests
        self._plain = {}
        if (
            shown.phase is not Phase.TRANSMISSION
            or shown.size is None
            or not requests.commanded
            or requests.shutdown_sent
            or requests.resizing is not None
            or self._replies_lost
            or not self._certain
        ):
            return
        mask = (shown.minimum - 1) | (shown.preferred - 1)
        maximum = MAXIMUM_PAYLOAD if shown.maximum is None else shown.maximum
        if not shown.block_size_negotiated:
            mask |= SECTOR - 1
            maximum = min(maximum, MAXIMUM_PAYLOAD)
        limits = Limits(shown.size, maximum, mask)
        self._plain[_READ] = limits
        if not (shown.extended or shown.flags & TransmissionFlag.READ_ONLY):
            self._plain[_WRITE] = limits
