"""A block device that forwards its commands to clients: to one of several, or to successive ones.

Every command goes through one method, `_perform`, which chooses the client and may repeat the call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from fakenbd.client.block_device import BlockDevice
from fakenbd.client.client import Client
from fakenbd.protocol.constants import Command

__all__ = ["ForwardingDevice"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _forwarded(
    command: Command, method: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]]
) -> Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]]:
    """The method that calls `method` on a client; `command` is the request that it mainly sends."""
    name = method.__name__

    async def forward(self: ForwardingDevice, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self._perform(command, lambda client: getattr(client, name)(*args, **kwargs))

    forward.__name__, forward.__doc__ = name, method.__doc__
    return forward


class ForwardingDevice(BlockDevice):
    """An export whose commands are forwarded to clients."""

    __slots__ = ()

    @abstractmethod
    async def _perform(self, command: Command, call: Callable[[Client], Awaitable[_T]]) -> _T:
        """Make `call`, which sends `command`, on a client. Raises the error of the last attempt."""

    read = _forwarded(Command.READ, BlockDevice.read)
    read_into = _forwarded(Command.READ, BlockDevice.read_into)
    write = _forwarded(Command.WRITE, BlockDevice.write)
    zero = _forwarded(Command.WRITE_ZEROES, BlockDevice.zero)
    trim = _forwarded(Command.TRIM, BlockDevice.trim)
    cache = _forwarded(Command.CACHE, BlockDevice.cache)
    flush = _forwarded(Command.FLUSH, BlockDevice.flush)
    block_status_once = _forwarded(Command.BLOCK_STATUS, BlockDevice.block_status_once)
