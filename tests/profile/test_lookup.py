"""Profiles are found by id, by path and by pattern."""

from __future__ import annotations

import pytest

from fakenbd.errors import ProfileError
from fakenbd.profile import find, find_all, library, library_folder, select

IDS = list(library())


def test_by_id():
    profile = find("quirks/qemu-odd-tail")
    assert profile.source == library_folder() / "quirks" / "qemu-odd-tail.toml"
    assert find_all("quirks/qemu-odd-tail") == (profile,)


def test_by_path():
    path = str(library_folder() / "quirks" / "qemu-odd-tail.toml")
    assert find(path) == find("quirks/qemu-odd-tail")
    path = str(library_folder() / "baseline" / "sizes.toml")
    assert find(f"{path}@empty") == find("baseline/sizes@empty")


def test_a_family():
    family = find_all("baseline/sizes")
    assert [profile.id for profile in family] == select(["baseline/sizes"])
    assert find_all("baseline/sizes@empty") == family[:1]


SELECTIONS = {
    ("quirks/qemu-odd-tail",): 1,
    ("*",): len(IDS),
    ("baseline/sizes",): 6,
    ("baseline/sizes@*-*",): 5,
    ("*/no-such-thing",): 0,
    ("baseline/sizes@empty", "baseline/siz*"): 6,
    (): 0,
}


@pytest.mark.parametrize("patterns", SELECTIONS)
def test_select(patterns):
    chosen = select(patterns)
    assert len(chosen) == SELECTIONS[patterns]
    assert chosen == [profile_id for profile_id in IDS if profile_id in set(chosen)]


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A small library: two correct profiles, a family, and a file that is no TOML."""
    for name, text in {
        "quirks/odd-tail": "",
        "quirks/odd-head": "",
        "reads/cut": 'summary = "{n}"\n[sweep]\nn = [12, 1]',
        "reads/broken": "summary = ",
    }.items():
        path = tmp_path / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr("fakenbd.profile.lookup.library_folder", lambda: tmp_path)


def test_listing_reads_no_more_than_it_must(shelf):
    listed = ["quirks/odd-head", "quirks/odd-tail", "reads/broken", "reads/cut@12", "reads/cut@1"]
    assert list(library()) == listed
    assert find("reads/cut@1").summary == "1"


UNKNOWN = {
    "quirks/od-tail": "no such profile; the nearest are quirks/odd-tail, quirks/odd-head",
    "tail": "no such profile; the nearest is quirks/odd-tail",
    "zzz": "no such profile; `fakenbd profiles list` shows them all",
    "": "no such profile; `fakenbd profiles list` shows them all",
    "../quirks/odd-tail": "no such profile; the nearest are quirks/odd-tail, quirks/odd-head",
    "reads//cut": "no such profile; the nearest is reads/cut",
    "a\0b": "no such profile; `fakenbd profiles list` shows them all",
    "reads/cut": "is a family of 2 profiles; name one, such as reads/cut@12",
    "reads/cut@13": "no such profile; the nearest are reads/cut@1, reads/cut@12",
    "reads/cut@": "no such profile; the nearest are reads/cut@1, reads/cut@12",
    "quirks/odd-tail@1": "is no family, so there is no member '1' of it",
    "gone.toml": "cannot be read: No such file or directory",
    "gone.py": "cannot be read: No such file or directory",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_one_sentence_for_what_is_not_there(name, shelf):
    with pytest.raises(ProfileError) as caught:
        find(name)
    assert str(caught.value) == f"{name}: {UNKNOWN[name]}"


# --- Python ------------------------------------------------------------------------------------


def test_a_python_file_defines_its_profile(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(
        "from fakenbd.profile import Profile\n"
        "def extents(context, offset, length, flags):\n"
        "    yield length, 3\n"
        'profile = Profile.of(size=512, contexts={"base:allocation": extents})\n'
    )
    profile = find(str(source))
    assert (profile.id, profile.source) == ("mine", source)
    (export,) = profile.open_exports()
    assert export.block_status("base:allocation", 0, 512, 0) == [(512, 3)]
    assert [each.id for each in find_all(str(source))] == ["mine"]


FAILING = {
    "profile = (": "line 1 raised SyntaxError: '(' was never closed",
    "x = 1\nraise ValueError('two\\nlines')": "line 2 raised ValueError: two lines",
    "open('/nonexistent')": "line 1 raised FileNotFoundError: [Errno 2] No such file or directory: "
    "'/nonexistent'",
    "import no_such_module": "line 1 raised ModuleNotFoundError: No module named 'no_such_module'",
    "": "expected it to define profile as a Profile, got nothing",
    "profile = 3": "expected it to define profile as a Profile, got a value of type int",
}


@pytest.mark.parametrize("text", FAILING)
def test_a_python_file_that_fails(text, tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(text)
    with pytest.raises(ProfileError) as caught:
        find(str(source))
    assert str(caught.value) == f"{source}: {FAILING[text]}"
