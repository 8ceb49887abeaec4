"""Every profile, played to the reference client: what its server breaks is found, or traceless."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from fakenbd.journal import Closed, Connected, Received, Sent
from fakenbd.profile import Profile, find, library
from fakenbd.protocol.encode import encode
from fakenbd.protocol.rules import rule
from tests.obligations.server_judging import ServerJudge
from tests.profiles.playing import Play, play

BETWEEN = "a server that ends between two replies may be shutting down, which is a SHOULD at most"
ABORTED = "closing is an answer to ABORT, and so is silence for a while"
DROPPED = "a simple reply to READ that fails after its header has to end so"
HALF_A_REPLY = "half an option reply is bad framing (S-28), but no refusal to reply"
REFUSED = (
    "closing is the only way to refuse NBD_OPT_EXPORT_NAME, and half a reply closes, too (S-66)"
)
OWED = "what never comes cannot be seen; a client that is owed something needs no other excuse"
SHOWN_TWICE = "it contradicts itself over two connections"
UNKNOWN = "nobody can tell what the server knows"

TRACELESS = {
    "baseline/newstyle-without-go": UNKNOWN,
    "baseline/newstyle-without-zeroes": UNKNOWN,
    "baseline/oldstyle": "nobody can tell at which port newstyle is expected",
    "errors/error-before-the-data": "an error without an offset covers nothing: content may follow",
    "errors/hostile-message@escapes": "escape sequences are characters",
    "errors/hostile-message@format": "format codes are characters",
    "extents/data-reported-as-a-hole": "it takes the content to tell",
    "framing/cut-*@0": BETWEEN,
    "framing/cut-simple-reply@1[6-9]": DROPPED,
    "framing/cut-simple-reply@[23]?": DROPPED,
    "framing/ended-with-requests-waiting@close": BETWEEN,
    "framing/ended-with-requests-waiting@half-close": BETWEEN,
    "framing/ended-with-requests-waiting@reset": BETWEEN,
    "framing/no-reply@*": OWED,
    "framing/reply-never-done@*": OWED,
    "framing/reply-to-disconnect": "its client is gone before the reply can leave",
    "framing/simple-read-breaks-off@*": DROPPED,
    "framing/stalled-reply@*": OWED,
    "framing/unknown-chunk-flags@*": "an unknown flag may be a hint",
    "handshake/ancestor-newstyle@export-after": REFUSED,
    "handshake/ancestor-newstyle@neg2-[!a]*": REFUSED,
    "handshake/no-fixed-newstyle": UNKNOWN,
    "handshake/oldstyle-with-odd-size@*": "every number of 64 bits is a size",
    "limits/answer-announces-four-gibibytes@nothing": OWED,
    "limits/errors-without-end": OWED,
    "limits/exports-without-end": OWED,
    "limits/infos-without-end": OWED,
    "options/abort-is-not-acknowledged@[!e]*": ABORTED,
    "options/cut-extended-headers-ack@[!0]*": HALF_A_REPLY,
    "options/cut-structured-reply-ack@[!0]*": HALF_A_REPLY,
    "options/export-name-reply-of-wrong-length@without-zeroes": OWED,
    "options/info-and-go-disagree@*": SHOWN_TWICE,
    "options/no-final-reply@*": OWED,
    "options/refusal-with-hostile-text@escapes": "escape sequences are characters",
    "options/refusal-with-hostile-text@format": "format codes are characters",
    "options/valid-queries-are-invalid": "queries may be refused",
    "quirks/no-answer-to-abort": ABORTED,
    "recovery/not-listening-for-a-while@*": BETWEEN,
    "recovery/not-listening-for-seconds@*": BETWEEN,
    "recovery/dropped-again-and-again": BETWEEN,
    "recovery/dropped-before-the-reply@*": BETWEEN,
    "recovery/dropped-mid-write@*": BETWEEN,
    "recovery/dropped-with-the-first-request@*": BETWEEN,
    "recovery/gone-for-good": BETWEEN,
    "recovery/one-of-several-dies@*": BETWEEN,
    "recovery/reset-with-requests-waiting": BETWEEN,
    "recovery/write-taken-and-never-answered": BETWEEN,
    "timing/a-byte-now-and-then": OWED,
    "timing/close-never-comes": OWED,
    "timing/command-never-answered@*": OWED,
    "timing/option-never-answered@*": OWED,
    "tls/cut-without-close-notify@instead": "close_notify is a SHOULD",
    "tls/list-requires-tls": SHOWN_TWICE,
    "tls/no-handshake@silence": OWED,
    "tls/outdated-version@*": "the TLS library tells",
    "tls/plaintext-behind-ack@bytes": "the journal does not tell what was in clear",
    "tls/state-kept": "the client negotiates anew, as it must",
    "tls/unknown-export-requires-tls@*": "nobody can tell which exports are for TLS",
    "writes/fua-refused": "EINVAL does not tell what it refuses",
    "writes/payload-taken-for-a-request": "nobody can tell what the server read",
    "writes/unknown-error@out-of-memory": "NBD defines ENOMEM",
}
"""Profiles, by patterns of their ids, whose breach of a MUST leaves no certain trace, and why."""

FOUND_BESIDE = {
    "options/block-sizes-are-demanded": "its client asked for block sizes at once (S-67)",
    "options/cut-meta-context-reply@0": "nothing of the reply came (S-32)",
}
"""Profiles that claim no breach of a MUST, and show one."""


def judged(played: Play) -> list[ServerJudge]:
    """What the judges make of each connection of which the journal still has the beginning."""
    judges: dict[int | None, ServerJudge] = {}
    for entry in played.journal:
        if isinstance(entry, Connected):
            judges[entry.connection] = ServerJudge()
        elif entry.connection in judges:
            _show(entry, judges[entry.connection])
    return list(judges.values())


def _show(entry: object, judge: ServerJudge) -> None:
    if isinstance(entry, Received):
        judge.client(entry.whole if entry.payload is not None else entry.message)
    elif isinstance(entry, Sent):
        judge.server(encode(entry.whole))
    elif isinstance(entry, Closed) and entry.by == "server":
        judge.ended("TLS close" if judge.state.tls else "EOF")


def reason(profile: Profile, table: dict[str, str]) -> str | None:
    return next((why for ids, why in table.items() if fnmatchcase(profile.id, ids)), None)


@pytest.mark.soak
@pytest.mark.trio
@pytest.mark.parametrize("profile_id", list(library()))
async def test_what_a_profile_breaks_is_found(profile_id, autojump_clock):
    profile = find(profile_id)
    if not profile.expect.operations:
        return
    breaches = [each for judge in judged(await play(profile)) for each in judge.breaches]
    permits_disconnect = [
        each for each in breaches if each.level is None and rule(each.rule).permits_disconnect
    ]
    if profile.breaks_must:
        assert bool(permits_disconnect) == (reason(profile, TRACELESS) is None), breaches
    else:
        assert bool(permits_disconnect) == (reason(profile, FOUND_BESIDE) is not None), breaches
