"""The client's half of the handshake, without any I/O, as generators of steps (see `option`).

Each fallback is a plain sequence: send an option, look at the reply, continue.


    oldstyle           size and flags come with the greeting; there are no options
    newstyle           one option only, EXPORT_NAME; a refusal is a closed connection
    fixed newstyle     STARTTLS, EXTENDED_HEADERS, else STRUCTURED_REPLY, SET_META_CONTEXT, GO;
                       after any error, except those that end the session, it is done without

Framing is checked strictly, and a breach raises ProtocolError. A refused option raises an error of
the ClientError family; the session is then still in negotiation, and ends with `abort`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import attrs

from fakenbd.client.export_info import ExportInfo, Listed, validated, well_formed
from fakenbd.client.noncompliance import Noncompliance, Notes
from fakenbd.client.option import (
    REPLY_LIMIT,
    Handshake,
    Receive,
    Refusal,
    Send,
    Upgrade,
    ask,
)
from fakenbd.errors import (
    ClientError,
    ConnectionLostError,
    OptionRefusedError,
    ProtocolError,
    TLSError,
)
from fakenbd.protocol import messages
from fakenbd.protocol.constants import (
    OPTION_REPLY_MAGIC,
    ClientFlag,
    Command,
    Info,
    Option,
    Reply,
    spec_name,
)
from fakenbd.protocol.decode import (
    decode_export_name_reply,
    decode_greeting,
    decode_option_reply,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Greeting, OldstyleGreeting, OptionRequest
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState
from fakenbd.protocol.text import quoted

__all__ = ["HandshakeRequest", "Negotiation", "TLSPolicy"]

_KINDS: Final = {messages.InfoExport: Info.EXPORT, messages.InfoBlockSize: Info.BLOCK_SIZE}
"""The information types whose messages do not name their type."""

TLSPolicy: TypeAlias = Literal["off", "allow", "require"]

CLIENT_FLAGS: Final = int(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)
"""The client sends those of these flags that the server offered: both have the same bits."""

INFOS: Final = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)


@attrs.frozen
class HandshakeRequest:
    """What the client asks for; all but the export and required TLS is optional."""

    export: str = ""
    contexts: tuple[str, ...] = ()
    tls: TLSPolicy = "off"
    structured: bool = True
    extended: bool = True

    def __attrs_post_init__(self) -> None:
        for name in self.contexts:
            if ":" not in name.strip(":"):  # C-38
                raise ClientError(
                    f"{quoted(name)} is no metadata context: one is a namespace, a colon and a leaf"
                )


@attrs.define(eq=False)
class Negotiation:
    """One handshake: `begin` first, then `list_exports`, `info` and `list_contexts`, or `open`."""

    requested: HandshakeRequest = HandshakeRequest()
    notes: Notes = attrs.field(factory=Notes)
    negotiated: NegotiatedState = attrs.field(factory=NegotiatedState, init=False)
    negotiating: bool = attrs.field(default=False, init=False)
    """Whether the session has to end with `abort` (C-132)."""
    transmitting: bool = attrs.field(default=False, init=False)
    """Whether the session has to end with NBD_CMD_DISC (C-128)."""

    # --- the whole handshake -------------------------------------------------------------------

    def open(self) -> Handshake[NegotiatedState]:
        """The handshake up to transmission."""
        greeting = yield from self.begin()
        if isinstance(greeting, OldstyleGreeting):
            return self._oldstyle(greeting)
        if self.requested.contexts and self.negotiated.chunks:
            yield from self._select()
        export_info = None
        if self.negotiating:
            export_info = yield from self._go()
        if export_info is None:
            export_info = yield from self._export_name()
        return self._opened(export_info)

    def disconnect(self) -> bytes:
        """The bytes of NBD_CMD_DISC, for a session that is not needed after all."""
        self.transmitting = False
        return encode(messages.Request(Command.DISC, extended=self.negotiated.extended))

    def begin(self) -> Handshake[Greeting | OldstyleGreeting]:
        """Greeting, client flags, TLS, and the form of replies."""
        greeting: Greeting | OldstyleGreeting = yield Receive(decode_greeting)
        if isinstance(greeting, OldstyleGreeting):
            self.negotiated.oldstyle = True
            self._need_no_tls("oldstyle")
            return greeting
        self.negotiated.handshake_flags = greeting.flags
        self.negotiated.client_flags = greeting.flags & CLIENT_FLAGS  # C-05
        if not self.negotiated.fixed:
            self._need_no_tls("newstyle without options")  # S-113
        yield Send(encode(messages.ClientFlags(self.negotiated.client_flags)), "first option reply")
        if self.negotiated.fixed:
            self.negotiating = True
            yield from self._start_tls()
            yield from self._choose_replies()
        return greeting

    def _opened(self, export_info: ExportInfo) -> NegotiatedState:
        self.negotiating, self.transmitting = False, True
        export_info, notes = validated(export_info, self.negotiated)
        self.notes.add(notes)
        self.negotiated.export = export_info.name
        self.negotiated.size = export_info.size
        self.negotiated.flags = export_info.flags
        self.negotiated.block_size = export_info.block_size
        self.negotiated.canonical_name = export_info.canonical_name
        self.negotiated.description = export_info.description
        return self.negotiated

    def _oldstyle(self, greeting: OldstyleGreeting) -> NegotiatedState:
        if greeting.flags >> 16:  # S-09
            came = f"the oldstyle greeting has handshake flags {greeting.flags >> 16:#x}"
            self.notes.add([Noncompliance("S-09", came, "they are ignored")])
        return self._opened(
            ExportInfo(self.requested.export, greeting.size, greeting.flags & 0xFFFF)
        )

    # --- TLS and the form of replies -----------------------------------------------------------

    def _need_no_tls(self, style: str) -> None:
        if self.requested.tls == "require":
            raise TLSError(f"TLS is required, but the server speaks {style}, which has none")

    def _start_tls(self) -> Handshake[None]:
        if self.requested.tls == "off":
            return
        _, refusal = yield from self._ask(Option.STARTTLS)
        if refusal is None:
            # After a failed upgrade the connection is closed: ABORT would be sent in clear (C-57).
            self.negotiating = False
            yield Upgrade()
            self.negotiated.forget()
            self.negotiating = True
        elif self.requested.tls == "require":  # C-53
            raise TLSError(f"TLS is required, but the server refused it with {refusal}")

    def _choose_replies(self) -> Handshake[None]:
        if self.requested.extended:
            _, refusal = yield from self._ask(Option.EXTENDED_HEADERS)
            self.negotiated.extended = refusal is None
        if self.requested.structured and not self.negotiated.extended:
            _, refusal = yield from self._ask(Option.STRUCTURED_REPLY)
            self.negotiated.structured = refusal is None

    # --- options -------------------------------------------------------------------------------

    def list_exports(self) -> Handshake[tuple[Listed, ...]]:
        """NBD_OPT_LIST: all exports. Raises OptionRefusedError where the server refuses."""
        replies, refusal = yield from self._ask(Option.LIST, allowed=(messages.Server,))
        if refusal is not None:
            raise self._refused("the server lists no exports", refusal)
        listed = []
        for reply in replies:
            if well_formed(reply.name) and well_formed(reply.description):
                listed.append(Listed(reply.name, reply.description))
            else:  # S-42
                came = f"the list has an export with an impossible name {quoted(reply.name)}"
                self.notes.add([Noncompliance("S-42", came, "it is left out")])
        return tuple(listed)

    def info(self, export: str) -> Handshake[ExportInfo]:
        """NBD_OPT_INFO: the information on an export, without opening it."""
        export_info, refusal = yield from self._describe(Option.INFO, export)
        if export_info is None:
            raise self._no_export(export, refusal)
        export_info, notes = validated(export_info, self.negotiated)
        self.notes.add(notes)
        return export_info

    def list_contexts(self, export: str) -> Handshake[tuple[str, ...]]:
        """NBD_OPT_LIST_META_CONTEXT: all contexts, none where it is refused.

        Without a query qemu-nbd 3.0 omits the contexts of its own namespace, so if there are none
        of these a second request has a query for them.
        """
        found: dict[str, None] = {}
        if not self.negotiated.chunks:
            return ()
        for queries in ((), ("qemu:",)):
            if any(name.startswith("qemu:") for name in found):
                break
            query = messages.MetaContextQuery(export, queries)
            option = Option.LIST_META_CONTEXT
            replies, refusal = yield from self._ask(option, query, (messages.MetaContext,))
            if refusal is not None:  # C-42
                break
            found |= dict.fromkeys(reply.name for reply in replies if well_formed(reply.name))
        return tuple(found)

    def abort(self, *, awaited: bool = True) -> Handshake[None]:
        """NBD_OPT_ABORT: end the session; with `awaited` wait for any reply."""
        self.negotiating = False
        yield Send(encode(OptionRequest(Option.ABORT)), "reply to NBD_OPT_ABORT")
        if awaited:
            with suppress(ConnectionLostError, ProtocolError):  # C-47
                yield Receive(partial(decode_option_reply, limit=REPLY_LIMIT))

    def _select(self) -> Handshake[None]:
        """NBD_OPT_SET_META_CONTEXT: select the requested contexts; none if it is refused."""
        query = messages.MetaContextQuery(self.requested.export, self.requested.contexts)
        option = Option.SET_META_CONTEXT
        replies, refusal = yield from self._ask(option, query, (messages.MetaContext,))
        if refusal is not None:  # C-42
            return
        self.negotiated.contexts_export = self.requested.export
        selected = self.negotiated.contexts
        for reply in replies:
            if reply.context_id in selected:
                raise ProtocolError(
                    f"the server gave id {reply.context_id} to two contexts", rule="S-82"
                )
            if reply.name in selected.values():
                raise ProtocolError(f"the server selected {quoted(reply.name)} twice", rule="S-83")
            selected[reply.context_id] = reply.name
            if reply.name not in self.requested.contexts:
                came = f"the server selected {quoted(reply.name)}, which was not asked for"
                self.notes.add([Noncompliance("S-81", came, "its extents are ignored")])

    def _go(self) -> Handshake[ExportInfo | None]:
        """NBD_OPT_GO; None where the server does not know it."""
        export = self.requested.export
        export_info, refusal = yield from self._describe(Option.GO, export)
        if refusal is not None and refusal.kind == Reply.ERR_BLOCK_SIZE_REQD:
            # Block sizes were asked for, so this is S-67, or the server missed it: ask once more.
            export_info, refusal = yield from self._describe(Option.GO, export)
        if export_info is None and refusal is not None and refusal.kind == Reply.ERR_UNSUP:
            if self.negotiated.extended:
                raise ProtocolError(
                    "the server agreed to extended headers, but not to NBD_OPT_GO", rule="S-91"
                )
            return None
        if export_info is None:
            raise self._no_export(export, refusal)
        self.negotiated.block_size_asked = True
        return export_info

    def _describe(self, option: Option, export: str) -> Handshake[tuple[ExportInfo | None, Any]]:
        query = messages.InfoQuery(export, INFOS)
        allowed = (messages.InfoExport, messages.InfoText, messages.InfoBlockSize)
        replies, refusal = yield from self._ask(option, query, allowed)
        if refusal is not None:  # S-72: replies before an error are void
            return None, refusal
        return self._export_info(option, export, replies), None

    def _export_info(self, option: Option, export: str, replies: Sequence[Any]) -> ExportInfo:
        found: dict[int, Any] = {}
        for reply in replies:
            kind = _KINDS.get(type(reply))
            kind = reply.info if kind is None else kind
            if kind in (Info.NAME, Info.DESCRIPTION) and not well_formed(reply.text):
                came = f"an impossible {spec_name(Info, kind)} came: {quoted(reply.text)}"
                self.notes.add([Noncompliance("S-70", came, "it is ignored")])
                continue
            before = found.get(kind, reply)
            if before != reply and kind in (Info.EXPORT, Info.BLOCK_SIZE):
                came = f"{spec_name(Info, kind)} came twice, differently"
                self.notes.add([Noncompliance("S-52", came, "the last one is used")])
            found[kind] = reply
        about = found.get(Info.EXPORT)
        if about is None:
            raise ProtocolError(
                f"the server accepted {spec_name(Option, option)} without NBD_INFO_EXPORT",
                rule="S-50",
            )
        blocks, canonical, text = map(found.get, (Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION))
        return ExportInfo(
            name=export,
            size=about.size,
            flags=about.flags,
            block_size=blocks and BlockSize(blocks.minimum, blocks.preferred, blocks.maximum),
            canonical_name=canonical and canonical.text,
            description=text and text.text,
        )

    def _export_name(self) -> Handshake[ExportInfo]:
        export = self.requested.export
        request = OptionRequest(Option.EXPORT_NAME, messages.ExportName(export))
        self.negotiating = False
        yield Send(encode(request), "answer to NBD_OPT_EXPORT_NAME")
        try:
            reply = yield Receive(
                partial(decode_export_name_reply, zeroes=not self.negotiated.no_zeroes)
            )
        except ConnectionLostError as error:  # S-66: there is no other way to refuse
            raise OptionRefusedError(
                f"the server closed the connection when asked for the export {quoted(export)}"
            ) from error
        if reply.size == OPTION_REPLY_MAGIC:
            raise ProtocolError(
                "the answer to NBD_OPT_EXPORT_NAME is wrapped in an option reply", rule="S-65"
            )
        return ExportInfo(export, reply.size, reply.flags)

    # --- one option ----------------------------------------------------------------------------

    def _ask(
        self,
        option: Option,
        body: messages.OptionBody | None = None,
        allowed: tuple[type, ...] = (),
    ) -> Handshake[tuple[Sequence[Any], Refusal | None]]:
        return (yield from ask(option, body, allowed, notes=self.notes, tls=self.negotiated.tls))

    def _no_export(self, export: str, refusal: Refusal | None) -> OptionRefusedError:
        return self._refused(f"the server does not open the export {quoted(export)}", refusal)

    @staticmethod
    def _refused(what: str, refusal: Refusal | None) -> OptionRefusedError:
        if refusal is None:
            return OptionRefusedError(what)
        return OptionRefusedError(f"{what}: {refusal}", reply=refusal.kind, text=refusal.text)
