"""The judge of the client's messages, against what the client was shown.

The rules are in option_rules, negotiation_rules, request_rules, in_flight and framing; this module
selects those that apply in each phase, and applies what a message changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from fakenbd.obligations.client_framer import (
    ClientEvent,
    ClientFramer,
    FromClient,
    Misframed,
    Missed,
    PayloadEnded,
    SkippedFlags,
)
from fakenbd.obligations.finding import Judged, Level, Violation
from fakenbd.obligations.framing import misframed, out_of_place, wrong_form
from fakenbd.obligations.negotiation_rules import MOST_UNANSWERED
from fakenbd.obligations.option_rules import option_name
from fakenbd.obligations.request_rules import command_violations, is_off_preferred
from fakenbd.obligations.shown import Phase
from fakenbd.obligations.siblings import Member, Siblings
from fakenbd.obligations.stream import End
from fakenbd.obligations.view import ConnectionView
from fakenbd.protocol.constants import Command, TransmissionFlag, spec_name
from fakenbd.protocol.messages import ClientFlags, OptionRequest, Request

__all__ = ["ClientFindings"]

_MOVING = (Phase.GREETING, Phase.OPTIONS, Phase.TRANSMISSION)


@attrs.define(eq=False)
class ClientFindings:
    """The client's rules, applied message by message."""

    view: ConnectionView
    siblings: Siblings | None
    member: Member

    def judge(self, event: ClientEvent) -> Iterator[Judged]:
        """The rules that a message breaks; then apply what it changes."""
        if isinstance(event, FromClient):
            message, offset = event.message, event.offset
            if isinstance(message, Request):
                found = self._request(message, event)
            elif isinstance(message, OptionRequest):
                found = self._option(message, event)
            else:
                assert isinstance(message, ClientFlags), "a client sends nothing else"
                found = self.view.negotiation.client_flags(message)
        elif isinstance(event, SkippedFlags):
            found, offset = self._skipped_flags(event), event.offset
        elif isinstance(event, Misframed):
            found, offset = self._misframed(event), event.offset
        else:
            if isinstance(event, Missed):
                self.view.lose_certainty()
            elif isinstance(event, PayloadEnded) and self.view.receiving is not None:
                self.view.track(self.view.receiving)
                self.view.receiving = None
            return
        for violation in found:
            yield violation, offset

    def left(self, how: End, framer: ClientFramer) -> Iterator[Violation]:
        """The rules that ending the stream here breaks; `framer` has the position."""
        view = self.view
        shown, phase = view.shown, view.shown.phase
        if phase is Phase.GREETING:
            if framer.head:  # C-06
                count = len(framer.head)
                yield Violation("C-06", f"the client left after {count} of 4 bytes of client flags")
        elif phase is Phase.OPTIONS:
            yield from view.negotiation.closed()
        elif phase is Phase.TRANSMISSION:
            if framer.skip:  # C-100
                yield Violation("C-100", "the client left before it had sent the whole payload")
            else:
                yield from view.requests.closed()
        elif phase in (Phase.ABORTED, Phase.DISCONNECTING) and shown.tls and how == "EOF":  # C-62
            # Not after RST, which can overtake a close_notify that was sent.
            last = "NBD_OPT_ABORT" if phase is Phase.ABORTED else "NBD_CMD_DISC"
            level: Level = "MUST" if view.negotiation.abort_acked else "SHOULD"
            yield Violation(
                "C-62", f"the client left after {last} without shutting TLS down", level
            )

    def _phase_of(self, event: FromClient, due: Phase) -> Phase:
        """The phase in which the client sent a message."""
        phase = self.view.shown.phase
        if not self.view.certain and phase in _MOVING:
            self.view.shown.phase = due
            return due
        return event.phase if phase in _MOVING else phase

    def _skipped_flags(self, event: SkippedFlags) -> Iterator[Violation]:
        self.view.negotiation.skipped_flags()
        what = "an option" if event.option else "a request"
        yield Violation("C-06", f"{what} came where the client flags were due")  # C-06

    def _misframed(self, event: Misframed) -> Iterator[Violation]:
        yield from misframed(event.head, self.view.last_command, self.view.shown)
        # How the server understands and answers it is unknown.
        self.view.lose_certainty()

    def _option(self, request: OptionRequest, event: FromClient) -> Iterator[Violation]:
        view = self.view
        phase = self._phase_of(event, Phase.OPTIONS)
        if phase is not Phase.OPTIONS:
            name = option_name(request.option)
            yield from out_of_place(name, Phase.OPTIONS, phase, view.shown)
            return
        yield from view.negotiation.option(request, event.offset, event.early)
        if not view.certain or len(view.negotiation.unanswered) > MOST_UNANSWERED:
            view.lose_certainty()

    def _request(self, request: Request, event: FromClient) -> Iterator[Violation]:
        view = self.view
        shown, requests = view.shown, view.requests
        phase = self._phase_of(event, Phase.TRANSMISSION)
        view.last_command = request.command
        if phase is not Phase.TRANSMISSION:
            name = spec_name(Command, request.command)
            yield from out_of_place(name, Phase.TRANSMISSION, phase, shown)
        elif request.extended != shown.extended and view.certain:
            yield wrong_form(shown.extended)  # C-71
        else:
            first = not requests.commanded
            yield from command_violations(request, shown)
            if first and request.command != Command.DISC:
                yield from self._first_command()
            yield from requests.judge(request)
            if is_off_preferred(request, shown):  # C-90
                view.counts["C-90"] += 1
            if first or request.command in (Command.DISC, Command.RESIZE):
                view.refresh()
        if request.command == Command.DISC:
            return
        if event.whole:
            view.track(request)
        else:
            view.receiving = request

    def _first_command(self) -> Iterator[Violation]:
        if self.siblings is None:
            return
        shown = self.view.shown
        export = shown.export or ""
        connections = self.siblings.command(self.member, export)
        if connections > 1 and not shown.flags & TransmissionFlag.CAN_MULTI_CONN:  # C-102
            yield Violation(
                "C-102",
                f"the client uses {connections} connections to export {export!r} without "
                "NBD_FLAG_CAN_MULTI_CONN in the transmission flags",
            )
