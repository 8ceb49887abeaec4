"""Observes the two byte streams of a connection and reports who broke which rule.

One `Observer` a connection; its findings name the rule, the side, and where in that side's stream
the message begins. Nothing here keeps a list, reads a clock, or knows what a server intended.
"""

from __future__ import annotations

from fakenbd.obligations.finding import Finding, Level, Side
from fakenbd.obligations.observer import Observer
from fakenbd.obligations.siblings import Siblings
from fakenbd.obligations.stream import Gap, Start

__all__ = ["Finding", "Gap", "Level", "Observer", "Siblings", "Side", "Start"]
