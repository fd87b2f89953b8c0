"""Removes credentials from addresses before they are shown."""

import re

HIDDEN = "**********"

# Up to the last `@`: a password may contain unescaped ones.
_credentials = re.compile(r"(://).*@", re.DOTALL)
_password_parameter = re.compile(
    r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&]*", re.IGNORECASE
)
_before_host = re.compile(r"\A.*@", re.DOTALL)
_query = re.compile(r"[?#].*\Z", re.DOTALL)


def hide_credentials(url: str) -> str:
    """The address with user information and passwords in its query shown as `**********`."""
    url = _credentials.sub(r"\1" + HIDDEN + "@", url)
    return _password_parameter.sub(r"\1" + HIDDEN, url)


def hide_anything(text: str) -> str:
    """Like `hide_credentials`, for text that should be an address but cannot be parsed as one."""
    text = _before_host.sub(HIDDEN + "@", text)
    return _query.sub(r"?" + HIDDEN, text) if "://" in text else text
