import os
from collections.abc import Callable

from pydantic import ValidationError

from event_service.libs.credentials import hide_anything
from event_service.settings.faults import describe
from event_service.settings.fields import Settings
from event_service.settings.sources import given_settings
from event_service.telemetry.tracing import TracingUnavailable, tracing_wanted

_SECRETS = ("ops_token", "upstream_headers")


class ConfigurationError(Exception):
    """The settings are invalid; the text lists every fault."""


def load_settings(
    env_file: str = ".env", *, on_note: Callable[[str], object] = lambda _note: None
) -> Settings:
    """The settings from the environment and, in development, from `env_file`.

    `on_note` gets one sentence for each thing that is odd but harmless. Raises ConfigurationError
    with one line for each fault.
    """
    fields = Settings.model_fields
    given = given_settings(env_file, fields)
    for note in given.notes:
        on_note(note)
    faults = given.faults
    try:
        settings = Settings(**given.file)
    except ValidationError as error:
        for details in error.errors():
            # A default derived from a faulty value is not a fault of its own.
            if details["type"] == "default_factory_not_called":
                continue
            if not details["loc"]:
                faults.append(f"TLS to the upstream: {details['ctx']['error']}".rstrip("."))
                continue
            name = str(details["loc"][0])
            text = given.text(name)
            shown = None if text is None or name in _SECRETS else hide_anything(text)
            origin = f" in {env_file}" if name in given.file else ""
            faults.append(describe(details, fields[name], shown, origin=origin))
    try:
        tracing_wanted(os.environ)
    except TracingUnavailable as error:
        faults += str(error).splitlines()
    if faults:
        raise ConfigurationError("\n".join(["The configuration is wrong:", *faults]))
    return settings
