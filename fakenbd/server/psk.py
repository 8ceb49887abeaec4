"""Reads files of pre-shared keys in the format of psktool(1): lines USER:HEXKEY, # for comments."""

from __future__ import annotations

import platform
import ssl
from pathlib import Path

from fakenbd.errors import ServeError

__all__ = ["read_keys"]


def read_keys(path: Path) -> dict[str, bytes]:
    """The keys by user. Raises ServeError, also where Python has no pre-shared keys."""
    if not getattr(ssl, "HAS_PSK", False):
        raise ServeError(
            "TLS with pre-shared keys needs Python 3.13 or newer, "
            f"this is {platform.python_version()}"
        )
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ServeError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServeError(f"{path} is not UTF-8 at byte {error.start}") from error
    keys = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, digits = line.strip().rpartition(":")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            key = b""
        if not user or not key:
            raise ServeError(
                f"{path}, line {number}: expected USER:KEY, the key in hexadecimal digits"
            )
        keys[user] = key
    if not keys:
        raise ServeError(f"{path} holds no pre-shared key")
    return keys
