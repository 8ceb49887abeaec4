"""Observes the two byte streams of a connection and reports who broke which rule.

One `Observer` per connection; its findings name the rule, the side, and where in that side's stream
the message begins. Only bytes and bounded state are used: no list, no clock, no knowledge of
faults.
"""

from __future__ import annotations

from fakenbd.obligations.excuses import ENDS
from fakenbd.obligations.finding import Finding, Level, Side
from fakenbd.obligations.observer import Observer
from fakenbd.obligations.siblings import Siblings
from fakenbd.obligations.stream import Gap, Start

__all__ = ["ENDS", "Finding", "Gap", "Level", "Observer", "Siblings", "Side", "Start"]
