"""The errors that fakenbd raises on purpose, a class for each thing a caller can do differently.

FakenbdError
├── ProtocolError            bytes that no NBD peer may send; give up the connection
├── UriError                 a URI that names no NBD export; correct the URI
├── ProfileError             a profile with mistakes, all of them listed; correct the file
├── ServeError               the server cannot start here (address, path, file); correct the set-up
├── ExpectationError         the journal does not hold what a test expected (an AssertionError too)
└── ClientError              the reference client could not do what it was asked
    ├── OptionRefusedError   the server refused an option; ask for something else
    ├── CommandError         the server answered a command with an error number
    ├── NoncomplianceError   a violation that a tolerant client would have noted and ignored
    ├── ConnectionLostError  the connection was lost; reconnecting may help
    │   └── DeadlineExceededError  nothing was received in time
    ├── ShutdownError        the server is shutting down; try again later
    ├── SessionChangedError  the server is not the same after a reconnect; drop cached state
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
    """Base class of all errors that fakenbd raises on purpose."""

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
    """A profile that cannot be used. `mistakes` holds one sentence for each mistake."""

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
    """The server refused an option. `reply` is the NBD_REP_ERR_… number, `text` its message."""

    def __init__(self, message: str, *, reply: int = 0, text: str = "") -> None:
        super().__init__(message)
        self.reply = reply
        self.text = text


class CommandError(ClientError):
    """The server answered a command with an error, or with a success that cannot be one.

    `error` is the number as the protocol counts it: one that NBD does not know is EINVAL. `number`
    is the value on the wire, 0 for such a success; `offset` is where in the export the error
    occurred, None if the server did not send it.
    """

    def __init__(
        self, message: str, *, error: int, number: int | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.error = error
        self.number = error if number is None else number
        self.offset = offset


class NoncomplianceError(ClientError):
    """A violation by the server that a tolerant client ignores, raised by a strict client."""

    def __init__(self, message: str, *, rule: str = "") -> None:
        super().__init__(f"{message} ({rule})" if rule else message)
        self.rule = rule


class ConnectionLostError(ClientError):
    """The connection ended before the reply was complete."""


class DeadlineExceededError(ConnectionLostError):
    """Nothing was received in time; the connection was abandoned."""


class ShutdownError(ClientError):
    """The server is shutting down (NBD_ESHUTDOWN or NBD_REP_ERR_SHUTDOWN)."""


class SessionChangedError(ClientError):
    """After a reconnect the server offers less; `changes` has a sentence for each change."""

    def __init__(self, changes: Sequence[str]) -> None:
        super().__init__("the server came back changed: " + "; ".join(changes))
        self.changes = tuple(changes)


class TLSError(ClientError):
    """TLS was required and not available, or the peer's identity could not be verified."""
