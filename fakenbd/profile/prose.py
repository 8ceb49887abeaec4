"""A profile in prose, for people: what it serves, what is wrong with it, and what to make of it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

from fakenbd.export import ExtentList, Policy, Repeated, Truth, Unwritten
from fakenbd.export.extents import script
from fakenbd.profile.plan import ContentPlan, ExportPlan
from fakenbd.profile.profile import Handshake, Profile
from fakenbd.profile.quantities import extents, listed, octets
from fakenbd.profile.wording import fault_sentence
from fakenbd.protocol.constants import TransmissionFlag, flag_names
from fakenbd.protocol.rules import Rule, rule

__all__ = ["describe"]

_WIDTH: Final = 100


def describe(profile: Profile) -> str:
    """The whole profile as text of at most 100 columns, each line ended."""
    parts = ["\n".join(part for part in (profile.id, profile.summary) if part)]
    parts += _paragraphs(profile.about)
    parts.append(_section("The server", [*_exports(profile), _speaks(profile.handshake)]))
    if profile.faults:
        parts.append(_section("What it does wrong", map(fault_sentence, profile.faults)))
    if profile.rules:
        parts.append(_section("Rules", [_rule(rule(rule_id)) for rule_id in profile.rules]))
    parts.append(_section("A good client", [_expectation(profile)]))
    if profile.seen_in:
        parts.append(_section("Seen in", profile.seen_in))
    return "\n\n".join(parts) + "\n"


def _paragraphs(about: str) -> list[str]:
    """The text in columns of our own, for the numbers of a family change the length of lines."""
    paragraphs = [paragraph.strip("\n") for paragraph in re.split(r"\n\s*\n", about)]
    return [
        paragraph if re.search(r"^\s", paragraph, re.MULTILINE) else _filled(paragraph)
        for paragraph in paragraphs
        if paragraph.strip()
    ]


def _filled(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _section(title: str, items: Iterable[str]) -> str:
    return "\n".join([title, *(_filled(item, "  * ", "    ") for item in items)])


# --- exports -----------------------------------------------------------------------------------

_CONTENTS: Final = {
    "pattern": "bytes that tell where they belong",
    "zeros": "zeroes",
    "random": "random bytes from the seed {value}",
    "text": "a text",
    "hex": "given bytes",
    "bytes": "given bytes",
    "file": "the bytes of {value}",
    "function": "what a function says",
    "content": "a content of its own",
}


def _content(plan: ContentPlan) -> str:
    return _CONTENTS[plan.kind].format(value=plan.value)


def _exports(profile: Profile) -> Iterator[str]:
    for plan in profile.exports:
        name = f'The export "{plan.name}"' if plan.name else "The default export"
        yield f"{name} has {_size(plan)}: {_content(plan.content)}. {_claims(plan)}"
        for context, says in plan.contexts.items():
            yield f"{context} {_script(script(says, context), context)}."
        if not plan.contexts:
            yield "It has no metadata contexts."


def _size(plan: ExportPlan) -> str:
    if plan.size is None:
        unknown = plan.content.kind in ("text", "hex", "bytes", "file", "function", "content")
        size = "the size of its content" if unknown else "1 MiB"
    else:
        size = octets(plan.size)
    if plan.round_size_to is None:
        return size
    return f"{size}, rounded up to a multiple of {octets(plan.round_size_to)}"


def _claims(plan: ExportPlan) -> str:
    block = plan.block_size
    if block is None:
        sentences = ["It advertises no block sizes."]
    else:
        sentences = [
            f"It advertises blocks of {octets(block.minimum)} (preferred "
            f"{octets(block.preferred)}), at most {octets(block.maximum)} a request."
        ]
    if plan.flags is not None:
        names = flag_names(TransmissionFlag, plan.flags).replace("|", ", ")
        sentences.append(f"Its flags are {names}.")
    if plan.description:
        sentences.append(f'It is described as "{_shortened(plan.description)}".')
    if plan.canonical_name is not None:
        sentences.append(f'Its canonical name is "{_shortened(plan.canonical_name)}".')
    if plan.any_alignment:
        sentences.append("It answers requests off the minimum block, too.")
    if plan.tls_only:
        sentences.append("It is opened over TLS only.")
    return " ".join(sentences)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _script(said: Any, context: str) -> str:
    if isinstance(said, Truth):
        return "tells the truth"
    if isinstance(said, Unwritten):
        return "has nothing to tell"
    if isinstance(said, ExtentList):
        return f"says {extents(said.extents)}"
    if isinstance(said, Repeated):
        return f"says {extents(said.extents)}, over and over"
    if isinstance(said, Policy):
        return _policy(said, context)
    return "says what a function says"


def _policy(policy: Policy, context: str) -> str:
    words = [_script(script(policy.script, context), context)]
    if policy.one_extent is not None:
        words.append("one extent at a time" if policy.one_extent else "many extents, asked or not")
    if policy.merge:
        words.append("equal neighbours joined")
    if policy.split:
        words.append(f"cut at every {octets(policy.split)}")
    if policy.overrun:
        words.append("past the request's end")
    return ", ".join(words)


# --- the rest ----------------------------------------------------------------------------------

_STYLES: Final = {
    "fixed": "fixed newstyle",
    "newstyle": "newstyle without options",
    "oldstyle": "oldstyle",
}
_TLS: Final = {"off": "no TLS", "optional": "TLS if asked", "required": "TLS only"}


def _speaks(handshake: Handshake) -> str:
    words = [_STYLES[handshake.style]]
    if handshake.style == "fixed":
        words += [
            "structured replies" if handshake.structured_replies else "no structured replies",
            "extended headers" if handshake.extended_headers else "no extended headers",
            _TLS[handshake.tls],
        ]
    if handshake.style != "oldstyle" and not handshake.no_zeroes:
        words.append("124 zeroes after NBD_OPT_EXPORT_NAME")
    return f"It speaks {', '.join(words)}."


def _rule(row: Rule) -> str:
    named = (row.level, row.section or row.basis)
    where = ", ".join(part for part in named if part and part != "—")
    kind = {"C": "for the client", "S": "broken here", "Q": "legal, and unusual"}[row.group]
    sentence = f"{row.id} ({kind}; {where}): {row.text}."
    if row.should:
        sentence += f" Asked of a client: {_spelled_out(row.should)}."
    if row.bug:
        sentence += f" Clients' usual bug: {row.bug}."
    return sentence


_CODES: Final = {
    "HARD!": "hang up (it must)",
    "HARD": "hang up (it may)",
    "FAIL": "take it as failed",
    "TOL": "tolerate it",
    "FALL": "fall back",
    "SOFT!": "take its leave (it must)",
    "UNDEF": "find its own way (nothing is specified)",
}
_CODE: Final = re.compile(r"\b(?:MAY )?(HARD!?|FAIL|SOFT!|TOL|FALL|UNDEF)(?!\w)")


def _spelled_out(should: str) -> str:
    return _CODE.sub(lambda match: _CODES[match[1]], should)


_OUTCOMES: Final = {
    "succeeds": "succeeds",
    "fails": "reports a failure",
    "either": "succeeds or reports a failure",
}
_SESSIONS: Final = {
    None: "",
    "continues": " and keeps the connection",
    "disconnects": " and hangs up",
    "soft-disconnects": " and takes its leave",
    "reconnects": " and connects again",
}


_POLICIES: Final = {
    None: "",
    "off": " without TLS",
    "allow": ", with TLS if there is any",
    "require": " with TLS",
}


_WORK: Final = {
    "info": "look at the export",
    "list": "list the exports",
    "zero": "write zeroes",
    "cache": "read ahead",
    "reconnect": "connect again",
}


def _expectation(profile: Profile) -> str:
    expect = profile.expect
    if not expect.exercise:
        return "Only a client that breaks the rules meets it: a good one can be asked nothing."
    work = [_WORK.get(operation, operation) for operation in expect.exercise]
    return (
        f"When asked to {listed(work)}{_POLICIES[expect.tls]}, it "
        f"{_OUTCOMES[expect.outcome]}{_SESSIONS[expect.session]}; "
        "it never crashes, hangs, or takes wrong data for good."
    )
