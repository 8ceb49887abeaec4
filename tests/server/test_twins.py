"""Every obligation against the real server: rude clients and their twins, as bytes.

`tests/journal` plays the same conversations against a Watch and the least server that there is.
Here they go through the whole of ours but its sockets, and the journal must hold that breach and
no other. Only a server that takes its time can see requests in flight at once, so where a client
sends several together the answers come late. Ours does not tell block sizes to those who did not
ask, so where it matters a fault does.
"""

from __future__ import annotations

import attrs
import pytest

from fakenbd.export import BlockSize, Export
from fakenbd.faults import Faults
from fakenbd.faults.answer import CloseConnection
from fakenbd.journal import Journal, Violated
from fakenbd.journal.violation import weight
from fakenbd.profile import Handshake
from fakenbd.protocol.constants import Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import OptionReply
from fakenbd.server.conversation import Conversation
from fakenbd.server.service import Service
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
from tests.obligations.watch_differences import LEVELS, SENTENCES

TWINS = HANDSHAKE_TWINS + COMMAND_TWINS + TRAFFIC_TWINS
STYLES = {1: "fixed", 2: "newstyle", 3: "fixed"}
FAREWELLS = [("client", "DISC", ""), ("client", "ABORT", "")]


@attrs.define(eq=False)
class House:
    """The server that a setting describes, and its clock, which stands still unless it is told."""

    setting: Setting
    late: bool = False
    telling: bool = False
    now: float = 0.0
    service: Service = attrs.field(init=False)

    @service.default
    def _build(self) -> Service:
        setting = self.setting
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
        if self.late:
            faults.on("read").delay(1)
            faults.on("resize").delay(1)
        if self.telling and block is not None:
            told = OptionReply(Option.GO, block)
            faults.on(option="go").insert(told, before="first")
        return Service.of(
            exports,
            handshake=Handshake(
                style="oldstyle" if setting.oldstyle else STYLES[setting.greeting],
                no_zeroes=bool(setting.greeting & 2),
                extended_headers=setting.extended,
                tls="required" if setting.tls_required else "optional" if setting.tls else "off",
            ),
            faults=faults,
            journal=Journal(lambda: self.now),
            clock=lambda: self.now,
        )

    def play(self, lines: tuple[Line, ...]) -> None:
        """Let one client play its lines, as long as the server listens."""
        service = self.service
        service.connections += 1
        service.journal.connected(service.connections, "client", "memory")
        guest = Guest(self, Conversation(service, service.connections, "the client"))
        guest.conversation.begin()
        for line in lines:
            if not guest.conversation.over:
                guest.do(line)

    @property
    def violations(self) -> list[Violated]:
        return [entry for entry in self.service.journal if isinstance(entry, Violated)]


@attrs.define(eq=False)
class Guest:
    """One client's connection."""

    house: House
    conversation: Conversation

    def do(self, line: Line) -> None:
        conversation = self.conversation
        if isinstance(line, Leave):
            self._leave(line.how)
        elif isinstance(line, StartTLS):
            assert conversation.secure
            conversation.upgraded(line.version)
        elif isinstance(line, FailTLS):
            assert conversation.secure
            conversation.not_upgraded("client", "RST", "the certificate is not trusted", b"")
        elif isinstance(line, Shutdown):
            conversation.teller.shutting_down = True
        elif isinstance(line, Meanwhile):
            self.house.play(line.lines)
        elif isinstance(line, Part):
            self._say(encode(line.message)[: line.count])
        else:
            messages = line.messages if isinstance(line, Together) else (line,)
            self._say(b"".join(map(encode, messages)))

    def _leave(self, how: str) -> None:
        conversation = self.conversation
        if conversation.ending in FAREWELLS:
            conversation.parted(how if conversation.teller.terms.tls else "")
        conversation.end("client", how)
        conversation.closed()

    def _say(self, data: bytes) -> None:
        conversation, agenda = self.conversation, self.conversation.agenda
        while data:
            room = conversation.room()
            count = min(len(room), len(data))
            room[:count], data = data[:count], data[count:]
            conversation.received(count)
        while agenda.waiting:
            self.house.now = agenda.due()
            conversation.advance()
        if CloseConnection() in agenda.ready and conversation.ending not in FAREWELLS:
            conversation.closed()


def played(twins: Twins, lines: tuple[Line, ...]) -> list[Violated]:
    house = House(
        twins.setting,
        late=any(isinstance(line, Together) for line in lines),
        telling="which the client did not ask for" in twins.sentence,
    )
    house.play(lines)
    return house.violations


def _name(twins: Twins) -> str:
    return twins.rule


@pytest.mark.parametrize("twins", TWINS, ids=_name)
def test_a_rude_client_breaks_its_rule_and_no_other(twins: Twins) -> None:
    found = played(twins, twins.rude)
    assert sorted(entry.rule for entry in found) == sorted((twins.rule, *twins.also))
    (violation,) = (entry for entry in found if entry.rule == twins.rule)
    sentence = twins.sentence
    assert violation.level == LEVELS.get(sentence, twins.level or weight(twins.rule))
    assert violation.sentence == SENTENCES.get(sentence, sentence)


@pytest.mark.parametrize("twins", TWINS, ids=_name)
def test_its_polite_twin_breaks_none(twins: Twins) -> None:
    assert played(twins, twins.polite) == []
