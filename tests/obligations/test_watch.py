"""The Watch in the journal and the Observer agree on all twins, but for what is listed."""

from __future__ import annotations

import pytest

from tests.journal.truth import played
from tests.obligations.recorder import record, replayed
from tests.obligations.stage import Setting
from tests.obligations.test_twins import IDS, TWINS
from tests.obligations.watch_differences import LEVELS, SENTENCES

CONVERSATIONS = {
    f"{name}-{kind}": (twins.setting, lines)
    for name, twins in zip(IDS, TWINS, strict=True)
    for kind, lines in (("rude", twins.rude), ("polite", twins.polite))
}


def watched(setting: Setting, lines) -> list[tuple[str, str, str]]:
    return [(each.rule, each.level, each.sentence) for each in played(setting, lines)]


def observed(setting: Setting, lines) -> list[tuple[str, str, str]]:
    """What the Observer finds, in the Watch's words where these are known to differ."""
    return [
        (
            finding.rule,
            LEVELS.get(finding.sentence, finding.level),
            SENTENCES.get(finding.sentence, finding.sentence),
        )
        for finding in replayed(record(setting, lines))
    ]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_watch_and_observer_agree(name: str) -> None:
    assert observed(*CONVERSATIONS[name]) == watched(*CONVERSATIONS[name])
