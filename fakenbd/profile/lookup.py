"""Finding profiles: by id in the library that is shipped, or by the path of a file.

An id is the path of a file in the library without its ending, with "@member" behind it where the
file holds a family. Only a .py that the user names is ever run; all else is data. Files are read
on demand: to find one profile, no other is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from fakenbd.errors import ProfileError
from fakenbd.profile.loader import Document, read_document
from fakenbd.profile.profile import Profile

__all__ = ["find", "find_all", "library", "library_folder", "locate", "select"]

_TOML: Final = ".toml"
_PATH: Final = re.compile(r"(.+\.toml)(?:@([^@/]*))?")


def library_folder() -> Path:
    """Where the library is: beside the package in a checkout, inside it where it is installed."""
    package = Path(__file__).parents[1]
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def library() -> Iterator[str]:
    """The ids of all profiles of the library, in order; of an invalid family its own id."""
    for source in _files():
        # Only a family's file has to be read for its members; other ids follow from the path.
        if b"sweep" in source.read_bytes():
            try:
                yield from _document(source).ids
                continue
            except ProfileError:
                pass  # loading it reports the mistakes
        yield _id(source)


def select(patterns: Iterable[str]) -> list[str]:
    """The ids that match any of the patterns ("extents/*"); a family's id stands for all of it."""
    wanted = list(patterns)
    return [
        profile_id
        for profile_id in library()
        if any(
            fnmatchcase(name, pattern)
            for name in (profile_id, profile_id.partition("@")[0])
            for pattern in wanted
        )
    ]


def find(name: str) -> Profile:
    """The profile of that id, or in the file at that path (.toml, or .py that defines `profile`).

    Raises ProfileError: one sentence if there is none, or all mistakes in it.
    """
    if name.endswith(".py"):
        return _run(Path(name))
    document, member = locate(name)
    if document.members is None:
        if member is not None:
            raise ProfileError(name, [f"is no family, so there is no member {member!r} of it"])
        return document.profile()
    if member is None:
        count = len(document.members)
        first = document.ids[0]
        raise ProfileError(name, [f"is a family of {count} profiles; name one, such as {first}"])
    if member not in document.members:
        raise ProfileError(name, [f"no such profile; {_nearest(name, document.ids)}"])
    return document.profile(member)


def find_all(name: str) -> tuple[Profile, ...]:
    """The profile of that name, or all members of the family of that name."""
    if name.endswith(".py"):
        return (_run(Path(name)),)
    document, member = locate(name)
    return document.profiles() if member is None else (find(name),)


def locate(name: str) -> tuple[Document, str | None]:
    """The document of an id or of the path of a .toml, and the member that is named, if any.

    Raises ProfileError for a document that does not exist or cannot be read.
    """
    path = _PATH.fullmatch(name)
    if path is not None:
        return _document(Path(path[1])), path[2]
    base, _, member = name.partition("@")
    source = library_folder() / f"{base}{_TOML}"
    if not _is_plain(base) or not source.is_file():
        raise ProfileError(name, [f"no such profile; {_nearest(base, map(_id, _files()))}"])
    return _document(source), member if "@" in name else None


def _is_plain(base: str) -> bool:
    """Whether it can be an id: a path that stays inside the library."""
    parts = base.split("/")
    return "\0" not in base and not any(part in ("", ".", "..") for part in parts)


def _nearest(name: str, known: Iterable[str]) -> str:
    # Imported here: only a mistake needs it.
    from difflib import get_close_matches

    ids = list(known)
    near = get_close_matches(name, ids, n=3)
    if not near:
        word = PurePosixPath(name).name
        near = [known for known in ids if word and word in PurePosixPath(known).name][:3]
    if not near:
        return "`fakenbd profiles list` shows them all"
    return f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"


def _files() -> list[Path]:
    return sorted(library_folder().rglob(f"*{_TOML}"))


def _id(source: Path) -> str:
    folder = library_folder()
    if source.is_relative_to(folder):
        return source.relative_to(folder).with_suffix("").as_posix()
    return source.stem


def _document(source: Path) -> Document:
    return read_document(source, _id(source))


def _run(path: Path) -> Profile:
    """The `profile` of a Python file. It is run with all rights, because the user named it."""
    from runpy import run_path

    try:
        path.open("rb").close()
    except OSError as error:
        raise ProfileError(str(path), [f"cannot be read: {error.strerror}"]) from None
    try:
        names = run_path(str(path))
    except Exception as error:
        raise _failed(path, error) from error
    profile = names.get("profile")
    if not isinstance(profile, Profile):
        found = "nothing" if "profile" not in names else f"a value of type {type(profile).__name__}"
        raise ProfileError(str(path), [f"expected it to define profile as a Profile, got {found}"])
    return attrs.evolve(
        profile,
        id=path.stem if profile.id == "python" else profile.id,
        source=profile.source or path,
    )


def _failed(path: Path, error: Exception) -> ProfileError:
    line = error.lineno if isinstance(error, SyntaxError) else None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    where = "" if line is None else f"line {line} "
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return ProfileError(str(path), [f"{where}raised {type(error).__name__}: {text}"])
