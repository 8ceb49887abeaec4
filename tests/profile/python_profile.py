"""A disk of stripes whose server sends every reply to an option in two halves, with a pause."""

from fakenbd.faults import Fault, When, make_kind
from fakenbd.faults.answer import Pause
from fakenbd.profile import Expect, Profile


def content(offset, length):
    """The bytes of any part of the export."""
    return bytes(place >> 9 & 0xFF for place in range(offset, offset + length))


def extents(context, offset, length, flags):
    """Lengths and flags from `offset` on; every other stripe is reported as zeroes."""
    for place in range(offset, offset + length, 512):
        yield 512, place >> 8 & 2


def halved(answer, firing):
    """A fault: changes the correct answer, which is a list of steps, into another one."""
    middle = len(answer) // 2
    return [*answer[:middle], Pause(0.01 * firing.occurrence), *answer[middle:]]


profile = Profile.of(
    summary="Stripes, sent in halves",
    size="64KiB",
    content=content,
    contexts={"base:allocation": extents},
    faults=[
        Fault("in halves", When(option="any"), halved, also=True),
        Fault("bad stripe", When(command="read", offset=1024), make_kind("error", "EIO")),
    ],
    expect=Expect("fails", operations=("read",)),
)
