"""The verbs: their modules, and the text of their help around the options.

The list of verbs is shown without importing any of them; therefore their summaries are here.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["PROFILE_VERBS", "VERBS", "Verb"]

_URI: Final = "nbd://localhost:10809/disk"


@attrs.frozen
class Verb:
    """One verb. `home` is "module:function", `usage` its arguments, `more` a paragraph."""

    home: str
    summary: str
    usage: str
    more: str = ""
    examples: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """The text above the options."""
        return f"{self.summary}\n\n{self.more}" if self.more else self.summary

    @property
    def epilogue(self) -> str:
        """The text below the options."""
        return "\n".join(["Examples:", *(f"  {each}" for each in self.examples)])


VERBS: Final = {
    "serve": Verb(
        "fakenbd.cli.serve:serve",
        "Serve a profile until SIGINT or SIGTERM.",
        "[PROFILE] [OPTIONS]",
        "Prints one line of JSON with the address once it is listening. A profile is an id of the "
        "library, or the path of a .toml or .py file; without one, an export of 1 MiB without "
        "faults is served. "
        "A socket from systemd (LISTEN_FDS) is used in place of --tcp and --unix.",
        (
            "fakenbd serve quirks/qemu-odd-tail",
            "fakenbd serve --all --unix /run/user/1000/fake.sock",
            "fakenbd serve my-profile.toml --tcp 127.0.0.1:10809 --ready-file ready.json",
        ),
    ),
    "run": Verb(
        "fakenbd.cli.run:run",
        "Run a command against a profile and return its exit status.",
        "PROFILE [OPTIONS] -- COMMAND [ARGUMENT...]",
        "Placeholders in the command, and variables in its environment (FAKENBD_URI and so on): "
        "{uri} {tls-uri} {host} {port} {socket} {export} {size} {sha256} {ca} {ca-dir} {psk} "
        "{profile} {seed}. Violations by the client and unfired faults are reported at the end.",
        (
            "fakenbd run quirks/qemu-odd-tail -- qemu-img map --output=json '{uri}'",
            "fakenbd run reads/out-of-order --unix - -- ./my-client '{socket}'",
        ),
    ),
    "check": Verb(
        "fakenbd.cli.check:check",
        "Run every profile, or some, against a client, with a verdict for each.",
        "[PROFILE...] [OPTIONS] [-- COMMAND [ARGUMENT...]]",
        "The client is the reference client, the one of --client, or the command after --, with "
        "placeholders: a command with {output} has to write the export's bytes to that file, one "
        "with {input} has to write that file to the export; of any other only the exit status is "
        "judged. It runs in a folder of its own; words with a slash, like ./client.py, may be "
        "paths of files from the current folder. Exit status: 0 success, 1 failures, 2 usage, "
        "3 error of the harness or the set-up, 5 no case selected.",
        (
            "fakenbd check --client libnbd --select 'extents/*' --report report/",
            "fakenbd check my-profiles/ -- ./my-client --uri '{uri}' --out '{output}'",
            "fakenbd check --last-failed --exit-first",
        ),
    ),
    "merge-reports": Verb(
        "fakenbd.cli.check:merge_reports",
        "Merge the reports of several runs into one.",
        "FOLDER... --output FOLDER",
        examples=("fakenbd merge-reports report-1/ report-2/ --output report/",),
    ),
    "info": Verb(
        "fakenbd.cli.client:info",
        "Show export information.",
        "URI [OPTIONS]",
        examples=(f"fakenbd info {_URI}", "fakenbd info --json 'nbd+unix:///?socket=nbd.sock'"),
    ),
    "list": Verb(
        "fakenbd.cli.client:list_all",
        "List the exports of a server, with the information on each.",
        "URI [OPTIONS]",
        examples=("fakenbd list nbd://localhost",),
    ),
    "map": Verb(
        "fakenbd.cli.client:show_map",
        "Show which parts of an export hold data, and which are holes.",
        "URI [OPTIONS]",
        "A line for each extent: its start, its length, its flags as a number and in words. If "
        "the server fails late, what is known until there is printed, and the exit status is 1.",
        (f"fakenbd map {_URI}", f"fakenbd map --strict --json {_URI}"),
    ),
    "copy": Verb(
        "fakenbd.cli.client:copy_disk",
        "Copy an export or a file, whole, to an export or a file.",
        "SOURCE DESTINATION [OPTIONS]",
        examples=(f"fakenbd copy {_URI} disk.img", f"fakenbd copy disk.img {_URI} --verify"),
    ),
    "journal": Verb(
        "fakenbd.cli.journal:show_journal",
        "Show a recorded journal: messages, fired faults, and violations.",
        "FILE [OPTIONS]",
        examples=(
            "fakenbd run reads/out-of-order --journal talk.jsonl -- ./my-client '{uri}'",
            "fakenbd journal talk.jsonl",
        ),
    ),
    "faults": Verb(
        "fakenbd.cli.faults:faults",
        "List the kinds of faults, or document some: what `do` takes in a profile.",
        "[KIND...]",
        examples=("fakenbd faults", "fakenbd faults cut delay"),
    ),
}

PROFILE_VERBS: Final = {
    "list": Verb(
        "fakenbd.cli.profiles:list_profiles",
        "List the profiles of the library with their summaries.",
        "[PATTERN...] [OPTIONS]",
        examples=("fakenbd profiles list", "fakenbd profiles list 'extents/*' 'quirks/*'"),
    ),
    "show": Verb(
        "fakenbd.cli.profiles:show",
        "Show what a profile is about, the rules it names, and its TOML.",
        "PROFILE",
        "A family is shown with its members; one of them is FAMILY@MEMBER, with its values put in.",
        ("fakenbd profiles show quirks/qemu-odd-tail", "fakenbd profiles show baseline/sizes"),
    ),
    "validate": Verb(
        "fakenbd.cli.profiles:validate",
        "Check profile files; every mistake is listed. Without files, the whole library.",
        "[FILE...]",
        examples=("fakenbd profiles validate my-profile.toml",),
    ),
}
