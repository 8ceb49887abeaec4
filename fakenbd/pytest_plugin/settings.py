"""Settings of a test's servers: the ini file, the command line, then markers from the outermost in.

The innermost one with a profile or export options replaces those of all further out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs
import pytest

from fakenbd.errors import ProfileError
from fakenbd.faults.readers import one_of, shown, unknown, whole
from fakenbd.profile import Profile, find
from fakenbd.profile.export_spec import ExportSpec

__all__ = ["MARKER", "Policy", "Settings", "Subject"]

Policy: TypeAlias = Literal["error", "warn", "ignore"]
Subject: TypeAlias = Literal["unfired", "violations", "errors"]

MARKER: Final = "@pytest.mark.fakenbd"
_POLICIES: Final = "error", "warn", "ignore"
_SUBJECTS: Final[tuple[Subject, ...]] = "unfired", "violations", "errors"
_CHECKED: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(_SUBJECTS, lambda value: one_of(value, _POLICIES)),
    "seed": whole,
}
# Options of the server, independent of what it serves.
_RUNNING: Final = "tcp", "unix", "journal"
_SERVED: Final = (
    *("profile", "exports", "handshake", "faults"),
    *(field.name for field in attrs.fields(ExportSpec)),
)
_KNOWN: Final = (*_SERVED[:1], *_CHECKED, *_RUNNING, *_SERVED[1:])


@attrs.frozen
class Settings:
    """The profile to serve, the address, and the policies for findings."""

    profile: Profile
    policies: Mapping[Subject, Policy]
    seed: int | None = None
    running: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, item: pytest.Item) -> Settings:
        """The settings of one test. Raises ProfileError that names the marker."""
        config = item.config
        seed = config.getoption("fakenbd_seed")
        if seed is None and (text := config.getini("fakenbd_seed")):
            seed = int(text)
        settings = cls(
            Profile.of(),
            {subject: config.getini(f"fakenbd_{subject}") for subject in _SUBJECTS},
            seed,
        )
        for marker in reversed(list(item.iter_markers("fakenbd"))):
            settings = settings.override(MARKER, marker.args, marker.kwargs)
        return settings

    def override(self, source: str, values: Sequence[Any], options: Mapping[str, Any]) -> Settings:
        """These settings with the changes of `source`, a marker or a call. Raises ProfileError."""
        if len(values) > 1 or (values and "profile" in options):
            raise ProfileError(source, ["expected one profile, and all else by name"])
        if values:
            options = {"profile": values[0], **options}
        mistakes = [unknown("option", name, _KNOWN) for name in options if name not in _KNOWN]
        checked = {}
        for name, read in _CHECKED.items():
            if name in options:
                try:
                    checked[name] = read(options[name])
                except ValueError as error:
                    mistakes.append(f"{name}: {error}")
        if mistakes:
            raise ProfileError(source, mistakes)
        served = {name: options[name] for name in _SERVED if name in options}
        return Settings(
            _profile(source, served) if served else self.profile,
            {subject: checked.get(subject, self.policies[subject]) for subject in _SUBJECTS},
            checked.get("seed", self.seed),
            {**self.running, **{name: options[name] for name in _RUNNING if name in options}},
        )


def _profile(source: str, served: Mapping[str, Any]) -> Profile:
    profile = served.get("profile")
    if profile is None:
        try:
            return Profile.of(**{key: value for key, value in served.items() if key != "profile"})
        except ProfileError as error:
            raise ProfileError(source, error.mistakes) from None
    if len(served) > 1:
        others = ", ".join(name for name in served if name != "profile")
        raise ProfileError(source, [f"expected a profile or the options of one, got also {others}"])
    if isinstance(profile, Profile):
        return profile
    if not isinstance(profile, str):
        raise ProfileError(
            source, [f"profile: expected an id, a path or a Profile, got {shown(profile)}"]
        )
    try:
        return find(profile)
    except ProfileError as error:
        mistakes = [f"{error.source}: {mistake}" for mistake in error.mistakes]
        raise ProfileError(source, mistakes) from None
