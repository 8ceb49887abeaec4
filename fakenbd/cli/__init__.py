"""The command line: one module for each group of verbs, imported when its verb is called.

Errors are one sentence on standard error and an exit status: 1 failures, 2 usage, 3 trouble with
the set-up, 5 nothing selected, 130 interrupted. A traceback is a bug in fakenbd.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from fakenbd import __version__
from fakenbd.cli.verbs import PROFILE_VERBS, VERBS, Verb
from fakenbd.errors import ClientError, FakenbdError, ProfileError, ProtocolError, UriError

__all__ = ["app", "main"]

_GARBAGE: Final = 10_000
"""New objects between two garbage collections."""

_LOOKS: Final[dict[str, Any]] = {
    "help_format": "plaintext",
    "group_parameters": Group("Options"),
    # A flag needs no default in the help, and no --no-… form.
    "default_parameter": Parameter(show_default=False, negative=""),
}

app = App(
    name="fakenbd",
    help="A fake NBD server that tells the truth by default and lies on cue.",
    version=__version__,
    help_epilogue="What a verb takes, with examples: fakenbd VERB --help",
    **_LOOKS,
)
profiles = App(name="profiles", help="Browse the profile library.", sort_key=len(VERBS), **_LOOKS)


def _add(parent: App, verbs: Mapping[str, Verb], name: str) -> None:
    for place, (word, verb) in enumerate(verbs.items()):
        parent.command(
            verb.home,
            name=word,
            sort_key=place,
            help=verb.help,
            usage=f"Usage: {name} {word} {verb.usage}",
            help_epilogue=verb.epilogue,
            **_LOOKS,
        )


_add(app, VERBS, "fakenbd")
_add(profiles, PROFILE_VERBS, "fakenbd profiles")
app.command(profiles)

_FAILED: Final = 1
_USAGE: Final = 2
_TROUBLE: Final = 3

_STATUSES: Final[dict[type[Exception], int]] = {
    CycloptsError: _USAGE,
    ProfileError: _USAGE,
    UriError: _USAGE,
    ClientError: _FAILED,
    ProtocolError: _FAILED,
    FakenbdError: _TROUBLE,
}
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    # Hardly any imported or recorded objects become garbage: collect less often.
    gc.set_threshold(_GARBAGE)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["check"] and "--" in words:
        # Positional arguments on both sides of "--" would become one list.
        place = words.index("--")
        words[place:] = ["--command", json.dumps(words[place + 1 :])]
    try:
        status = app(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:
        reason = _alone(error)
        if isinstance(reason, KeyboardInterrupt):
            return 128 + signal.SIGINT
        if isinstance(reason, BrokenPipeError):
            # The reader of the output has closed it.
            _be_silent()
            return 0
        if isinstance(reason, OSError) and reason.errno in _FULL:
            _be_silent()
            return _complain(f"cannot write the output: {reason.strerror}", _TROUBLE)
        if isinstance(reason, UnusedCliTokensError):
            return _complain(
                f"unexpected arguments: {shlex.join(reason.unused_tokens or ())}", _USAGE
            )
        for kind, code in _STATUSES.items():
            if isinstance(reason, kind):
                return _complain(str(reason), code)
        raise
    return status if isinstance(status, int) else 0


def _alone(error: BaseException) -> BaseException:
    """The single error within nested exception groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _be_silent() -> None:
    """Redirect standard output to /dev/null, or Python would report a failed flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str, status: int) -> int:
    with suppress(OSError):
        for line in text.splitlines():
            print(f"fakenbd: {line}", file=sys.stderr)
    return status
