from collections.abc import Mapping
from urllib.parse import urlsplit

from event_service.errors import Forbidden


def require_same_origin(headers: Mapping[str, str]) -> None:
    """Raise Forbidden if a browser sent the request on behalf of another site.

    `Sec-Fetch-Site` decides if it is sent, because a proxy may change `Host`. Older browsers send
    only `Origin`; clients that are not browsers send neither. Ports are ignored, because a proxy
    rarely uses the same port as this service.
    """
    site = headers.get("sec-fetch-site")
    if site is None:
        origin = headers.get("origin")
        allowed = origin is None or _host(origin) == _host(f"//{headers.get('host', '')}") != ""
    else:
        allowed = site == "same-origin"
    if not allowed:
        raise Forbidden("This may not be asked for by another site.")


def _host(origin: str) -> str:
    """The host in lower case, or "" if there is none."""
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
