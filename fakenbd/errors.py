"""Every error fakenbd raises on purpose, a class for each thing a caller can do differently.

FakenbdError
├── ProtocolError            bytes that no NBD peer may send; give up the connection
├── UriError                 a URI that names no NBD export; mend the URI
├── ProfileError             a profile with mistakes, all of them listed; mend the file
├── ServeError               the server cannot start here (address, path, file); mend the set-up
├── ExpectationError         the journal does not hold what a test expected (an AssertionError too)
└── ClientError              the reference client could not do what it was asked
    ├── OptionRefusedError   the server said no to an option; ask for something else
    ├── CommandError         the server answered a command with an error number
    ├── NoncomplianceError   a breach that a tolerant client would have noted and survived
    ├── ConnectionLostError  the connection is gone; reconnecting may help
    │   └── DeadlineExceededError  … because nothing came in time
    ├── ShutdownError        the server said that it is shutting down; come back later
    ├── SessionChangedError  the server came back as something else; do not reuse what you knew
    └── TLSError             TLS was required or refused, or the peer could not be trusted
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "ClientError",
    "CommandError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "ExpectationError",
    "FakenbdError",
    "NoncomplianceError",
    "OptionRefusedError",
    "ProfileError",
    "ProtocolError",
    "ServeError",
    "SessionChangedError",
    "ShutdownError",
    "TLSError",
    "UriError",
]


class FakenbdError(Exception):
    """The root of the family: `except FakenbdError` catches all that fakenbd raises on purpose."""

    def __reduce__(self) -> tuple[Callable[..., FakenbdError], tuple[Any, ...]]:
        # By default a copy is made by calling the class with `args`, which holds the finished
        # message and not what the subclasses' constructors take.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[FakenbdError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> FakenbdError:
    """An error as it was when it was copied or pickled."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class ProtocolError(FakenbdError):
    """The peer sent bytes that the protocol does not allow; the connection cannot go on.

    `rule` is the id of the broken rule (C-… for clients, S-… for servers), "" where no row has it.
    """

    def __init__(self, message: str, *, rule: str = "") -> None:
        super().__init__(f"{message} ({rule})" if rule else message)
        self.rule = rule


class UriError(FakenbdError):
    """The text is not a URI of an NBD export (see doc/uri.md of the NBD specification)."""


class ProfileError(FakenbdError):
    """A profile that cannot be used. `mistakes` holds one sentence for each thing to mend."""

    def __init__(self, source: str, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))
        self.source = source
        self.mistakes = tuple(mistakes)


class ServeError(FakenbdError):
    """The server cannot start: an address in use, a path too long, a file that is gone."""


class ExpectationError(FakenbdError, AssertionError):
    """The journal does not hold what was expected; the text shows the closest entries."""


class ClientError(FakenbdError):
    """The reference client could not do what it was asked."""


class OptionRefusedError(ClientError):
    """The server refused an option. `reply` is the NBD_REP_ERR_… number, `text` what it said."""

    def __init__(self, message: str, *, reply: int = 0, text: str = "") -> None:
        super().__init__(message)
        self.reply = reply
        self.text = text


class CommandError(ClientError):
    """The server answered a command with an error, or with a success that cannot be one.

    `error` is the number as the protocol counts it: one that NBD does not know is EINVAL. `number`
    is what came on the wire, 0 for such a success; `offset` is where the server met the error, if
    it said.
    """

    def __init__(
        self, message: str, *, error: int, number: int | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.error = error
        self.number = error if number is None else number
        self.offset = offset


class NoncomplianceError(ClientError):
    """A breach that the tolerant client survives, met by a client told not to tolerate any."""

    def __init__(self, message: str, *, rule: str = "") -> None:
        super().__init__(f"{message} ({rule})" if rule else message)
        self.rule = rule


class ConnectionLostError(ClientError):
    """The connection ended before the answer was complete."""


class DeadlineExceededError(ConnectionLostError):
    """Nothing came in time; the connection was given up."""


class ShutdownError(ClientError):
    """The server is shutting down (NBD_ESHUTDOWN or NBD_REP_ERR_SHUTDOWN)."""


class SessionChangedError(ClientError):
    """After reconnecting the server offers less than before. `changes` says what, one a line."""

    def __init__(self, changes: Sequence[str]) -> None:
        super().__init__("the server came back changed: " + "; ".join(changes))
        self.changes = tuple(changes)


class TLSError(ClientError):
    """TLS was required and not to be had, or the peer's identity could not be verified."""
