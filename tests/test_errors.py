"""Every exception class of the package: copies and pickles are as good as the original."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil

import pytest

import fakenbd

ARGUMENTS = {
    "ProtocolError": (("bad magic",), {"rule": "S-121"}),
    "ProfileError": (("disk.toml", ("no size", "no name")), {}),
    "OptionRefusedError": (("no such export",), {"reply": 0x80000006, "text": "unknown"}),
    "CommandError": (("no space",), {"error": 28, "number": 122, "offset": 4096}),
    "NoncomplianceError": (("odd extent",), {"rule": "S-209"}),
    "SessionChangedError": ((("it shrank", "it is read-only now"),), {}),
    "TableError": ((("no kind", "no name"),), {}),
    "TLSHandshakeError": (("client", "closed", "no hello", b"\x16\x03"), {}),
}
"""Arguments of the classes that take more than a message."""


def exceptions():
    """All exception classes that the package defines."""
    for module in pkgutil.walk_packages(fakenbd.__path__, "fakenbd."):
        if module.name.rpartition(".")[2] != "__main__":
            importlib.import_module(module.name)
    found, new = set(), [BaseException]
    while new:
        known = {each for parent in new for each in parent.__subclasses__()} - found
        found |= known
        new = list(known)
    return sorted(
        (each for each in found if each.__module__.partition(".")[0] == "fakenbd"),
        key=lambda each: each.__qualname__,
    )


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
}


def test_the_table_names_classes_that_exist():
    assert set(ARGUMENTS) <= {each.__name__ for each in exceptions()}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__name__)
def test_copies_keep_type_text_and_attributes(kind, how):
    args, kwargs = ARGUMENTS.get(kind.__name__, (("what happened",), {}))
    error = kind(*args, **kwargs)
    error.add_note("seen while reading")
    again = COPIES[how](error)
    assert again is not error
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
