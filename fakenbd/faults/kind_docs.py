"""The documentation of each kind of fault, read from where it is made.

The docstring of a kind's class is all of its documentation: prose, an example, then a line for each
parameter. The command line and the library's README are generated from it.
"""

from __future__ import annotations

import inspect
import re
from typing import Final

import attrs

from fakenbd.faults import KINDS, Kind
from fakenbd.faults.event import REPLY_EVENTS, Event
from fakenbd.faults.fields import FIELDS, has_field
from fakenbd.faults.message_template import MESSAGE_TEMPLATES

__all__ = ["KindDoc", "Parameter", "kind_doc", "message_fields"]

_PARAMETER: Final = re.compile(r"^(\w+): (.*) \((required|default .*)\)$")
_EXAMPLE: Final = "Example: "
_FACTS: Final = (
    ("breaks_must", False, "With values that the protocol has, it breaks no MUST."),
    ("may_stall", True, "It may leave the client waiting for ever."),
)


@attrs.frozen
class Parameter:
    """A parameter as profiles name it; `default` is "required" or "default …"."""

    name: str
    meaning: str
    default: str


@attrs.frozen
class KindDoc:
    """A kind of fault: its paragraphs, a line of a profile, and what it takes.

    `events` are what it can fire at: "connects", "greetings", "options", "commands". `facts` are
    sentences on what a client has to expect of it.
    """

    slug: str
    family: str
    events: tuple[str, ...]
    facts: tuple[str, ...]
    paragraphs: tuple[str, ...]
    example: str
    parameters: tuple[Parameter, ...]

    @property
    def summary(self) -> str:
        """Its first sentence."""
        return re.split(r"(?<=\.) ", self.paragraphs[0], maxsplit=1)[0]


def kind_doc(slug: str) -> KindDoc:
    """The documentation of one kind. Raises KeyError for an unknown word."""
    kind = KINDS[slug]
    text, _, rest = (inspect.getdoc(kind) or "").partition(_EXAMPLE)
    example, *lines = rest.splitlines()
    parameters = filter(None, map(_PARAMETER.match, lines))
    return KindDoc(
        slug,
        kind.family,
        tuple(f"{event}s" for event in REPLY_EVENTS if event in kind.events),
        tuple(words for name, value, words in _FACTS if getattr(kind, name) is value),
        tuple(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")),
        example,
        tuple(Parameter(_as_written(kind, match[1]), match[2], match[3]) for match in parameters),
    )


def _as_written(kind: type[Kind], name: str) -> str:
    """A parameter as it stands in a profile: the main one is the value of the kind's own word."""
    return kind.slug if name == kind.main else name.replace("_", "-")


def message_fields() -> dict[str, tuple[str, ...]]:
    """The fields of each message that a profile can write out or set, as profiles name them."""
    sample = Event("command", 1, structured=True)
    return {
        word: tuple(field.replace("_", "-") for field in FIELDS if has_field(build(sample), field))
        for word, build in MESSAGE_TEMPLATES.items()
    }
