import pytest

from event_service.routes.prefer import parse_prefer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (False, 0)),
        (["respond-async"], (True, 0)),
        (["Respond-Async"], (True, 0)),
        (["respond-async, wait=10"], (True, 10)),
        (["respond-async", "wait=10"], (True, 10)),
        (["wait=10,respond-async"], (True, 10)),
        (['respond-async, wait="10"'], (True, 10)),
        (["respond-async , wait = 10"], (True, 10)),
        (['respond-async; foo="a, wait=3", wait=10'], (True, 10)),
        (['other="respond-async"'], (False, 0)),
        (['other="say \\"respond-async, wait=4", wait=2'], (False, 2)),
        (['other="never ends, respond-async'], (False, 0)),
        (["respond-async, wait=5, wait=1"], (True, 5)),
        (["respond-async, wait=soon"], (True, 0)),
        (["respond-async, wait=-1"], (True, 0)),
        (["respond-async, wait=1.5"], (True, 0)),
        (["respond-async, wait=99999999999999999999"], (True, 999_999_999)),
        (["respond-async=true"], (True, 0)),
        (["respond-asynchronously"], (False, 0)),
        ([",, respond-async"], (True, 0)),
        (["wait=10"], (False, 10)),
    ],
)
def test_preferences_are_read_as_the_rfc_says(values, expected):
    assert parse_prefer(values) == expected


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ['"' * 60_000, "a=" * 30_000, "\\" * 60_000, 'a;"\\' * 15_000])
def test_a_header_of_any_text_is_read_at_once(text):
    assert parse_prefer([text]) == (False, 0)
