"""When a rule of the client's is void, and what can be judged of a connection half seen.

Once the server broke a MUST on a connection, its client may end it in any way, and may be in
another phase. What it sends must be well-formed all the same, and never in clear once TLS was
negotiated. While the server owes something, ending the connection is no breach either, however long
the client waited: how long it should wait is not specified. What excuses ending one connection
excuses ending the client's others.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from fakenbd.obligations.rule_coverage import OBSERVABLE

__all__ = ["CERTAIN", "ENDS", "VOID", "Void"]


class Void(Enum):
    """When a finding against the client is dropped."""

    NEVER = "it always holds"
    AFTER_BREACH = "after the server broke a MUST on the connection"
    LEAVING = (
        "then, and for an end of the client's stream, while the server owes the client something"
    )


def _rows(void: Void, *numbers: int) -> dict[str, Void]:
    return {f"C-{number:02d}": void for number in numbers}


VOID: Final[dict[str, Void]] = {
    **dict.fromkeys(OBSERVABLE, Void.NEVER),
    **_rows(Void.AFTER_BREACH, 10, 29, 71, 72, 110, 131),
    **_rows(Void.LEAVING, 35, 62, 100, 127, 128, 132),
}

ENDS: Final = frozenset(rule for rule, void in VOID.items() if void is Void.LEAVING)
"""Rules about how a client ends a connection."""

CERTAIN: Final = frozenset(
    f"C-{number:02d}"
    for number in (
        *(8, 12, 13, 14, 15, 17, 20, 21, 22, 23, 24, 25, 26, 38, 39, 40, 41, 60),
        *(73, 74, 76, 78, 95, 96, 97, 98, 99, 109, 129, 130, 133),
    )
)
"""Rules whose breach shows in one or two messages of the client's, even if others were not seen."""
