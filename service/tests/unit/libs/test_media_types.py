import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.media_types import preferred

OFFERED = ["application/json", "text/html"]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        (BROWSER, "text/html"),
        ("text/html", "text/html"),
        ("TEXT/HTML ; Q=0.5", "text/html"),
        ("text/*", "text/html"),
        ("application/json, text/html", "application/json"),
        ("application/json;q=0.4, text/html;q=0.5", "text/html"),
        ("text/html;q=0, */*", "application/json"),
        ("text/html;q=0.1, */*;q=0.9", "application/json"),
        ("image/png", "application/json"),
        ("text/html;q=high", "application/json"),
        ("text/html;q=9", "application/json"),
        ("text/html;level=1;q=0.7", "text/html"),
        (";;,/,q=1", "application/json"),
    ],
)
def test_the_best_liked_type_is_chosen(accept: str, chosen: str):
    assert preferred(accept, OFFERED) == chosen


@given(st.text())
def test_nothing_that_is_asked_for_raises(accept: str):
    assert preferred(accept, OFFERED) in OFFERED
