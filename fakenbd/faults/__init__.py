"""Faults: the conditions under which they are applied, and what they do to a correct reply.

A server that has no faults imports none of their kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.faults.answer import Answer, Step
from fakenbd.faults.engine import Choice, Faults
from fakenbd.faults.event import Event
from fakenbd.faults.firing import Firing, FiringRecord
from fakenbd.faults.readers import TableError
from fakenbd.faults.refusal import error_answer, refusal_answer
from fakenbd.lazy import lazy_getattr

if TYPE_CHECKING:
    from fakenbd.faults.condition import When, parse_when
    from fakenbd.faults.fault import Fault, parse_do, parse_fault
    from fakenbd.faults.registry import KINDS, Kind, make_kind

__all__ = [
    "KINDS",
    "Answer",
    "Choice",
    "Event",
    "Fault",
    "Faults",
    "Firing",
    "FiringRecord",
    "Kind",
    "Step",
    "TableError",
    "When",
    "error_answer",
    "make_kind",
    "parse_do",
    "parse_fault",
    "parse_when",
    "refusal_answer",
]

_LAZY = {
    # From `fault`, not from `registry`: importing `fault` registers every kind.
    "KINDS": "fault",
    "make_kind": "builder",
    "Kind": "registry",
    "Fault": "fault",
    "parse_do": "fault",
    "parse_fault": "fault",
    "When": "condition",
    "parse_when": "condition",
}

__getattr__ = lazy_getattr(__name__, _LAZY)
