"""The client's stream, cut into client flags, options and requests.

The phase gives what is due, but the magic decides: a client that understands a reply differently
from the server is in another phase, and is followed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final, NamedTuple, TypeAlias

import attrs

from fakenbd.obligations.framing import looks_like_tls
from fakenbd.obligations.negotiation_rules import Negotiation
from fakenbd.obligations.shown import Phase, ShownState
from fakenbd.obligations.stream import Framer
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REQUEST_MAGIC,
    IHAVEOPT,
    REQUEST_MAGIC,
    Command,
)
from fakenbd.protocol.decode_client import (
    decode_client_flags,
    decode_option_request,
    decode_request,
    decode_request_header,
    payload_length,
)
from fakenbd.protocol.messages import ClientMessage, OptionRequest, RawBody

__all__ = [
    "ClientEvent",
    "ClientFramer",
    "FromClient",
    "Misframed",
    "Missed",
    "PayloadEnded",
    "SkippedFlags",
]

_U32: Final = layout.U32.size
_OPTION_MAGIC: Final = IHAVEOPT.to_bytes(8, "big")
# Each with whether its header is the extended one.
_REQUEST_MAGICS: Final = {
    REQUEST_MAGIC.to_bytes(4, "big"): False,
    EXTENDED_REQUEST_MAGIC.to_bytes(4, "big"): True,
}
_UNREADABLE: Final = (Phase.TLS_HANDSHAKE, Phase.TLS_FAILED)
_LARGEST_KEPT: Final = 1 << 18


class FromClient(NamedTuple):
    """A message that begins at `offset`; of a request with bulk data only the header was received.

    `phase` and `early` are those at its first byte; `early`: an option was unanswered.
    """

    message: ClientMessage
    offset: int
    phase: Phase
    early: bool
    whole: bool = True


class PayloadEnded(NamedTuple):
    """The bulk data of the request before are complete."""


class SkippedFlags(NamedTuple):
    """An option or a request began where the client flags are due."""

    option: bool
    offset: int


class Misframed(NamedTuple):
    """Bytes that begin no message, up to 8 of them."""

    head: bytes
    offset: int


class Missed(NamedTuple):
    """Bytes of this stream were never seen."""


ClientEvent: TypeAlias = FromClient | PayloadEnded | SkippedFlags | Misframed | Missed


@attrs.define(eq=False)
class ClientFramer(Framer[ClientEvent]):
    """Cuts the client's stream."""

    MAGICS: ClassVar[tuple[bytes, ...]] = (_OPTION_MAGIC, *_REQUEST_MAGICS)

    shown: ShownState = attrs.field(kw_only=True)
    negotiation: Negotiation = attrs.field(kw_only=True)
    _phase: Phase = Phase.GREETING
    _early: bool = False
    _flags_due: bool = False
    _stage: Callable[[], Iterable[ClientEvent]] = attrs.field(init=False)
    _large: OptionRequest | None = None

    def finish(self) -> Iterable[ClientEvent]:
        """The stream has ended: check whether the bytes kept begin a message at all."""
        head = bytes(self.head)
        if not head or self.skip or self.hunting or not self.trusted:
            return ()
        if self._stage == self._misframed:
            return self._misframed()
        if self._flags_due or self._stage not in (self._magic, self._option_magic):
            return ()
        if any(magic.startswith(head) for magic in self.MAGICS):
            return ()
        return self._misframed()

    def _begin(self) -> None:
        self.begin = self.offset
        self._phase, self._early = self.shown.phase, bool(self.negotiation.unanswered)
        self._flags_due = self._phase is Phase.GREETING and not self.hunted
        self._stage, self.want = self._magic, _U32
        if self._phase is Phase.DISCONNECTING:
            self._stage, self.want = self._misframed, 1
        elif self._phase in _UNREADABLE:
            self._stage, self.want = self._misframed, len(_OPTION_MAGIC)

    def _step(self) -> Iterable[ClientEvent]:
        return self._stage()

    def _magic(self) -> Iterable[ClientEvent]:
        head = bytes(self.head)
        extended = _REQUEST_MAGICS.get(head)
        if extended is not None:
            form = layout.EXTENDED_REQUEST if extended else layout.COMPACT_REQUEST
            self._stage, self.want = self._request_header, form.size
        elif head == _OPTION_MAGIC[:_U32]:
            self._stage, self.want = self._option_magic, len(_OPTION_MAGIC)
        elif self._flags_due and not looks_like_tls(head):
            return self._client_flags()
        else:
            self._stage, self.want = self._misframed, len(_OPTION_MAGIC)
            return ()
        if self._flags_due:
            self._flags_due, self._phase = False, Phase.OPTIONS
            return (SkippedFlags(extended is None, self.begin),)
        return ()

    def _client_flags(self) -> Iterable[ClientEvent]:
        decoded = decode_client_flags(self.head)
        assert decoded is not None, "the client flags are whole"
        return self._message(decoded[0])

    def _message(self, message: ClientMessage) -> Iterable[ClientEvent]:
        return self._give(FromClient(message, self.begin, self._phase, self._early))

    def _misframed(self) -> Iterable[ClientEvent]:
        return self._refuse(Misframed(bytes(self.head), self.begin))

    def _missed(self) -> Iterable[ClientEvent]:
        return (Missed(),)

    # --- options -------------------------------------------------------------------------------

    def _option_magic(self) -> Iterable[ClientEvent]:
        if self.head != _OPTION_MAGIC:
            return self._misframed()
        self._stage, self.want = self._option_header, layout.OPTION_REQUEST.size
        return ()

    def _option_header(self) -> Iterable[ClientEvent]:
        _, option, length = layout.OPTION_REQUEST.unpack_from(self.head)
        if length > _LARGEST_KEPT:
            self._large, self.skip = OptionRequest(option, RawBody(), length), length
        else:
            self._stage, self.want = self._option, self.want + length
        return ()

    def _option(self) -> Iterable[ClientEvent]:
        decoded = decode_option_request(self.head, limit=_LARGEST_KEPT)
        assert decoded is not None, "the option is whole"
        return self._message(decoded[0])

    # --- requests ------------------------------------------------------------------------------

    def _request_header(self) -> Iterable[ClientEvent]:
        extended = _REQUEST_MAGICS[bytes(self.head[:_U32])]
        request = decode_request_header(self.head, extended=extended)
        assert request is not None, "the header is whole"
        length = payload_length(request)
        if not length:
            return self._message(request)
        if request.command == Command.BLOCK_STATUS and length <= _LARGEST_KEPT:
            self._stage, self.want = self._request, self.want + length
            return ()
        self.skip = length
        if not self.trusted:
            return ()
        return (FromClient(request, self.begin, self._phase, self._early, whole=False),)

    def _request(self) -> Iterable[ClientEvent]:
        extended = _REQUEST_MAGICS[bytes(self.head[:_U32])]
        decoded = decode_request(self.head, extended=extended, limit=_LARGEST_KEPT)
        assert decoded is not None, "the request is whole"
        return self._message(decoded[0])

    def _ended(self) -> Iterable[ClientEvent]:
        large, self._large = self._large, None
        return self._message(large) if large is not None else self._give(PayloadEnded())
