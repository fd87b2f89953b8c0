"""Security headers for browsers on every response; a response may set its own values."""

# By default nothing may be framed, cached, sniffed or read by other sites. A page sets its own
# Content-Security-Policy, a cacheable reply its own Cache-Control.
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
CONTENT_SECURITY_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; frame-ancestors 'none'",
)
CACHE_CONTROL = (b"cache-control", b"no-store")


def add_security_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Add the headers that are missing. Header names must be in lower case."""
    has_policy = is_cached = False
    for name, _ in headers:
        if name == b"content-security-policy":
            has_policy = True
        elif name == b"cache-control":
            is_cached = True
    headers += ALWAYS
    if not has_policy:
        headers.append(CONTENT_SECURITY_POLICY)
    if not is_cached:
        headers.append(CACHE_CONTROL)
