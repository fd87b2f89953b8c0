"""The settings of a command, which ends with a message if they are wrong."""

import sys
from functools import partial
from typing import NoReturn

import typer

from event_service.settings import ConfigurationError, Settings, load_settings


def settings_or_exit() -> Settings:
    """The settings; exits with 2 and one line for each fault if any is wrong."""
    try:
        return load_settings(on_note=partial(typer.echo, err=True))
    except ConfigurationError as error:
        fail(str(error), code=2)


def fail(message: str, *, code: int) -> NoReturn:
    """Write the message to standard error and exit."""
    typer.echo(message, err=True)
    sys.exit(code)
