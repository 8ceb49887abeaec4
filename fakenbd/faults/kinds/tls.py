"""Faults of TLS: in the TLS handshake that STARTTLS begins, and an end without close_notify."""

from __future__ import annotations

from typing import Any

import attrs

from fakenbd.faults.answer import Answer, CloseConnection, NeverSend, StartTLS, Step
from fakenbd.faults.change_summary import counted, ended, listed
from fakenbd.faults.firing import Firing
from fakenbd.faults.message_template import MessageTemplate, message_template
from fakenbd.faults.readers import one_of, whole
from fakenbd.faults.registry import Kind, register
from fakenbd.protocol.messages import ServerMessage

__all__ = [
    "AbortHandshake",
    "Certificate",
    "KeepState",
    "NoCloseNotify",
    "NoHandshake",
    "PlaintextAfterAck",
    "TLSVersion",
]


def _certificate(value: Any) -> str:
    return one_of(value, ("expired", "wrong-host", "untrusted", "self-signed"))


def _instead(value: Any) -> str:
    return one_of(value, ("clear", "silence", "close", "reset"))


def _version(value: Any) -> str:
    return one_of(value, ("1.0", "1.1", "1.2", "1.3"))


def _starting(
    answer: Answer, note: str, step: Step | None = None, **changes: Any
) -> tuple[Answer, str]:
    """The answer with its StartTLS step changed, or replaced by `step`."""
    changed = [
        (attrs.evolve(each, **changes) if step is None else step)
        if isinstance(each, StartTLS)
        else each
        for each in answer
    ]
    return changed, note if changed != answer else ""


@register("certificate", family="tls", main="certificate", events=("option",))
@attrs.frozen
class Certificate(Kind):
    """Show a certificate that the client must not accept.

    Example: do = { certificate = "expired" }

    certificate: "expired", "wrong-host", "untrusted" or "self-signed" (required)
    """

    certificate: str = attrs.field(converter=_certificate)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        note = f"began TLS with certificate {self.certificate}"
        return _starting(answer, note, certificate=self.certificate)


@register("plaintext-after-ack", family="tls", main="message", events=("option",))
@attrs.frozen
class PlaintextAfterAck(Kind):
    """Send a message in clear behind the ack of STARTTLS, in the same write, before the handshake.

    Example: do = { plaintext-after-ack = { message = "ack", option = "structured-reply" } }

    message: the message, written as for `reply`, or bytes (required)
    """

    message: MessageTemplate | ServerMessage = attrs.field(converter=message_template)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        message = self.message
        if isinstance(message, MessageTemplate):
            message = message.build(firing.event)
        changed: Answer = []
        for step in answer:
            changed += [message, step] if isinstance(step, StartTLS) else [step]
        return changed, f"inserted {listed([message])}" if changed != answer else ""


@register("no-handshake", family="tls", main="instead", events=("option",), may_stall=True)
@attrs.frozen
class NoHandshake(Kind):
    """Acknowledge STARTTLS and do not begin TLS.

    Example: do = { no-handshake = "silence" }

    instead: "clear" (go on in clear), "silence", "close" or "reset" (default "clear")
    """

    instead: str = attrs.field(default="clear", converter=_instead)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        if self.instead == "clear":
            return _starting(answer, "went on in clear instead of TLS", skip=True)
        if self.instead == "silence":
            return _starting(answer, "stalled instead of TLS", NeverSend())
        end = CloseConnection("reset" if self.instead == "reset" else "close")
        return _starting(answer, f"{end.how} instead of TLS", end)


@register("tls-version", family="tls", main="version", events=("option",))
@attrs.frozen
class TLSVersion(Kind):
    """Speak one version of TLS only.

    Example: do = { tls-version = "1.1" }

    version: "1.0", "1.1", "1.2" or "1.3" (required)
    """

    version: str = attrs.field(converter=_version)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        return _starting(answer, f"began TLS with version {self.version}", version=self.version)


@register("keep-state", family="tls", events=("option",))
@attrs.frozen
class KeepState(Kind):
    """Keep in force after STARTTLS what was negotiated in clear.

    Example: do = { keep-state = true }
    """

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        return _starting(answer, "kept what was negotiated before TLS", keep=True)


@register("abort-handshake", family="tls", main="after", events=("option",))
@attrs.frozen
class AbortHandshake(Kind):
    """Begin the TLS handshake and drop the connection in the middle of it.

    Example: do = { abort-handshake = 100 }

    after: bytes of the handshake that the server sends before, all if it has less (default 0)
    """

    after: int = attrs.field(default=0, converter=whole)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        note = f"ended the TLS handshake after {counted(self.after, 'byte')}"
        return _starting(answer, note, abort=self.after)


@register("no-close-notify", family="tls", events=("greeting", "option", "command"))
@attrs.frozen
class NoCloseNotify(Kind):
    """End the connection without close_notify, as a truncation attack would.

    Where the answer does not end the connection, this does, after it. To end in the middle of an
    answer, see `cut` with then = "truncate".

    Example: do = { no-close-notify = true }
    """

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        ends = [step for step in answer if isinstance(step, CloseConnection)]
        reading = ends[0].reading if ends else 0
        changed = [
            *(step for step in answer if not isinstance(step, CloseConnection)),
            CloseConnection("truncate", reading),
        ]
        return changed, ended(answer, changed)
