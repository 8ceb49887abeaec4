"""The command line: one module for each group of verbs, imported when its verb is called.

Errors are one sentence on standard error and an exit status: 1 failures, 2 usage, 3 trouble with
the set-up, 5 nothing selected. A traceback means a bug of ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from fakenbd import __version__
from fakenbd.errors import ClientError, FakenbdError, ProfileError, ProtocolError, UriError

__all__ = ["app", "main"]

app = App(
    name="fakenbd",
    help="A fake NBD server that tells the truth by default and lies on cue.",
    version=__version__,
    help_format="plaintext",
    help_epilogue="A profile is named by its id (see fakenbd profiles list), "
    "or by the path of a .toml or .py file.",
)
app.command("fakenbd.cli.serve:serve", name="serve")
app.command("fakenbd.cli.run:run", name="run")
app.command("fakenbd.cli.check:check", name="check")
app.command("fakenbd.cli.check:report", name="report")
app.command("fakenbd.cli.client:info", name="info")
app.command("fakenbd.cli.client:list_all", name="list")
app.command("fakenbd.cli.client:copy_disk", name="copy")
app.command("fakenbd.cli.client:show_map", name="map")
app.command("fakenbd.cli.explain:explain", name="explain")

_STATUSES: dict[type[Exception], int] = {
    CycloptsError: 2,
    ProfileError: 2,
    UriError: 2,
    ClientError: 1,
    ProtocolError: 1,
    FakenbdError: 3,
}

profiles = App(name="profiles", help="Look at the library of profiles.", help_format="plaintext")
profiles.command("fakenbd.cli.profiles:list_profiles", name="list")
profiles.command("fakenbd.cli.profiles:show", name="show")
profiles.command("fakenbd.cli.profiles:validate", name="validate")
app.command(profiles)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["check"] and "--" in words:
        # Positional words on both sides of "--" would come out as one list.
        place = words.index("--")
        words[place:] = ["--command", json.dumps(words[place + 1 :])]
    try:
        status = app(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        return 0
    except Exception as error:
        reason = _alone(error)
        for kind, code in _STATUSES.items():
            if isinstance(reason, kind):
                return _complain(str(reason), code)
        raise
    return status if isinstance(status, int) else 0


def _alone(error: BaseException) -> BaseException:
    """The one error in a group of one, however deep trio has wrapped it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _complain(text: str, status: int) -> int:
    for line in text.splitlines():
        print(f"fakenbd: {line}", file=sys.stderr)
    return status
