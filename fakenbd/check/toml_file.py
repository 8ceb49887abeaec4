"""Reads a TOML file that a user wrote."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fakenbd.errors import ProfileError
from fakenbd.profile.table_reader import outermost

__all__ = ["read_toml"]

_T = TypeVar("_T")


def read_toml(path: Path, read: Callable[[dict[str, Any]], _T]) -> _T:
    """What `read` returns for a file's tables. Raises ProfileError with every mistake."""
    try:
        return read(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        mistakes = [f"cannot be read: {error.strerror}"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mistakes = [f"is no TOML: {error}"]
    except ValueError as error:
        mistakes = outermost(error)
    raise ProfileError(str(path), mistakes)
