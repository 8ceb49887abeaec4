"""What a client owes during the handshake: the order of options, and what replies oblige it to.

A Haggling watches the options and the replies of one connection and writes what was agreed into
the Agreement. Replies count as they left the server: a lie binds the client as the truth would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from fakenbd.journal.agreement import Agreement, Phase, Selection
from fakenbd.journal.entries import reply_type
from fakenbd.journal.options import (
    asks_block_size,
    data_violations,
    export_name,
    option_name,
)
from fakenbd.journal.violation import Violation
from fakenbd.protocol.constants import (
    IHAVEOPT,
    ClientFlag,
    HandshakeFlag,
    Option,
    Reply,
)
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

__all__ = ["Haggling"]

_FIRST_HALF_OF_IHAVEOPT: Final = IHAVEOPT >> 32
_STATEFUL: Final = (Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS, Option.SET_META_CONTEXT)
_IS_ERROR: Final = 1 << 31


@attrs.define(eq=False)
class Haggling:
    """The handshake of one connection; `pending` is the option whose final reply is still due."""

    agreed: Agreement
    pending: OptionRequest | None = None
    shutdown_said: bool = False
    abort_acked: bool = False
    tls_refused: bool = False
    _past: list[int] = attrs.Factory(list)
    _tls_required: bool = False
    _go_refused: bool = False
    _go_unsupported: bool = False
    _wanted_block_size: bool = False
    _gathered: list[MetaContext] = attrs.Factory(list)
    _warned_unfixed: bool = False

    # --- greeting ------------------------------------------------------------------------------

    def greeted(self, message: Greeting | OldstyleGreeting) -> None:
        agreed = self.agreed
        if isinstance(message, OldstyleGreeting):
            agreed.oldstyle = True
            agreed.size = message.size
            agreed.flags = message.flags & 0xFFFF
            agreed.phase = Phase.TRANSMISSION
        else:
            agreed.handshake_flags = message.flags

    def client_flags(self, message: ClientFlags) -> Iterator[Violation]:
        flags, offered = message.flags, self.agreed.handshake_flags
        self.agreed.client_flags = flags
        self.agreed.phase = Phase.HAGGLING
        if flags == _FIRST_HALF_OF_IHAVEOPT:  # C-06
            yield Violation("C-06", "an option came where the client flags were due")
            return
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

    # --- options -------------------------------------------------------------------------------

    def option(self, request: OptionRequest, early: bool) -> Iterator[Violation]:
        option = request.option
        name = option_name(option)
        # Leaving is allowed at any time, even while the server is busy or shutting down.
        if option != Option.ABORT:
            if early:  # C-10
                due = option_name(self._past[-1]) if self._past else "the option before"
                yield Violation("C-10", f"{name} came before the final reply to {due}")
            if self.shutdown_said:  # C-35
                yield Violation(
                    "C-35", f"{name} came after NBD_REP_ERR_SHUTDOWN, not NBD_OPT_ABORT"
                )
            yield from self._style(option, name)
        yield from data_violations(request)
        check = _CHECKS.get(option)
        if check is not None:
            yield from check(self, request)
        self._past.append(option)
        self._wanted_block_size = self._wanted_block_size or asks_block_size(request)
        self._gathered = []
        self.pending = request
        if option == Option.ABORT:
            self.agreed.phase = Phase.LEFT_HAGGLING
        elif option in (Option.INFO, Option.GO):
            # Facts of an earlier INFO are void; the next reply may say other ones.
            self._forget_facts()

    def _style(self, option: int, name: str) -> Iterator[Violation]:
        agreed = self.agreed
        if agreed.fixed or option in (Option.EXPORT_NAME, Option.STARTTLS):
            return
        if not agreed.handshake_flags & HandshakeFlag.FIXED_NEWSTYLE:  # C-09
            yield Violation(
                "C-09", f"{name} came although the server did not offer fixed newstyle negotiation"
            )
        elif not self._warned_unfixed:  # C-04
            self._warned_unfixed = True
            yield Violation(
                "C-04", f"{name} came although the client flags lack NBD_FLAG_C_FIXED_NEWSTYLE"
            )

    def _export_name(self, request: OptionRequest) -> Iterator[Violation]:
        agreed = self.agreed
        if agreed.extended:  # C-46
            yield Violation(
                "C-46", "NBD_OPT_EXPORT_NAME came after NBD_OPT_EXTENDED_HEADERS was agreed"
            )
        elif self._go_unsupported:
            return
        elif self._wanted_block_size:  # C-34
            yield Violation(
                "C-34",
                "NBD_OPT_EXPORT_NAME came from a client that asked for NBD_INFO_BLOCK_SIZE, "
                "although NBD_OPT_GO is supported",
            )
        elif agreed.tls:  # C-61
            yield Violation("C-61", "NBD_OPT_EXPORT_NAME came over TLS, not NBD_OPT_GO")
        elif agreed.fixed and not self._go_refused:  # C-30
            yield Violation("C-30", "NBD_OPT_EXPORT_NAME came without a try of NBD_OPT_GO")

    def _starttls(self, request: OptionRequest) -> Iterator[Violation]:
        agreed = self.agreed
        if not agreed.fixed:  # C-50
            yield Violation("C-50", "NBD_OPT_STARTTLS came without fixed newstyle on both sides")
        elif agreed.tls:  # C-51
            yield Violation("C-51", "NBD_OPT_STARTTLS came again although TLS is in use")
        # A client that only learns from TLS_REQD that it needs TLS had no reason to ask earlier.
        elif not self._tls_required and Option.STARTTLS not in self._past:
            stateful = [option for option in self._past if option in _STATEFUL]
            if stateful:  # C-55
                yield Violation(
                    "C-55", f"NBD_OPT_STARTTLS came after {option_name(stateful[0])}, now void"
                )
            elif self._past:  # C-54
                yield Violation(
                    "C-54", f"NBD_OPT_STARTTLS came after {option_name(self._past[0])}, not first"
                )

    def _structured_reply(self, request: OptionRequest) -> Iterator[Violation]:
        if self.agreed.structured:  # C-11
            yield Violation("C-11", "NBD_OPT_STRUCTURED_REPLY came again although it was agreed")

    def _extended_headers(self, request: OptionRequest) -> Iterator[Violation]:
        if self.agreed.extended:  # C-11
            yield Violation("C-11", "NBD_OPT_EXTENDED_HEADERS came again although it was agreed")

    def _meta_context(self, request: OptionRequest) -> Iterator[Violation]:
        agreed = self.agreed
        if agreed.structured or agreed.extended:
            return
        name = option_name(request.option)
        setting = request.option == Option.SET_META_CONTEXT
        if setting and agreed.forgotten:  # C-56
            yield Violation(
                "C-56", f"{name} came, but structured replies were negotiated only before TLS began"
            )
        else:  # C-36, C-37
            yield Violation(
                "C-36" if setting else "C-37", f"{name} came before structured replies were agreed"
            )

    # --- replies -------------------------------------------------------------------------------

    def replied(self, reply: OptionReply) -> Iterator[Violation]:
        """Take in a reply to the pending option, whichever option it claims to be for."""
        request = self.pending
        if request is None:
            return
        kind = reply_type(reply)
        body = reply.body
        if kind == Reply.ACK:
            self.pending = None
            yield from self._acked(request)
        elif kind & _IS_ERROR:
            self.pending = None
            self._refused(request, kind)
        elif isinstance(body, MetaContext):
            self._gathered.append(body)
        elif isinstance(body, InfoExport):
            self._take_export(body.size, body.flags)
        elif isinstance(body, InfoBlockSize):
            self.agreed.block_size = body
        elif isinstance(body, InfoText) and body.info == 1:
            self.agreed.names = (*self.agreed.names, body.text)

    def export_name_replied(self, reply: ExportNameReply) -> None:
        request, self.pending = self.pending, None
        self._forget_facts()
        self._take_export(reply.size, reply.flags)
        self._open(request)

    def _take_export(self, size: int, flags: int) -> None:
        agreed = self.agreed
        if agreed.size is None:
            agreed.size, agreed.flags = size, flags
        else:
            # Told twice (S-52), the client may believe either.
            agreed.size = max(agreed.size, size)
            agreed.flags |= flags

    def _forget_facts(self) -> None:
        fresh = Agreement()
        self.agreed.size, self.agreed.flags = fresh.size, fresh.flags
        self.agreed.block_size, self.agreed.names = fresh.block_size, fresh.names

    def _acked(self, request: OptionRequest) -> Iterator[Violation]:
        agreed = self.agreed
        option = request.option
        if option == Option.STRUCTURED_REPLY:
            agreed.structured = True
        elif option == Option.EXTENDED_HEADERS:
            agreed.extended = True
        elif option == Option.STARTTLS:
            agreed.phase = Phase.TLS_DUE
        elif option == Option.ABORT:
            self.abort_acked = True
        elif option == Option.SET_META_CONTEXT:
            agreed.contexts = {context.context_id: context.name for context in self._gathered}
            agreed.selection = Selection.LIVE if agreed.contexts else Selection.NONE
            agreed.selected_for = export_name(request) or ""
        elif option == Option.GO:
            agreed.asked_block_size = asks_block_size(request)
            agreed.opened_by_go = True
            self._open(request)
            if not agreed.asked_block_size:  # C-33
                yield Violation("C-33", "NBD_OPT_GO did not ask for NBD_INFO_BLOCK_SIZE")

    def _open(self, request: OptionRequest | None) -> None:
        name = export_name(request) if request is not None else None
        if name is not None:
            self.agreed.names = (name, *self.agreed.names)
        self.agreed.phase = Phase.TRANSMISSION

    def _refused(self, request: OptionRequest, kind: int) -> None:
        agreed = self.agreed
        option = request.option
        if kind == Reply.ERR_SHUTDOWN:
            self.shutdown_said = True
        if kind == Reply.ERR_TLS_REQD:
            self._tls_required = True
        if option in (Option.INFO, Option.GO):
            self._go_refused = True
            self._go_unsupported = self._go_unsupported or kind == Reply.ERR_UNSUP
        elif option == Option.STARTTLS:
            self.tls_refused = True
        elif option == Option.SET_META_CONTEXT:
            # An earlier selection goes with it.
            agreed.contexts = {}
            if agreed.selection is not Selection.NONE:
                agreed.selection = Selection.FAILED

    # --- TLS and the end -----------------------------------------------------------------------

    def tls_started(self) -> None:
        self.agreed.tls = True
        self.agreed.phase = Phase.HAGGLING
        self.agreed.forget()
        self._past = []

    def left(self) -> Iterator[Violation]:
        """The client is gone without NBD_OPT_ABORT."""
        if self.tls_refused or not self.agreed.fixed:
            return
        if self.agreed.tls and not self._past:
            # Our side of a TLS handshake can be complete when the client still checks who we are.
            return
        if self.shutdown_said:  # C-35
            yield Violation(
                "C-35", "the client left after NBD_REP_ERR_SHUTDOWN without NBD_OPT_ABORT"
            )
        else:  # C-132
            yield Violation("C-132", "the client left option negotiation without NBD_OPT_ABORT")


_Check = Callable[[Haggling, OptionRequest], Iterator[Violation]]
_CHECKS: Final[dict[int, _Check]] = {
    Option.EXPORT_NAME: Haggling._export_name,
    Option.STARTTLS: Haggling._starttls,
    Option.STRUCTURED_REPLY: Haggling._structured_reply,
    Option.EXTENDED_HEADERS: Haggling._extended_headers,
    Option.LIST_META_CONTEXT: Haggling._meta_context,
    Option.SET_META_CONTEXT: Haggling._meta_context,
}
