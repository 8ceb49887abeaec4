"""The client's rules on the order of options, and on what the replies to them require.

A Negotiation follows the options of one connection and the replies that left, and writes what the
client was shown into the ShownState. An option is judged when it is received; what depends on the
replies to those before it is judged only if these have left. Options are answered in order: the
reply to one means that those before it will never be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import attrs

from fakenbd.obligations.finding import Violation
from fakenbd.obligations.option_progress import OptionProgress
from fakenbd.obligations.option_rules import (
    asks_block_size,
    data_violations,
    export_name,
    option_name,
)
from fakenbd.obligations.shown import Phase, Selection, ShownState
from fakenbd.protocol.constants import ClientFlag, HandshakeFlag, Info, Option, Reply
from fakenbd.protocol.encode import correct_value
from fakenbd.protocol.messages import (
    ClientFlags,
    ExportNameReply,
    Greeting,
    InfoBlockSize,
    InfoExport,
    InfoText,
    MetaContext,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
)
from fakenbd.protocol.negotiated import BlockSize

__all__ = ["MOST_UNANSWERED", "Negotiation", "UnansweredOption", "reply_type"]

MOST_UNANSWERED: Final = 16
"""Options without a final reply that are tracked; with more of them nothing is certain."""

_STATEFUL: Final = (Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS, Option.SET_META_CONTEXT)
_IS_ERROR: Final = 1 << 31
_MOST_CONTEXTS: Final = 1024


def reply_type(message: OptionReply) -> int:
    """The type on the wire: the one given, or the one that the body implies."""
    return message.type if message.type is not None else correct_value(message, "type")


class UnansweredOption(NamedTuple):
    """An option without its final reply, and where it begins in the client's stream."""

    request: OptionRequest
    offset: int


@attrs.define(eq=False)
class Negotiation:
    """The handshake of one connection.

    `unanswered` are the options without a final reply, in order; `last` is the number of the newest
    option since the connection, or TLS on it, began. `current` is the newest option whose turn it
    was, answered or not, and `progress` its replies so far, for the server's rules.
    """

    shown: ShownState
    unanswered: list[UnansweredOption] = attrs.Factory(list)
    current: OptionRequest | None = None
    progress: OptionProgress = attrs.Factory(OptionProgress)
    last: int | None = None
    shutdown_sent: bool = False
    abort_acked: bool = False
    tls_refused: bool = False
    _first: int | None = None
    _first_stateful: int | None = None
    _starttls_seen: bool = False
    _tls_required: bool = False
    _go_refused: bool = False
    _go_unsupported: bool = False
    _block_size_wanted: bool = False
    _warned_unfixed: bool = False
    _gathered: dict[int, str] = attrs.Factory(dict)
    _unreadable: bool = False

    # --- greeting ------------------------------------------------------------------------------

    def greeted(self, message: Greeting | OldstyleGreeting) -> None:
        """Record the greeting that left."""
        shown = self.shown
        if isinstance(message, OldstyleGreeting):
            shown.oldstyle = True
            shown.size = message.size
            shown.flags = message.flags & 0xFFFF
            shown.phase = Phase.TRANSMISSION
        else:
            shown.handshake_flags = message.flags

    def client_flags(self, message: ClientFlags) -> Iterator[Violation]:
        """The rules that the client flags break."""
        flags, offered = message.flags, self.shown.handshake_flags
        self.shown.client_flags = flags
        self.shown.phase = Phase.OPTIONS
        unknown = flags & ~int(sum(ClientFlag))
        if unknown:  # C-01
            yield Violation("C-01", f"client flags contain undefined bits {unknown:#x}")
        if flags & ClientFlag.NO_ZEROES and not offered & HandshakeFlag.NO_ZEROES:  # C-02
            yield Violation(
                "C-02", "the client flags have NBD_FLAG_C_NO_ZEROES, which the server did not offer"
            )
        if flags & ClientFlag.FIXED_NEWSTYLE and not offered & HandshakeFlag.FIXED_NEWSTYLE:  # C-03
            yield Violation(
                "C-03",
                "the client flags have NBD_FLAG_C_FIXED_NEWSTYLE, which the server did not offer",
            )

    def skipped_flags(self) -> None:
        """The client began with an option (C-06): assume the flags that it was offered."""
        self.shown.client_flags = self.shown.handshake_flags & int(sum(ClientFlag))
        self.shown.phase = Phase.OPTIONS

    # --- options -------------------------------------------------------------------------------

    def option(self, request: OptionRequest, offset: int, early: bool) -> Iterator[Violation]:
        """The rules that an option breaks; `early`: it began before the last final reply left."""
        option = request.option
        name = option_name(option)
        # ABORT is allowed at any time, even while the server is busy or shutting down.
        if option != Option.ABORT:
            if early:  # C-10
                due = option_name(self.last) if self.last is not None else "the option before"
                yield Violation("C-10", f"{name} came before the final reply to {due}")
            if self.shutdown_sent:  # C-35
                yield Violation(
                    "C-35", f"{name} came after NBD_REP_ERR_SHUTDOWN, not NBD_OPT_ABORT"
                )
            yield from self._style(option, name)
        yield from data_violations(request)
        check = _CHECKS.get(option)
        if check is not None and not early:
            yield from check(self, request)
        self._note(request)
        self.unanswered.append(UnansweredOption(request, offset))
        if len(self.unanswered) == 1:
            self._turn()
        if option == Option.ABORT:
            self.shown.phase = Phase.ABORTED

    def _note(self, request: OptionRequest) -> None:
        option = self.last = request.option
        if self._first is None:
            self._first = option
        if self._first_stateful is None and option in _STATEFUL:
            self._first_stateful = option
        self._starttls_seen = self._starttls_seen or option == Option.STARTTLS
        self._block_size_wanted = self._block_size_wanted or asks_block_size(request)
        self.tls_refused = False

    def _turn(self) -> None:
        """Make the first of the unanswered options the current one."""
        self._gathered, self._unreadable = {}, False
        if not self.unanswered:
            return
        self.current = self.unanswered[0].request
        self.progress.begin(self.current)
        if self.current.option in (Option.INFO, Option.GO):
            self.shown.forget_export()

    def _style(self, option: int, name: str) -> Iterator[Violation]:
        shown = self.shown
        if shown.fixed or option in (Option.EXPORT_NAME, Option.STARTTLS):
            return
        if not shown.handshake_flags & HandshakeFlag.FIXED_NEWSTYLE:  # C-09
            yield Violation(
                "C-09", f"{name} came although the server did not offer fixed newstyle negotiation"
            )
        elif not self._warned_unfixed:  # C-04
            self._warned_unfixed = True
            yield Violation(
                "C-04", f"{name} came although the client flags lack NBD_FLAG_C_FIXED_NEWSTYLE"
            )

    def _export_name(self, request: OptionRequest) -> Iterator[Violation]:
        shown = self.shown
        if shown.extended:  # C-46
            yield Violation(
                "C-46", "NBD_OPT_EXPORT_NAME came after NBD_OPT_EXTENDED_HEADERS was agreed"
            )
        elif self._go_unsupported:
            return
        elif self._block_size_wanted:  # C-34
            yield Violation(
                "C-34",
                "NBD_OPT_EXPORT_NAME came from a client that asked for NBD_INFO_BLOCK_SIZE, "
                "although NBD_OPT_GO is supported",
            )
        elif shown.tls:  # C-61
            yield Violation("C-61", "NBD_OPT_EXPORT_NAME came over TLS, not NBD_OPT_GO")
        elif shown.fixed and not self._go_refused:  # C-30
            yield Violation("C-30", "NBD_OPT_EXPORT_NAME came without a try of NBD_OPT_GO")

    def _starttls(self, request: OptionRequest) -> Iterator[Violation]:
        if not self.shown.fixed:  # C-50
            yield Violation("C-50", "NBD_OPT_STARTTLS came without fixed newstyle on both sides")
        elif self.shown.tls:  # C-51
            yield Violation("C-51", "NBD_OPT_STARTTLS came again although TLS is in use")
        # A client that only learns from TLS_REQD that it needs TLS had no reason to ask earlier.
        elif not self._tls_required and not self._starttls_seen:
            if self._first_stateful is not None:  # C-55
                yield Violation(
                    "C-55",
                    f"NBD_OPT_STARTTLS came after {option_name(self._first_stateful)}, now void",
                )
            elif self._first is not None:  # C-54
                yield Violation(
                    "C-54", f"NBD_OPT_STARTTLS came after {option_name(self._first)}, not first"
                )

    def _structured_reply(self, request: OptionRequest) -> Iterator[Violation]:
        if self.shown.structured:  # C-11
            yield Violation("C-11", "NBD_OPT_STRUCTURED_REPLY came again although it was agreed")

    def _extended_headers(self, request: OptionRequest) -> Iterator[Violation]:
        if self.shown.extended:  # C-11
            yield Violation("C-11", "NBD_OPT_EXTENDED_HEADERS came again although it was agreed")

    def _meta_context(self, request: OptionRequest) -> Iterator[Violation]:
        if self.shown.chunks:
            return
        name = option_name(request.option)
        setting = request.option == Option.SET_META_CONTEXT
        if setting and self.shown.chunks_before_tls:  # C-56
            yield Violation(
                "C-56", f"{name} came, but structured replies were negotiated only before TLS began"
            )
        else:  # C-36, C-37
            yield Violation(
                "C-36" if setting else "C-37", f"{name} came before structured replies were agreed"
            )

    # --- replies -------------------------------------------------------------------------------

    def skip_to(self, option: int) -> list[UnansweredOption]:
        """Drop the options before `option`, to which a reply left, and return them.

        Without effect where no such option is unanswered: then the reply can only be to the first.
        """
        numbers = [unanswered.request.option for unanswered in self.unanswered]
        count = numbers.index(option) if option in numbers else 0
        skipped = [self.unanswered.pop(0) for _ in range(count)]
        if skipped:
            self._turn()
        return skipped

    def replied(self, reply: OptionReply) -> Iterator[Violation]:
        """Record a reply that left, to the first of the unanswered options."""
        request = self.unanswered[0].request
        kind = reply_type(reply)
        body = reply.body
        if kind == Reply.ACK:
            self.unanswered.pop(0)
            yield from self._acked(request)
            self._turn()
        elif kind & _IS_ERROR:
            self.unanswered.pop(0)
            self._refused(request, kind)
            self._turn()
        elif isinstance(body, MetaContext):
            if len(self._gathered) < _MOST_CONTEXTS:
                self._gathered[body.context_id] = body.name
        elif kind == Reply.META_CONTEXT:
            self._unreadable = True
        elif isinstance(body, InfoExport):
            self.shown.take_export(body.size, body.flags)
        elif isinstance(body, InfoBlockSize):
            self.shown.block_size = BlockSize(body.minimum, body.preferred, body.maximum)
        elif isinstance(body, InfoText) and body.info == Info.NAME:
            self.shown.canonical_name = body.text

    def export_name_replied(self, reply: ExportNameReply) -> None:
        """Record the bare reply that left, to NBD_OPT_EXPORT_NAME, the first unanswered option."""
        request = self.unanswered.pop(0).request
        self.shown.forget_export()
        self.shown.take_export(reply.size, reply.flags)
        self._open(request)

    def _acked(self, request: OptionRequest) -> Iterator[Violation]:
        shown = self.shown
        option = request.option
        if option == Option.STRUCTURED_REPLY:
            shown.structured = True
        elif option == Option.EXTENDED_HEADERS:
            shown.extended = True
        elif option == Option.STARTTLS:
            if shown.phase is Phase.OPTIONS:
                shown.phase = Phase.TLS_HANDSHAKE
        elif option == Option.ABORT:
            self.abort_acked = True
        elif option == Option.SET_META_CONTEXT:
            shown.contexts = self._gathered
            shown.contexts_export = export_name(request) or ""
            shown.selection = Selection.LIVE if self._gathered else Selection.NONE
            if self._unreadable:
                shown.selection = Selection.UNREADABLE
        elif option == Option.GO:
            shown.block_size_asked = asks_block_size(request)
            self._open(request)
            if not shown.block_size_asked:  # C-33
                yield Violation("C-33", "NBD_OPT_GO did not ask for NBD_INFO_BLOCK_SIZE")

    def _open(self, request: OptionRequest) -> None:
        shown = self.shown
        shown.export = export_name(request)
        shown.opened_by_go = request.option == Option.GO
        if shown.phase is Phase.OPTIONS:  # Not after NBD_OPT_ABORT.
            shown.phase = Phase.TRANSMISSION

    def _refused(self, request: OptionRequest, kind: int) -> None:
        option = request.option
        if kind == Reply.ERR_SHUTDOWN:
            self.shutdown_sent = True
        if kind == Reply.ERR_TLS_REQD:
            self._tls_required = True
        if option in (Option.INFO, Option.GO):
            self._go_refused = True
            self._go_unsupported = self._go_unsupported or kind == Reply.ERR_UNSUP
        elif option == Option.STARTTLS:
            self.tls_refused = True
        elif option == Option.SET_META_CONTEXT:
            # The earlier selection is void as well.
            self.shown.contexts = {}
            if self.shown.selection is not Selection.NONE:
                self.shown.selection = Selection.FAILED

    # --- TLS and the end -----------------------------------------------------------------------

    def tls_started(self) -> None:
        """TLS is in force: reset what was negotiated in clear."""
        self.shown.forget()
        self.shown.phase = Phase.OPTIONS
        self.unanswered.clear()
        self._turn()
        self.last = self._first = self._first_stateful = None
        self._starttls_seen = False

    def closed(self) -> Iterator[Violation]:
        """The rules broken by an end of the client's stream without NBD_OPT_ABORT."""
        if not self.shown.fixed:
            return
        if self.tls_refused and self.last == Option.STARTTLS:
            return  # A client that requires TLS has no use for a server without.
        if self.shown.tls and self.last is None:
            # The TLS handshake can be complete here while the client still verifies the
            # certificate.
            return
        if self.shutdown_sent:  # C-35
            yield Violation(
                "C-35", "the client left after NBD_REP_ERR_SHUTDOWN without NBD_OPT_ABORT"
            )
        else:  # C-132
            yield Violation("C-132", "the client left option negotiation without NBD_OPT_ABORT")


_Check = Callable[[Negotiation, OptionRequest], Iterator[Violation]]
_CHECKS: Final[dict[int, _Check]] = {
    Option.EXPORT_NAME: Negotiation._export_name,
    Option.STARTTLS: Negotiation._starttls,
    Option.STRUCTURED_REPLY: Negotiation._structured_reply,
    Option.EXTENDED_HEADERS: Negotiation._extended_headers,
    Option.LIST_META_CONTEXT: Negotiation._meta_context,
    Option.SET_META_CONTEXT: Negotiation._meta_context,
}
