"""One table of placeholders: in arguments, in the environment, and in the README."""

from __future__ import annotations

import pytest

from fakenbd import background_server
from fakenbd.check.placeholders import PLACEHOLDERS, SERVER, environment, fill, server_values


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("plain", "plain"),
        ("{uri}", "nbd://x"),
        ("a{size}b{uri}c", "a7bnbd://xc"),
        ('{"json": {size}}', '{"json": 7}'),
        ("{unknown} {", "{unknown} {"),
        ("{{size}}", "{7}"),
        ("{export}", "{size}"),
        ("x{2}", "x{2}"),
    ],
)
def test_placeholders_are_filled_and_other_braces_left(word: str, filled: str) -> None:
    assert fill(word, {"export": "{size}", "uri": "nbd://x", "size": "7"}) == filled


def test_the_environment_has_the_same_words() -> None:
    values = {name: f"<{name}>" for name in PLACEHOLDERS}
    summary = environment(values)
    assert summary["NBD_URI"] == summary["FAKENBD_URI"] == "<uri>"
    assert summary["FAKENBD_CA_DIR"] == "<ca-dir>"
    assert len(summary) == len(PLACEHOLDERS) + 1


def test_what_a_server_has_not_is_empty() -> None:
    with background_server("baseline/plain", unix="-", seed=7) as server:
        values = server_values(server.server)
        assert values.keys() == SERVER.keys()
        empty = {word for word, value in values.items() if not value}
        assert empty == {"host", "port", "export", "ca", "ca-dir", "psk"}
        assert values["uri"] == server.uri
        assert values["tls-uri"] == server.uri.replace("nbd+", "nbds+")
        assert values["seed"] == "7"
