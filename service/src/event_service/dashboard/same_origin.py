from collections.abc import Mapping
from urllib.parse import urlsplit

from event_service.errors import Forbidden


def require_same_origin(headers: Mapping[str, str]) -> None:
    """Raise Forbidden for a request that a browser sends on behalf of another site.

    Browsers say so in `Sec-Fetch-Site`, older ones in `Origin`; what is no browser says neither.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    if site != "same-origin" or (origin and urlsplit(origin).netloc != headers.get("host")):
        raise Forbidden("This may not be asked for by another site.")
