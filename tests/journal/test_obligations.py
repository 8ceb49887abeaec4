"""Every obligation: the rude client breaks exactly that rule, its polite twin breaks none."""

from __future__ import annotations

from itertools import product

import attrs
import pytest

from fakenbd.journal.obligations import Clientele, Violations, Watch
from fakenbd.journal.observation import OBSERVABLE
from fakenbd.journal.violation import weight
from fakenbd.protocol.constants import (
    Command,
    Error,
    Info,
    Option,
    TransmissionFlag,
)
from fakenbd.protocol.messages import (
    Ack,
    Greeting,
    InfoBlockSize,
    InfoExport,
    InfoText,
    MetaContext,
    OptionReply,
    Request,
    SimpleReply,
)
from tests.journal.truth import Truth, played
from tests.obligations.command_twins import COMMAND_TWINS
from tests.obligations.handshake_twins import HANDSHAKE_TWINS
from tests.obligations.stage import (
    ABORT,
    DISC,
    EXTENDED,
    HELLO,
    LEAVE,
    LIST,
    STARTTLS,
    STRUCTURED,
    FailTLS,
    Leave,
    Line,
    Setting,
    StartTLS,
    Together,
    Twins,
    command,
    export_name,
    go,
    info,
    read,
    session,
    set_contexts,
    write,
)
from tests.obligations.traffic_twins import TRAFFIC_TWINS
from tests.obligations.watch_differences import LEVELS, SENTENCES

SETTING = Setting()
SETTING_BLOCKS = InfoBlockSize(1, 4096, 1 << 25)
TWINS = HANDSHAKE_TWINS + COMMAND_TWINS + TRAFFIC_TWINS


def _name(twins: Twins) -> str:
    return twins.rule


@pytest.mark.parametrize("twins", TWINS, ids=_name)
def test_a_rude_client_breaks_its_rule_and_no_other(twins: Twins) -> None:
    found = played(twins.setting, twins.rude)
    assert sorted(violation.rule for violation in found) == sorted((twins.rule, *twins.also))
    (violation,) = (each for each in found if each.rule == twins.rule)
    sentence = twins.sentence
    assert violation.level == LEVELS.get(sentence, twins.level or weight(twins.rule))
    assert violation.sentence == SENTENCES.get(sentence, sentence)


@pytest.mark.parametrize("twins", TWINS, ids=_name)
def test_its_polite_twin_breaks_none(twins: Twins) -> None:
    assert played(twins.setting, twins.polite) == []


def test_every_observable_rule_has_its_twins() -> None:
    assert {twins.rule for twins in TWINS} == set(OBSERVABLE)


# --- no false alarms ----------------------------------------------------------------------------


def opened(setting: Setting = SETTING) -> Watch:
    """The Watch of a connection whose client has opened the export and done one good READ."""
    watch = Watch(Clientele(), "the client")
    opening = (EXTENDED if setting.extended else STRUCTURED, set_contexts(), go())
    lines = (HELLO, *opening, attrs.evolve(read(), extended=setting.extended))
    assert list(Truth(setting, watch).play(lines)) == []
    return watch


def test_a_client_may_leave_transmission_once_the_server_broke_a_must() -> None:
    watch = opened()
    assert watch.request(read(cookie=7)) == ()
    assert watch.breached("S-120") == ()
    assert watch.breaches == ["S-120"]
    assert watch.ended("RST", "client", 100) == ()


def test_a_client_may_leave_haggling_once_the_server_broke_a_must() -> None:
    watch = Watch()
    watch.greeted(Greeting())
    watch.client_flags(HELLO)
    watch.option(go())
    watch.breached("S-20")
    assert watch.ended("EOF", "client") == ()


# What a client may do with its other connections once the server broke a MUST on one of them.
OTHERS = {
    "the same client's": ("the client", "EOF", 0, []),
    "torn off in the middle of a payload": ("the client", "RST", 100, []),
    "another client's": ("another", "EOF", 0, ["C-128"]),
}


def begun(clientele: Clientele, client: str | None = "the client") -> Watch:
    """One of several connections, whose client has opened the export."""
    watch = Watch(clientele, client)
    assert list(Truth(SETTING, watch).play((HELLO, STRUCTURED, go(), read()))) == []
    return watch


def rules_of(violations: Violations) -> list[str]:
    return [violation.rule for violation in violations]


@pytest.mark.parametrize("name", OTHERS)
def test_a_client_that_gives_up_leaves_all_its_connections(name: str) -> None:
    client, how, leftover, found = OTHERS[name]
    clientele = Clientele()
    lied_to, other = begun(clientele), begun(clientele, client)
    lied_to.breached("S-120")
    assert rules_of(other.ended(how, "client", leftover)) == found
    assert lied_to.ended("EOF", "client") == ()


def test_who_nobody_can_tell_apart_may_be_one_client() -> None:
    clientele = Clientele()
    lied_to, other = begun(clientele, None), Watch(clientele)
    other.greeted(Greeting())
    other.client_flags(HELLO)
    lied_to.breached("S-120")
    assert other.ended("EOF", "client") == ()


def test_other_connections_are_excused_for_leaving_and_for_nothing_else() -> None:
    clientele = Clientele()
    lied_to, other = begun(clientele), begun(clientele)
    assert other.request(read(cookie=7)) == ()
    lied_to.breached("S-120")
    assert rules_of(other.request(read(cookie=7))) == ["C-72"]


def test_a_connection_made_after_the_lie_is_not_excused_by_it() -> None:
    clientele = Clientele()
    begun(clientele).breached("S-120")
    assert rules_of(begun(clientele).ended("EOF", "client")) == ["C-128"]


@pytest.mark.parametrize("client", ["the client", None])
def test_a_lie_on_a_connection_that_is_over_excuses_nobody(client: str | None) -> None:
    clientele = Clientele()
    gone, other = begun(clientele, client), begun(clientele, client)
    gone.ended("EOF", "client")
    gone.breached("S-120")
    assert rules_of(other.ended("EOF", "client")) == ["C-128"]


def test_a_breach_excuses_no_malformed_request() -> None:
    watch = opened()
    watch.breached("S-120")
    assert [each.rule for each in watch.request(read(1 << 20))] == ["C-88"]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((LEAVE,), id="a port is probed"),
        pytest.param((HELLO, STARTTLS, LEAVE), id="TLS is refused and nothing else will do"),
        pytest.param(
            (HELLO, Together((LIST, ABORT)), LEAVE), id="ABORT does not wait for a final reply"
        ),
        pytest.param((HELLO, go("missing"), ABORT, LEAVE), id="the export is missing"),
        pytest.param((HELLO, go("missing", ()), export_name(), DISC, LEAVE), id="GO was tried"),
        pytest.param(session(read(1, 3), write(5, 7)), id="any alignment will do"),
        pytest.param(session(read(), read(), read()), id="a cookie is used again once answered"),
    ],
)
def test_an_honest_way_breaks_nothing(lines: tuple[Line, ...]) -> None:
    assert played(SETTING, lines) == []


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((HELLO, go(), STARTTLS, StartTLS(), go(), read()), id="for the export"),
        pytest.param((HELLO, LIST, STARTTLS, FailTLS(), LEAVE), id="but cannot have it"),
    ],
)
def test_a_client_that_learns_of_tls_from_a_refusal_need_not_have_asked_first(
    lines: tuple[Line, ...],
) -> None:
    watch = Watch()
    truth = Truth(Setting(tls=True, tls_required=True), watch)
    assert list(truth.play(lines)) == []


@pytest.mark.parametrize("how", ["EOF", "RST", "TLS close"])
@pytest.mark.parametrize(
    "sent", [pytest.param((), id="at once"), pytest.param((LIST,), id="after an option")]
)
def test_who_does_not_like_the_server_leaves_before_a_word_is_said_over_tls(
    sent: tuple[Line, ...], how: str
) -> None:
    # A client may look at the certificate only when the handshake is complete on our side.
    watch = Watch()
    truth = Truth(Setting(tls=True), watch)
    found = truth.play((HELLO, STARTTLS, StartTLS(), *sent, Leave(how)))
    assert [each.rule for each in found] == (["C-132"] if sent else [])


def test_an_oldstyle_export_may_be_declined_by_leaving() -> None:
    assert played(Setting(oldstyle=True), (LEAVE,)) == []
    assert [each.rule for each in played(Setting(oldstyle=True), (read(), LEAVE))] == ["C-128"]


def test_what_the_server_ends_is_not_the_clients_fault() -> None:
    watch = opened()
    assert watch.ended("EOF", "server", 12) == ()
    assert watch.ended("EOF", "client") == ()


def test_what_the_server_never_said_is_not_held_against_the_client() -> None:
    watch = Watch()
    watch.greeted(Greeting())
    watch.client_flags(HELLO)
    watch.option(go())
    watch.option_replied(OptionReply(Option.GO, Ack()))
    assert watch.request(read(1 << 40, 512)) == ()
    assert watch.request(command(Command.TRIM, 0, 512, cookie=2)) == ()
    assert not watch.clean


@pytest.mark.parametrize("block", [(0, 4096, 1 << 25), (3, 4096, 1 << 25), (512, 4096, 0)])
def test_block_sizes_that_cannot_be_honoured_bind_nobody(block: tuple[int, int, int]) -> None:
    watch = opened(Setting(block_size=InfoBlockSize(*block)))
    assert watch.request(write(512, 3 * 512, cookie=3)) == ()


def test_the_size_that_counts_is_the_one_that_was_said_last() -> None:
    watch = Watch()
    watch.greeted(Greeting())
    watch.client_flags(HELLO)
    for query, size in ((info(), 4096), (go(), 8192)):
        watch.option(query)
        watch.option_replied(OptionReply(query.option, InfoExport(size, SETTING.flags)))
        watch.option_replied(OptionReply(query.option, SETTING_BLOCKS))
        watch.option_replied(OptionReply(query.option, Ack()))
    assert watch.request(read(4096)) == ()
    assert [each.rule for each in watch.request(read(8192, cookie=2))] == ["C-88"]


def test_the_canonical_name_is_the_same_export() -> None:
    watch = Watch()
    watch.greeted(Greeting())
    watch.client_flags(HELLO)
    for request, *replies in (
        (STRUCTURED,),
        (set_contexts(name="disk0"), MetaContext(7, "base:allocation")),
        (go(), InfoText(Info.NAME, "disk0"), InfoExport(4096, SETTING.flags)),
    ):
        assert watch.option(request) == ()
        for body in (*replies, Ack()):
            assert watch.option_replied(OptionReply(request.option, body)) == ()
    assert watch.request(command(Command.BLOCK_STATUS, 0, 4096)) == ()


def test_requests_under_way_when_the_server_shuts_down_are_forgiven() -> None:
    watch = opened()
    watch.request(read(cookie=10))
    watch.replied(SimpleReply(10, Error.ESHUTDOWN))
    assert not watch.clean
    assert [watch.request(read(cookie=cookie)) for cookie in range(11, 1035)] == [()] * 1024
    (violation,) = watch.request(read(cookie=1035))
    assert violation.rule == "C-127"


def test_a_resize_that_succeeds_moves_the_end() -> None:
    watch = opened(Setting(with_flags=TransmissionFlag.SEND_RESIZE))
    assert watch.request(command(Command.RESIZE, 2 << 20, cookie=3)) == ()
    assert not watch.clean
    watch.replied(SimpleReply(3))
    assert watch.clean_end == 2 << 20
    assert watch.request(read(1 << 20, cookie=4)) == ()


# --- how breaches are told ----------------------------------------------------------------------


def test_a_must_is_told_each_time_and_a_should_once() -> None:
    watch = opened()
    told = [watch.request(read(0, 0, flags=0x40, cookie=cookie)) for cookie in (3, 4)]
    assert [[str(violation) for violation in found] for found in told] == [
        [
            "NBD_CMD_READ contains undefined command flags 0x40 (C-74, MUST)",
            "NBD_CMD_READ at offset 0 has length 0 (C-95, SHOULD)",
        ],
        ["NBD_CMD_READ contains undefined command flags 0x40 (C-74, MUST)"],
    ]
    assert watch.counts == {"C-74": 2, "C-95": 2}


def test_requests_off_the_preferred_block_are_counted_only() -> None:
    watch = opened()
    assert watch.request(read(512, 512, cookie=3)) == ()
    assert watch.request(read(4096, 4096, cookie=4)) == ()
    assert watch.counts == {"C-90": 1}


# --- the hot path -------------------------------------------------------------------------------

HOT_SETTINGS = {
    "usual": SETTING,
    "large blocks": Setting(size=3 << 16, block_size=InfoBlockSize(4096, 65536, 65536)),
    "nothing agreed": Setting(size=100_000, block_size=None),
    "impossible blocks": Setting(block_size=InfoBlockSize(0, 1000, 10)),
    "read-only": Setting(with_flags=TransmissionFlag.READ_ONLY),
    "extended": Setting(extended=True),
}
OFFSETS = (0, 1, 512, 1000, 4096, 65536, 131072, (1 << 20) - 4096)
LENGTHS = (0, 1, 512, 4096, 65536, 69632, 131072, 1 << 20)


def is_clean(watch: Watch, request: Request) -> bool:
    """What the hot path asks, word for word from the Watch's documentation."""
    offset, length = request.offset, request.length
    return (
        (watch.clean_writes if request.command == Command.WRITE else watch.clean)
        and 0 < length <= watch.clean_maximum
        and offset + length <= watch.clean_end
        and not (offset | length) & watch.clean_mask
        and request.cookie not in watch.pending
    )


@pytest.mark.parametrize("setting", HOT_SETTINGS.values(), ids=HOT_SETTINGS.keys())
def test_what_the_hot_path_may_skip_is_clean(setting: Setting) -> None:
    watch = opened(setting)
    skipped, counts = 0, watch.counts.copy()
    for number in (Command.READ, Command.WRITE):
        for cookie, (offset, length) in enumerate(product(OFFSETS, LENGTHS), 100):
            request = Request(number, cookie, offset, length, extended=setting.extended)
            if is_clean(watch, request):
                skipped += 1
                assert watch.request(request) == ()
                watch.replied(SimpleReply(cookie))
    assert skipped >= 4
    assert watch.counts == counts


def test_nothing_is_clean_before_the_first_command_nor_after_the_last() -> None:
    watch = Watch()
    truth = Truth(SETTING, watch)
    assert list(truth.play((HELLO, go()))) == []
    assert not watch.clean
    watch.request(read())
    assert watch.clean
    assert not is_clean(watch, read())
    watch.replied(SimpleReply(1))
    assert is_clean(watch, read())
    watch.request(DISC)
    assert not watch.clean
    assert not watch.clean_writes
