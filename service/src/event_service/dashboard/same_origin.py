from collections.abc import Mapping
from urllib.parse import urlsplit

from event_service.errors import Forbidden


def require_same_origin(headers: Mapping[str, str]) -> None:
    """Raise Forbidden for a request that a browser sends on behalf of another site.

    Browsers say so in `Sec-Fetch-Site`, which decides where it is sent: a proxy may have changed
    `Host`. Older ones send `Origin` alone; what is no browser sends neither. Ports do not matter:
    a proxy seldom listens on ours.
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
    """The host in lower case, "" where there is none."""
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
