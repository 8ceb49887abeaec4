"""Lies on cue: faults, when they strike, and what they do to a true answer."""

from fakenbd.faults.answer import Answer, Step
from fakenbd.faults.condition import When, parse_when
from fakenbd.faults.engine import Faults
from fakenbd.faults.event import Event
from fakenbd.faults.fault import Fault, parse_do, parse_fault
from fakenbd.faults.refusal import error_answer, refusal_answer
from fakenbd.faults.registry import KINDS, Kind, make_kind
from fakenbd.faults.strike import Strike, Struck
from fakenbd.faults.values import TableError

__all__ = [
    "KINDS",
    "Answer",
    "Event",
    "Fault",
    "Faults",
    "Kind",
    "Step",
    "Strike",
    "Struck",
    "TableError",
    "When",
    "error_answer",
    "make_kind",
    "parse_do",
    "parse_fault",
    "parse_when",
    "refusal_answer",
]
