"""What a client owed and did not do, noticed as the bytes come: one Watch a connection.

The server tells its Watch everything that it heard and everything that it said, in that order, the
way it really left (after faults). Each method returns the violations that follow, mostly none. No
false alarm is the first duty: where a breach can only be guessed at, nothing is said; where the
server broke a MUST itself (`breached`), the client may leave as it likes, and give up its other
connections to that server too. Being silent on purpose is such a breach: a Watch that is not told
blames the client that gives up waiting.

A MUST is reported each time it is broken, anything milder once a connection; `counts` counts all.

The hot path need not ask. With a request whose command is READ or WRITE and whose command flags
are 0 nothing can be wrong, and `request` and `replied` may be left out, if all of this holds:

    watch.clean (for a WRITE: watch.clean_writes)
    0 < length <= watch.clean_maximum
    offset + length <= watch.clean_end
    not (offset | length) & watch.clean_mask
    cookie not in watch.pending

A request that is not answered at once must go through `request`, or nobody misses its cookie. Any
call may change these attributes, save for `pending`, which stays the same dict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.journal.agreement import Agreement, Phase
from fakenbd.journal.clientele import Clientele
from fakenbd.journal.commands import SECTOR, command_violations, is_off_preferred
from fakenbd.journal.framing import REQUEST_MAGICS, misframed, out_of_place, wrong_form
from fakenbd.journal.haggling import Haggling
from fakenbd.journal.traffic import InFlight, Traffic
from fakenbd.journal.violation import Level, Violation
from fakenbd.protocol.constants import (
    IHAVEOPT,
    MAXIMUM_PAYLOAD,
    Command,
    Option,
    TransmissionFlag,
    spec_name,
)
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    ClientFlags,
    ExportNameReply,
    Greeting,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    Request,
    SimpleReply,
)

__all__ = ["FORGIVEN", "Clientele", "Level", "Violation", "Violations", "Watch"]

Violations: TypeAlias = Sequence[Violation]

_NOTHING: Final[Violations] = ()

# Once the server broke a MUST, a client may leave as it likes, and may have lost track of where
# the conversation stands. What it sends must be well-formed all the same, and never in clear once
# TLS was agreed.
_OUTDATED: Final = frozenset(("SSLv3", "TLSv1", "TLSv1.1"))
"""Versions that a client should not offer unless it was told to."""

FORGIVEN: Final = frozenset(
    f"C-{number}" for number in (10, 29, 35, 62, 71, 72, 100, 110, 127, 128, 131, 132)
)


@attrs.define(eq=False)
class Watch:
    """The obligations of the client on one connection.

    `client` tells who it is, as far as the server can know (an address, a process). Without it any
    other connection of the `clientele` may be the same client's: that excuses, but never blames.
    `excused` tells that it may leave as it likes, though the server broke no MUST on this one.
    """

    clientele: Clientele | None = None
    client: Hashable = None
    agreed: Agreement = attrs.Factory(Agreement)
    counts: Counter[str] = attrs.Factory(Counter)
    breaches: list[str] = attrs.Factory(list)
    excused: bool = False
    clean: bool = False
    clean_writes: bool = False
    clean_mask: int = 0
    clean_end: int = 0
    clean_maximum: int = 0
    pending: dict[int, InFlight] = attrs.field(init=False)
    _haggling: Haggling = attrs.field(init=False)
    _traffic: Traffic = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._haggling = Haggling(self.agreed)
        self._traffic = Traffic(self.agreed)
        self.pending = self._traffic.pending
        if self.clientele is not None:
            self.clientele.joins(self.client, self)

    # --- the handshake -------------------------------------------------------------------------

    def greeted(self, message: Greeting | OldstyleGreeting) -> Violations:
        """The greeting left."""
        self._haggling.greeted(message)
        self._refresh()
        return _NOTHING

    def client_flags(self, message: ClientFlags) -> Violations:
        """The client's flags came."""
        return self._report(self._haggling.client_flags(message))

    def option(self, request: OptionRequest, *, early: bool = False) -> Violations:
        """It is this option's turn. `early`: it came before the last final reply had left."""
        if request.magic != IHAVEOPT:
            return self.misframed(request.magic.to_bytes(8, "big"))
        if self.agreed.phase is not Phase.HAGGLING:
            name = spec_name(Option, request.option)
            return self._report(out_of_place(name, Phase.HAGGLING, self.agreed))
        return self._report(self._haggling.option(request, early))

    def option_replied(self, reply: OptionReply) -> Violations:
        """A reply to the current option left."""
        found = self._report(self._haggling.replied(reply))
        self._refresh()
        return found

    def export_name_replied(self, reply: ExportNameReply) -> Violations:
        """The bare answer to NBD_OPT_EXPORT_NAME left."""
        self._haggling.export_name_replied(reply)
        self._refresh()
        return _NOTHING

    def opened(self) -> Violations:
        """The server now expects requests, whatever its replies said."""
        self.agreed.phase = Phase.TRANSMISSION
        self._refresh()
        return _NOTHING

    def tls_started(self, version: str = "") -> Violations:
        """The TLS handshake succeeded; `version` as OpenSSL names it, "" if it is not known."""
        self._haggling.tls_started()
        if version in _OUTDATED:  # C-60
            return self._report([Violation("C-60", f"the client agreed to {version}")])
        return _NOTHING

    def tls_failed(self) -> Violations:
        """The TLS handshake failed; all that the client may do now is leave."""
        self.agreed.phase = Phase.TLS_FAILED
        return _NOTHING

    # --- transmission --------------------------------------------------------------------------

    def request(self, request: Request) -> Violations:
        """A request came: the header at least; a payload where it matters (BLOCK_STATUS)."""
        agreed = self.agreed
        if request.magic not in (None, REQUEST_MAGICS[request.extended]):
            return self.misframed(request.magic.to_bytes(4, "big"))
        if agreed.phase is not Phase.TRANSMISSION:
            name = spec_name(Command, request.command)
            return self._report(out_of_place(name, Phase.TRANSMISSION, agreed))
        found = [wrong_form(agreed.extended)] if request.extended != agreed.extended else []
        found += command_violations(request, agreed)
        first = not self._traffic.commanded
        if first and request.command != Command.DISC:
            found += self._first_command()
        found += self._traffic.request(request)
        if is_off_preferred(request, agreed):  # C-90
            self.counts["C-90"] += 1
        if first or request.command in (Command.DISC, Command.RESIZE):
            self._refresh()
        return self._report(found)

    def replied(self, reply: SimpleReply | Chunk) -> Violations:
        """A reply, or a chunk of one, left."""
        if self._traffic.replied(reply):
            self._refresh()
        return _NOTHING

    def blurred(self, cookie: int) -> Violations:
        """Bytes that are no message are to leave in place of a reply, or of a part of one."""
        if self._traffic.blurred(cookie):
            self._refresh()
        return _NOTHING

    # --- what is no message --------------------------------------------------------------------

    def misframed(self, head: Buffer, *, after: int | None = None) -> Violations:
        """Bytes came that are no message of this phase; `head` are the first 8 of them, or fewer.

        `after` is the command of the request before them, where the hot path dealt with it.
        """
        last = self._traffic.last_command if after is None else after
        return self._report(misframed(bytes(head[:8]), last, self.agreed))

    def bytes_after_disc(self, count: int) -> Violations:
        """So many bytes came after NBD_CMD_DISC (TLS alerts are none)."""
        return self._report([_after_disc(count)] if count else [])

    def breached(self, rule: str) -> Violations:
        """The server broke a MUST: the S-row `rule`, or "". From now on, leaving is fair."""
        self.breaches.append(rule)
        if self.clientele is not None:
            for other in self.clientele.siblings(self):
                other.excused = True
        return _NOTHING

    def ended(self, how: str, by: Literal["client", "server"], leftover: int = 0) -> Violations:
        """The connection ended: `how` is "EOF", "RST" or "TLS close".

        `leftover` counts the bytes of a message that never became whole, header included.
        """
        phase, self.agreed.phase = self.agreed.phase, Phase.ENDED
        self.clean = self.clean_writes = False
        if self.clientele is not None:
            self.clientele.leaves(self)
        if by == "server":
            return _NOTHING
        found = self._farewell(phase, how, leftover)
        return self._report(each for each in found if not (self.excused and each.rule in FORGIVEN))

    # --- inside --------------------------------------------------------------------------------

    def _report(self, found: Iterable[Violation]) -> Violations:
        reported = []
        for violation in found:
            if self.breaches and violation.rule in FORGIVEN:
                continue
            self.counts[violation.rule] += 1
            if violation.level == "MUST" or self.counts[violation.rule] == 1:
                reported.append(violation)
        return reported or _NOTHING

    def _first_command(self) -> Iterator[Violation]:
        if self.clientele is None or self.client is None:
            return
        export = self.agreed.names[0] if self.agreed.names else ""
        connections = self.clientele.commands(self.client, export, self)
        if connections > 1 and not self.agreed.flags & TransmissionFlag.CAN_MULTI_CONN:  # C-102
            yield Violation(
                "C-102",
                f"the client uses {connections} connections to export {export!r} without "
                "NBD_FLAG_CAN_MULTI_CONN in the transmission flags",
            )

    def _farewell(self, phase: Phase, how: str, leftover: int) -> Iterator[Violation]:
        if phase is Phase.GREETING and leftover:  # C-06
            yield Violation("C-06", f"the client left after {leftover} of 4 bytes of client flags")
        elif phase is Phase.HAGGLING:
            yield from self._haggling.left()
        elif phase is Phase.TRANSMISSION:
            yield from self._traffic.left(leftover)
        elif phase in (Phase.LEFT_HAGGLING, Phase.DISCONNECTED):
            if phase is Phase.DISCONNECTED and leftover:
                yield _after_disc(leftover)
            # After RST nobody can tell: it overtakes a goodbye that was sent.
            if self.agreed.tls and how == "EOF":  # C-62
                sent = "NBD_OPT_ABORT" if phase is Phase.LEFT_HAGGLING else "NBD_CMD_DISC"
                level: Level = "MUST" if self._haggling.abort_acked else "SHOULD"
                sentence = f"the client left after {sent} without shutting TLS down"
                yield Violation("C-62", sentence, level)

    def _refresh(self) -> None:
        """Work out anew what the hot path may skip."""
        agreed, traffic = self.agreed, self._traffic
        self.clean = (
            agreed.phase is Phase.TRANSMISSION
            and traffic.commanded
            and agreed.size is not None
            and not traffic.shutdown_said
            and traffic.resizing is None
        )
        self.clean_writes = (
            self.clean and not agreed.extended and not agreed.flags & TransmissionFlag.READ_ONLY
        )
        self.clean_end = agreed.size or 0
        self.clean_mask = (agreed.minimum - 1) | (agreed.preferred - 1)
        self.clean_maximum = MAXIMUM_PAYLOAD if agreed.maximum is None else agreed.maximum
        if not agreed.sizes_agreed:
            self.clean_mask |= SECTOR - 1
            self.clean_maximum = min(self.clean_maximum, MAXIMUM_PAYLOAD)


def _after_disc(count: int) -> Violation:
    return Violation("C-130", f"bytes came after NBD_CMD_DISC: {count}")  # C-130
