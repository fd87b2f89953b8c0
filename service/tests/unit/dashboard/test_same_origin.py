import pytest

from event_service.dashboard.same_origin import require_same_origin
from event_service.errors import Forbidden


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "service.test"},
        {"host": "service.test", "origin": "https://service.test"},
        {"host": "Service.Test:3000", "origin": "http://service.test"},
        {"host": "[::1]:3000", "origin": "http://[::1]:3000"},
        # The proxy put its own name for us into Host.
        {"host": "backend", "origin": "https://service.test", "sec-fetch-site": "same-origin"},
    ],
)
def test_the_page_itself_and_what_is_no_browser_may_ask(headers):
    require_same_origin(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "service.test", "origin": "https://other.test"},
        {"host": "service.test", "origin": "null"},
        {"host": "service.test", "origin": ""},
        {"origin": "null"},
        {"host": "service.test", "sec-fetch-site": "cross-site"},
        {"host": "service.test", "sec-fetch-site": "same-site"},
        {"host": "service.test", "sec-fetch-site": "none"},
        *(
            {"host": host, "origin": origin}
            for host in ("service.test", "[", "")
            for origin in ("http://[", "[::1", "a]b", "//[", "http://[v1.x]", "http://\u2100", "::")
        ),
    ],
)
def test_requests_of_other_sites_and_malformed_ones_are_refused(headers):
    with pytest.raises(Forbidden):
        require_same_origin(headers)
