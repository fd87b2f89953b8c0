"""Where settings come from: the variables of the environment and, in development, a `.env` file."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from event_service.libs.env_file import read_env_file
from event_service.libs.service_links import is_service_link
from event_service.settings.faults import PREFIX, unknown, variable

DEVELOPMENT = "development"


class Given(NamedTuple):
    """The texts of settings by name. A variable of the environment overrides the file even if it is
    empty, which means the default.
    """

    environment: dict[str, str]
    file: dict[str, Any]  # texts, too
    faults: list[str]
    notes: list[str]

    def text(self, name: str) -> str | None:
        return self.environment.get(name) or self.file.get(name) or None


class Variables(PydanticBaseSettingsSource):
    """The environment's variables as pydantic's settings take them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # abstract, and for sources that ask field by field

    def __call__(self) -> dict[str, str]:
        known = self.settings_cls.model_fields
        return {name: text for name, text in _named(os.environ).items() if text and name in known}


def given_settings(env_file: str, known: Collection[str]) -> Given:
    """The settings that are set, and the faults in how they are set."""
    environment = _named(os.environ)
    faults: list[str] = []
    notes: list[str] = []
    if links := sorted(name for name, value in os.environ.items() if _is_link(name, value)):
        notes.append(
            f"Ignored {', '.join(links)}: Kubernetes makes them up for a Service of that name; "
            "enableServiceLinks: false in the pod's spec keeps them out."
        )
    file: dict[str, str] = {}
    if environment.get("env", "").lower() in {"", DEVELOPMENT}:
        read = read_env_file(Path(env_file))
        faults += read.faults
        notes += read.notes
        file = _named(read.values)
        if file.pop("env", "").lower() not in {"", DEVELOPMENT}:
            faults.append(
                f"{env_file}: {variable('env')} must not be set there, because development alone "
                "reads this file; set it in the environment"
            )
    names = sorted({*environment, *file}.difference(known))
    faults += [unknown(name, known) for name in names]
    file = {k: v for k, v in file.items() if v and k in known and k not in environment}
    return Given(environment, file, faults, notes)


def _named(variables: Mapping[str, str]) -> dict[str, str]:
    """The texts of our variables, by setting name."""
    return {
        _setting(name): text
        for name, text in variables.items()
        if _is_ours(name) and not _is_link(name, text)
    }


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX)


def _setting(name: str) -> str:
    return name[len(PREFIX) :].lower()


def _is_link(name: str, value: str) -> bool:
    return _is_ours(name) and is_service_link(name[len(PREFIX) :], value)
