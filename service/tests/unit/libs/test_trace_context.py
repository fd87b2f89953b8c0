import pytest

from event_service.libs.trace_context import parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("flags", "sampled"),
    [("00", False), ("01", True), ("02", False), ("03", True), ("fe", False), ("ff", True)],
)
def test_only_the_defined_flag_is_passed_on(flags, sampled):
    parent = parse([f"00-{TRACE}-{SPAN}-{flags}"], [])

    assert parent == (TRACE, SPAN, sampled, None)
    assert parent.child("1" * 16) == f"00-{TRACE}-{'1' * 16}-{'01' if sampled else '00'}"


@pytest.mark.parametrize("traceparent", [f"01-{TRACE}-{SPAN}-01", f"fe-{TRACE}-{SPAN}-01-more"])
def test_a_later_version_is_continued_as_the_one_we_know(traceparent):
    parent = parse([traceparent], [])

    assert parent is not None
    assert parent.child("1" * 16).startswith(f"00-{TRACE}-")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "x",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"{GOOD}-",
        f"{GOOD}-more",
        f"{GOOD}x",
        f"{GOOD}\n",
        f"01-{TRACE}-{SPAN}-01x",
        f"ff-{TRACE}-{SPAN}-01",
        f"0x-{TRACE}-{SPAN}-01",
        GOOD.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-zz",
        f"{GOOD},{GOOD}",
    ],
)
def test_a_malformed_parent_is_none(traceparent):
    assert parse([traceparent], ["a=1"]) is None


@pytest.mark.parametrize("lines", [[], [GOOD, GOOD], [GOOD, f"00-{'1' * 32}-{SPAN}-01"]])
def test_no_line_or_two_mean_none(lines):
    assert parse(lines, []) is None


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([], None),
        ([""], None),
        ([" ,\t"], None),
        (["a=1"], "a=1"),
        (["b=2", "a=1"], "b=2,a=1"),
        (["a=1 , b=2", "", "c=3"], "a=1 , b=2,,c=3"),
        (["tenant@vendor=x", "a*/_-1=!~ y"], "tenant@vendor=x,a*/_-1=!~ y"),
        (["a=" + "x" * 256], "a=" + "x" * 256),
        (["a=" + "x" * 257], None),
        (["a=" + "x" * 256, "b=" + "x" * 251], "a=" + "x" * 256 + ",b=" + "x" * 251),
        (["a=" + "x" * 256, "b=" + "x" * 252], None),
        ([",".join(f"k{n}=1" for n in range(32))], ",".join(f"k{n}=1" for n in range(32))),
        ([",".join(f"k{n}=1" for n in range(33))], None),
        (["a"], None),
        (["=1"], None),
        (["A=1"], None),
        (["a=1=2"], None),
        (["a=\xff\xfe"], None),
        (["a=1\n"], None),
        (["a=1", "a b=2"], None),
    ],
)
def test_a_state_goes_on_in_its_order_if_it_is_well_formed_and_not_long(lines, state):
    parent = parse([GOOD], lines)

    assert parent is not None
    assert parent.state == state
