"""Every obligation against the real server: rude clients and their twins, as bytes.

`tests/obligations` plays the same conversations to an observer and the least server that there is.
Here they go through the whole of ours but its sockets, and the journal must hold that violation and
no other. Only a server that takes its time can see requests in flight at once, so where a client
sends several together the replies come late. Ours does not tell block sizes to those who did not
ask, so where it matters a fault does.
"""

from __future__ import annotations

import attrs
import pytest

from fakenbd.conversation import Handshake
from fakenbd.conversation.phases import Phase
from fakenbd.export import BlockSize, Export
from fakenbd.faults import Faults
from fakenbd.faults.answer import StartTLS as StartTLSStep
from fakenbd.journal import Violated
from fakenbd.obligations.finding import level_of
from fakenbd.protocol.constants import Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import OptionReply
from tests.conversation.talk import Talk
from tests.obligations.command_twins import COMMAND_TWINS
from tests.obligations.handshake_twins import HANDSHAKE_TWINS
from tests.obligations.stage import (
    FailTLS,
    Leave,
    Line,
    Meanwhile,
    Part,
    Setting,
    Shutdown,
    StartTLS,
    Together,
    Twins,
)
from tests.obligations.traffic_twins import TRAFFIC_TWINS

TWINS = HANDSHAKE_TWINS + COMMAND_TWINS + TRAFFIC_TWINS
IDS = [f"{index}-{twins.rule}" for index, twins in enumerate(TWINS)]
UNREAD = ("C-57",)
"""Nobody reads what comes after a failed TLS handshake: the server has closed."""
STYLES = {1: "fixed", 2: "newstyle", 3: "fixed"}


@attrs.define(eq=False)
class Guest(Talk):
    """A client of the server that a setting describes.

    Its TLS handshakes are lines of its own, so a StartTLS action waits for them. What it sends
    comes in two pieces that end at `cut`, where that is set and inside, with no byte of the
    server's between them.
    """

    cut: int = 0

    def connect(self) -> None:
        self.shared.client = "the client"
        Talk.connect(self)

    def do(self, line: Line) -> None:
        conversation = self.conversation
        if isinstance(line, Leave):
            conversation.client_closed(line.how)
            conversation.closed()
            self.over = True
        elif isinstance(line, StartTLS):
            self.begin_tls()
            conversation.tls_started(line.version, keep=False)
        elif isinstance(line, FailTLS):
            self.begin_tls()
            conversation.tls_failed("client", "RST", "the certificate is not trusted", b"")
            conversation.closed()
            self.over = True
        elif isinstance(line, Shutdown):
            conversation.responder.shutting_down = True
        elif isinstance(line, Meanwhile):
            self.connect()
            self.play(line.lines)
            self.conversation, self.over = conversation, False
        elif isinstance(line, Part):
            self.send(encode(line.message)[: line.count])
        else:
            messages = line.messages if isinstance(line, Together) else (line,)
            self.send(b"".join(map(encode, messages)))

    def begin_tls(self) -> None:
        assert isinstance(self.markers[-1], StartTLSStep)
        assert self.conversation.tls_may_begin()

    def play(self, lines: tuple[Line, ...]) -> None:
        """Let one client play its lines, as long as the server listens."""
        for line in lines:
            if not self.over:
                self.do(line)

    def send(self, data: bytes) -> None:
        conversation = self.conversation
        if conversation.standing.phase is Phase.TLS_HANDSHAKE:
            # What speaks TLS reads them, and finds that they are something else.
            self.begin_tls()
            conversation.tls_failed("client", "refused", "not TLS", data[:8])
            conversation.closed()
            self.over = True
            return
        if 0 < self.cut < len(data) and not self.over and conversation.reads:
            room = conversation.get_buffer()
            count = min(len(room), self.cut)
            room[:count], data = data[:count], data[count:]
            conversation.buffer_updated(count)
        self.say(data)
        self.wait()
        if self.over and conversation.ending.announced:
            self.over = False  # a client that announced its end may still do something
        elif self.over:
            conversation.ending.server_closed("EOF")
            conversation.closed()


def guest(setting: Setting, *, late: bool, telling: bool) -> Guest:
    block = setting.block_size
    exports = [
        Export(
            name,
            size=setting.size,
            flags=setting.flags,
            block_size=block and BlockSize(block.minimum, block.preferred, block.maximum),
        )
        for name in setting.exports
    ]
    faults = Faults()
    if late:
        faults.on("read").delay(1)
        faults.on("resize").delay(1)
    if telling and block is not None:
        told = OptionReply(Option.GO, block)
        faults.on(option="go").insert(told, before="first")
    return Guest(
        exports,
        faults,
        speaks=Handshake(
            style="oldstyle" if setting.oldstyle else STYLES[setting.greeting],
            no_zeroes=bool(setting.greeting & 2),
            extended_headers=setting.extended,
            tls="required" if setting.tls_required else "optional" if setting.tls else "off",
        ),
    )


def played(twins: Twins, lines: tuple[Line, ...], cut: int = 0) -> list[Violated]:
    client = guest(
        twins.setting,
        late=any(isinstance(line, Together) for line in lines),
        telling="which the client did not ask for" in twins.sentence,
    )
    client.cut = cut
    client.play(lines)
    return [entry for entry in client.journal if isinstance(entry, Violated)]


@pytest.mark.parametrize("twins", TWINS, ids=IDS)
def test_a_rude_client_breaks_its_rule_and_no_other(twins: Twins) -> None:
    found = played(twins, twins.rude)
    if twins.rule in UNREAD:
        assert found == []
        return
    assert sorted(entry.rule for entry in found) == sorted((twins.rule, *twins.also))
    (violation,) = (entry for entry in found if entry.rule == twins.rule)
    assert violation.level == (twins.level or level_of(twins.rule))
    assert violation.sentence == twins.sentence


@pytest.mark.parametrize("twins", TWINS, ids=IDS)
def test_its_polite_twin_breaks_none(twins: Twins) -> None:
    assert played(twins, twins.polite) == []


@pytest.mark.endurance
@pytest.mark.parametrize("twins", TWINS, ids=IDS)
def test_what_is_found_does_not_depend_on_where_bytes_are_cut(twins: Twins) -> None:
    """Each client, with everything that it sends cut at the same byte, for every byte."""
    for lines in (twins.rude, twins.polite):
        found = [(each.rule, each.sentence) for each in played(twins, lines)]
        for place in (*range(1, 600), *range(600, 5000, 61)):
            cut = played(twins, lines, place)
            assert [(each.rule, each.sentence) for each in cut] == found, place
