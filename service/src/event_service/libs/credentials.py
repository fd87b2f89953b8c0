"""Addresses as they may be shown."""

import re

HIDDEN = "**********"

# Up to the last one: a password may have them unescaped.
_credentials = re.compile(r"(://).*@", re.DOTALL)
_password_parameter = re.compile(
    r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&]*", re.IGNORECASE
)
_before_host = re.compile(r"\A.*@", re.DOTALL)
_query = re.compile(r"[?#].*\Z", re.DOTALL)


def hide_credentials(url: str) -> str:
    """The address as it may be shown: what stands before its host, and passwords in its query,
    read `**********`.
    """
    url = _credentials.sub(r"\1" + HIDDEN + "@", url)
    return _password_parameter.sub(r"\1" + HIDDEN, url)


def hide_anything(text: str) -> str:
    """Any text as it may be quoted, though it was meant to be an address and is none."""
    text = _before_host.sub(HIDDEN + "@", text)
    return _query.sub(r"?" + HIDDEN, text) if "://" in text else text
