"""Errors and refusals in the form that the protocol has for them.

Commands: an error chunk with DONE where structured replies or extended headers are negotiated, else
a simple reply. Options: an option reply whose type is the error. The server makes its own errors
with these, and so do the faults.
"""

from __future__ import annotations

from fakenbd.faults.answer import Answer
from fakenbd.protocol.constants import ChunkFlag
from fakenbd.protocol.messages import (
    Chunk,
    ErrorChunk,
    ErrorReply,
    OptionReply,
    Request,
    SimpleReply,
)

__all__ = ["error_answer", "refusal_answer"]


def error_answer(
    request: Request,
    error: int,
    *,
    structured: bool,
    extended: bool,
    message: str = "",
    offset: int | None = None,
) -> Answer:
    """The answer that fails a command with the number `error`.

    `message` and `offset` (absolute, in the export) are carried by an error chunk only; a simple
    reply has no room for them.
    """
    if not (structured or extended):
        return [SimpleReply(request.cookie, error)]
    return [
        Chunk(
            request.cookie,
            ErrorChunk(error, message, offset),
            flags=ChunkFlag.DONE,
            request_offset=request.offset if extended else None,
        )
    ]


def refusal_answer(option: int, reply: int, text: str = "") -> Answer:
    """The answer that refuses an option with the NBD_REP_ERR_… number `reply`."""
    return [OptionReply(option, ErrorReply(text), type=reply)]
