import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from event_service.libs.http_client import (
    BaseUrl,
    HttpClient,
    Proxy,
    check_headers,
    check_target,
    parse_base_url,
    parse_proxy_url,
)


@pytest.mark.parametrize(
    ("text", "url", "authority"),
    [
        ("http://example.com", BaseUrl("http", "example.com", 80, ""), "example.com"),
        ("HTTPS://Example.com/", BaseUrl("https", "Example.com", 443, ""), "Example.com"),
        ("https://a-b.example:443/v1/", BaseUrl("https", "a-b.example", 443, "/v1"), "a-b.example"),
        ("http://example.com:443", BaseUrl("http", "example.com", 443, ""), "example.com:443"),
        ("http://127.0.0.1:81/a%20c", BaseUrl("http", "127.0.0.1", 81, "/a%20c"), "127.0.0.1:81"),
        ("http://[::1]:8080", BaseUrl("http", "::1", 8080, ""), "[::1]:8080"),
        ("http://[2001:db8::1]", BaseUrl("http", "2001:db8::1", 80, ""), "[2001:db8::1]"),
        ("http://my_service", BaseUrl("http", "my_service", 80, ""), "my_service"),
        ("http://xn--bcher-va.de", BaseUrl("http", "xn--bcher-va.de", 80, ""), "xn--bcher-va.de"),
        ("http://example.com.", BaseUrl("http", "example.com.", 80, ""), "example.com."),
        ("http://3com.example", BaseUrl("http", "3com.example", 80, ""), "3com.example"),
        ("http://a/~x;y=1,2/@:", BaseUrl("http", "a", 80, "/~x;y=1,2/@:"), "a"),
    ],
)  # fmt: skip
def test_a_base_url_is_taken_apart(text, url, authority):
    assert parse_base_url(text) == url
    assert url.authority == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "/path",
        "ftp://example.com",
        "http:/example.com",
        "http:example.com",
        "http://",
        "http:///path",
        "http://:80",
        "http://exa mple",
        " http://example.com",
        "http://example.com ",
        "http://example.com\n",
        "http://exam\tple.com",
        "http://example.com\0",
        "http://256.256.256.256",
        "http://1.2.3.4.5",
        "http://1.2.3",
        "http://1.2.3.04",
        "http://1",
        "http://0x7f.1",
        "http://127.0.0.0x1",
        "http://a.b.1",
        "http://%zz",
        "http://ex%61mple.com",
        "http://example.com/%zz",
        "http://example.com/%2",
        "http://[v1.x]",
        "http://[::1%eth0]",
        "http://[fe80::1%25eth0]:80",
        "http://[::1",
        "http://::1",
        "http://[::1]80",
        "http://[::g]",
        "http://[127.0.0.1]",
        "http://[]",
        "http://a..b",
        "http://.a",
        "http://-a",
        "http://a-",
        "http://" + "a" * 64,
        "http://" + "a." * 127 + "abc",
        "http://a,b",
        "http://a;b",
        "http://a\\b",
        "http://a_b|c",
        "http://example.com:0",
        "http://example.com:65536",
        "http://example.com:99999999999999999999",
        "http://example.com:",
        "http://example.com:8x",
        "http://example.com:-1",
        "http://example.com:+80",
        "http://example.com:٣",
        "http://user@example.com",
        "http://user:secret@example.com",
        "http://@example.com",
        "http://example.com?a=b",
        "http://example.com/?",
        "http://example.com#x",
        "http://example.com/#",
        "http://example.com/a b",
        "http://example.com/a\\b",
        'http://example.com/"',
        "http://example.com/{id}",
        "http://example.com/é",
        "http://bücher.example",
        "http://example.com/\udc80",
        "http://\ud800",
    ],
)
def test_an_unusable_url_is_refused_in_one_sentence(text):
    with pytest.raises(ValueError, match=r"\A[^\n]+\.\Z") as caught:
        parse_base_url(text)
    assert "secret" not in str(caught.value)


@example("http://[")
@example("http://]")
@example("https://a]:b@[c")
@given(st.one_of(st.text(), st.text(alphabet="htps:/[]@?#%.:0a").map("http://{}".format)))
def test_any_text_is_a_base_url_or_a_value_error(text):
    try:
        url = parse_base_url(text)
    except ValueError:
        return
    # What is taken can be used: a client for it, and itself again.
    assert parse_base_url(f"{url.scheme}://{url.netloc}{url.path}") == url
    HttpClient(url._replace(scheme="http"))


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy:3128", Proxy("proxy", 3128, None)),
        ("http://proxy/", Proxy("proxy", 80, None)),
        ("http://[::1]:3128", Proxy("::1", 3128, None)),
        ("http://ann:s%40crat%3A@proxy:3128", Proxy("proxy", 3128, ("ann", "s@crat:"))),
        ("http://ann@proxy", Proxy("proxy", 80, ("ann", ""))),
    ],
)
def test_a_proxys_url_is_taken_apart(text, proxy):
    assert parse_proxy_url(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy:3128",
        "https://proxy",
        "socks5://proxy",
        "http://proxy/path",
        "http://proxy?x",
        "http://a%3Ab:secret@proxy",
        "http://a:secret%0D%0A@proxy",
        "http://256.0.0.1",
    ],
)
def test_an_invalid_proxy_is_refused(text):
    with pytest.raises(ValueError, match=r"\A[^\n]+\.\Z") as caught:
        parse_proxy_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["/", "/a/b", "/events?userId=a%20b", "/a?b=c?d/e", "/@:!$&'()*+,;="]
)
def test_a_target_is_a_path_with_or_without_a_query(text):
    check_target(text)


@pytest.mark.parametrize(
    "text",
    ["", "a", "?a", "/a#b", "/a?b#c", "/a b", "/é", "/\udc80", "/%zz", "/a?%z", "/\n", "/{id}"],
)
def test_an_invalid_target_is_refused(text):
    with pytest.raises(ValueError, match=r"\A[^\n]+\.\Z"):
        check_target(text)


def test_headers_of_ones_own_are_welcome():
    check_headers({"Authorization": "Bearer a/b+c=", "X-Tab": "a\tb", "x-latin": "é", "X-No": ""})


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "host", "Connection", "transfer-encoding", "Accept-Encoding", "TE",
     "Upgrade", "keep-alive", "Expect", "trailer", "Proxy-Connection", "Idempotency-Key"],
)  # fmt: skip
def test_a_header_that_the_client_sets_itself_is_refused(name):
    with pytest.raises(ValueError, match=name):
        check_headers({name: "1"}, reserved={"idempotency-key"})


@pytest.mark.parametrize(
    "headers",
    [{"x y": "a"}, {"": "a"}, {"x:": "a"}, {"é": "a"}, {"x\n": "a"}, {"x": "secret\n"},
     {"x": "secret\r"}, {"x": "secret\0"}, {"x": "secret€"}, {"x": "secret\udc80"},
     {"x": "secret\x7f"}, {"X-A": "a", "x-a": "b"}],
)  # fmt: skip
def test_a_header_that_cannot_be_sent_is_refused(headers):
    with pytest.raises(ValueError, match=r"\A[^\n]+\.\Z") as caught:
        check_headers(headers)
    assert "secret" not in str(caught.value)
