"""One option and all its replies, without any I/O: the strict part of the handshake.

A handshake is a generator of steps: Send bytes, Receive a message with a decoder, Upgrade the
stream to TLS. Its driver performs the step and sends the result back in; the end of the connection
is thrown in as ConnectionLostError at the Receive.

A reply to another option, of a type that the option does not have, or whose body does not fit its
type is a ProtocolError, and so are replies without end: they are bounded in number and in bytes.
Error replies are results, apart from the two that end every handshake: ERR_SHUTDOWN, and
ERR_TLS_REQD to anything but STARTTLS.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from fakenbd.client.noncompliance import Noncompliance, Notes
from fakenbd.errors import ProtocolError, ShutdownError, TLSError
from fakenbd.protocol.constants import MAXIMUM_STRING, Info, Option, Reply, spec_name
from fakenbd.protocol.decode import decode_option_reply
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    ErrorReply,
    OptionBody,
    OptionReply,
    OptionRequest,
    RawBody,
    ReplyBody,
)
from fakenbd.protocol.text import escaped

__all__ = ["REPLY_LIMIT", "Handshake", "Receive", "Refusal", "Send", "Step", "Upgrade", "ask"]

REPLY_LIMIT: Final = 1 << 16
"""The most bytes of data in one reply: enough for a name and a description of full length."""

REPLIES: Final = 1 << 17
GATHERED: Final = 1 << 24
"""The most replies to one option, and bytes in them; with more the replies never end (S-29)."""

_KNOWN: Final = frozenset(int(kind) for kind in Reply)
_MISFITS: Final[dict[int, str]] = {Reply.SERVER: "S-40", Reply.META_CONTEXT: "S-84"}
_INFO_MISFITS: Final[dict[int, str]] = {Info.EXPORT: "S-51", Info.BLOCK_SIZE: "S-53"}


@attrs.frozen
class Send:
    """Send `data`; then `awaiting` is due, with a deadline of its own."""

    data: bytes
    awaiting: str


@attrs.frozen
class Receive:
    """Receive one message: `decode` takes the bytes and returns (message, length) or None."""

    decode: Callable[[memoryview], tuple[Any, int] | None]


@attrs.frozen
class Upgrade:
    """Begin TLS; bytes received in clear behind the ACK end the connection (S-105)."""


Step: TypeAlias = Send | Receive | Upgrade
_T = TypeVar("_T")
Handshake: TypeAlias = Generator[Step, Any, _T]


@attrs.frozen
class Refusal:
    """The error reply to an option."""

    kind: int
    text: str

    def __str__(self) -> str:
        name = spec_name(Reply, self.kind)
        return f"{name}: {escaped(self.text)}" if self.text else name


def ask(
    option: Option, body: OptionBody | None, allowed: tuple[type, ...], *, notes: Notes, tls: bool
) -> Handshake[tuple[Sequence[Any], Refusal | None]]:
    """Send one option; returns the bodies before its final reply, and that if it is an error.

    `allowed` are the classes that these bodies may have, `tls` is whether TLS is in force.
    """
    name = spec_name(Option, option)
    request = OptionRequest(option) if body is None else OptionRequest(option, body)
    yield Send(encode(request), f"final reply to {name}")
    gathered: list[ReplyBody] = []
    size = 0

    def decode(view: memoryview) -> tuple[OptionReply, int] | None:
        nonlocal size
        decoded = decode_option_reply(view, limit=REPLY_LIMIT)
        if decoded is not None:
            size += decoded[1]
        return decoded

    while True:
        reply: OptionReply = yield Receive(decode)
        answer = reply.body
        if reply.option != option:
            echoed = spec_name(Option, reply.option)
            raise ProtocolError(f"a reply to {echoed} came in answer to {name}", rule="S-21")
        if isinstance(answer, Ack):
            if answer.data:
                came = f"the NBD_REP_ACK to {name} has {len(answer.data)} bytes of data"
                notes.add([Noncompliance("S-25", came, "they are ignored")])
            return gathered, None
        if isinstance(answer, ErrorReply):
            return gathered, _refusal(option, reply.type or 0, answer.text, notes=notes, tls=tls)
        if not isinstance(answer, allowed):
            raise _wrong_reply(name, reply.type, answer)
        gathered.append(answer)
        if len(gathered) > REPLIES or size > GATHERED:
            raise ProtocolError(f"the replies to {name} do not end", rule="S-29")


def _refusal(option: Option, kind: int, text: str, *, notes: Notes, tls: bool) -> Refusal:
    refusal = Refusal(kind, text)
    name = spec_name(Option, option)
    if len(text) > MAXIMUM_STRING:
        came = f"the error to {name} has a text of {len(text)} characters"
        notes.add([Noncompliance("S-27", came, "it is cut where it is shown")])
    if kind == Reply.ERR_SHUTDOWN:  # C-35
        raise ShutdownError(f"the server answered {name} with {refusal}")
    if kind == Reply.ERR_TLS_REQD and tls:
        raise ProtocolError(f"the server answered {name} with {refusal} under TLS", rule="S-101")
    if kind == Reply.ERR_TLS_REQD and option != Option.STARTTLS:
        raise TLSError(f"the server requires TLS: it answered {name} with {refusal}")
    return refusal


def _wrong_reply(name: str, kind: int | None, body: ReplyBody) -> ProtocolError:
    if not isinstance(body, RawBody):
        what = type(body).__name__
        return ProtocolError(f"{name} was answered with {what}, which is for another", rule="S-24")
    if kind is None or kind not in _KNOWN:
        return ProtocolError(f"{name} was answered with the unknown type {kind}", rule="S-22")
    rule = _MISFITS.get(kind)
    if kind == Reply.SERVER and len(body.data) < 4:
        rule = "S-41"
    if rule is None:
        info = int.from_bytes(bytes(body.data[:2]), "big") if len(body.data) > 1 else None
        rule = "S-71" if info is None else _INFO_MISFITS.get(info, "S-71")
    return ProtocolError(
        f"the {spec_name(Reply, kind)} to {name} has {len(body.data)} bytes that do not fit",
        rule=rule,
    )
