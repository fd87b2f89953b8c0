import msgspec
import pytest

from mock_upstream.faults import Fault, Faults, Strike

OPERATIONS = ("getUsers", "addEvent")


def faults(fault, seed=0):
    faults = Faults(OPERATIONS, seed)
    faults.set("getUsers", fault)
    return faults


def failing(faults, calls, operation="getUsers"):
    strikes = [faults.strike(operation) for _ in range(calls)]
    return [strike is not None and strike.failure is not None for strike in strikes]


def test_an_operation_without_a_fault_is_left_alone():
    assert faults(Fault(mode="reset")).strike("addEvent") is None


@pytest.mark.parametrize(
    "fault", [Fault(mode="reset"), Fault(status=503), Fault(body="null"), Fault(error_rate=1.0)]
)
def test_a_fault_that_asks_for_a_failure_fails_every_call(fault):
    assert failing(faults(fault), 20) == [True] * 20


@pytest.mark.parametrize(
    "fault", [Fault(), Fault(delay=1.0), Fault(mode="reset", error_rate=0.0), Fault(first_n=30)]
)
def test_a_fault_that_asks_for_none_fails_no_call(fault):
    assert failing(faults(fault), 20) == [False] * 20


def test_the_error_rate_is_the_share_of_calls_that_fail():
    share = sum(failing(faults(Fault(error_rate=0.2)), 5000)) / 5000

    assert 0.17 < share < 0.23


def test_the_same_seed_strikes_the_same_calls():
    fault = Fault(error_rate=0.5, delay=0.1, jitter=0.4)
    first, again = faults(fault, seed=42), faults(fault, seed=42)

    assert [first.strike("getUsers") for _ in range(100)] == [
        again.strike("getUsers") for _ in range(100)
    ]


def test_another_seed_strikes_other_calls():
    fault = Fault(error_rate=0.5)

    assert failing(faults(fault, seed=1), 100) != failing(faults(fault, seed=2), 100)


def test_calls_of_one_operation_do_not_disturb_the_sequence_of_another():
    fault = Fault(error_rate=0.5)
    alone, together = faults(fault), faults(fault)
    together.set("addEvent", fault)

    mixed = []
    for _ in range(50):
        together.strike("addEvent")
        mixed += failing(together, 1)

    assert mixed == failing(alone, 50)


def test_setting_a_fault_begins_its_sequence_anew():
    fault = Fault(error_rate=0.5)
    subject = faults(fault)
    first = failing(subject, 50)

    subject.set("getUsers", fault)

    assert failing(subject, 50) == first


def test_jitter_adds_between_nothing_and_itself_to_the_delay():
    subject = faults(Fault(delay=1.0, jitter=0.5))

    delays = [subject.strike("getUsers").delay for _ in range(1000)]

    assert 1.0 <= min(delays) < 1.05
    assert 1.45 < max(delays) <= 1.5


def test_a_delay_alone_delays_and_fails_nothing():
    assert faults(Fault(delay=2.0)).strike("getUsers") == Strike(2.0, None)


def test_a_fault_for_the_first_calls_counts_down_and_is_gone():
    subject = faults(Fault(mode="reset", first_n=3))

    assert subject.get("getUsers").first_n == 3
    assert failing(subject, 1) == [True]
    assert subject.get("getUsers").first_n == 2
    assert failing(subject, 4) == [True, True, False, False]
    assert subject.active() == {}


def test_what_get_shows_can_be_set_again():
    subject = faults(Fault(delay=0.5, headers={"Retry-After": "3"}, status=503, first_n=2))

    shown = msgspec.json.encode(subject.get("getUsers"))

    assert msgspec.json.decode(shown, type=Fault) == subject.get("getUsers")


def test_an_unknown_operation_has_no_fault():
    subject = Faults(OPERATIONS, seed=0)

    for act in (subject.get, subject.clear, lambda name: subject.set(name, Fault())):
        with pytest.raises(KeyError):
            act("nope")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"bogus":1}', "bogus"),
        ('{"delay":"1"}', "delay"),
        ('{"delay":-1}', "delay"),
        ('{"delay":3601}', "delay"),
        ('{"jitter":-0.1}', "jitter"),
        ('{"error_rate":1.1}', "error_rate"),
        ('{"error_rate":-0.1}', "error_rate"),
        ('{"status":100}', "status"),
        ('{"status":600}', "status"),
        ('{"status":"500"}', "status"),
        ('{"mode":"explode"}', "mode"),
        ('{"first_n":0}', "first_n"),
        ('{"first_n":1.5}', "first_n"),
        ('{"headers":{"X":"a\\r\\nY: b"}}', "headers"),
        ('{"headers":{"X Y":"a"}}', "headers"),
        ('{"headers":{"Content-Length":"5"}}', "headers"),
        ('{"body":{}}', "body"),
        ('{"after":"later","mode":"reset"}', "after"),
        ('{"after":"headers"}', "after"),
    ],
)
def test_a_wrong_fault_is_refused_by_the_name_of_its_field(text, named):
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.json.decode(text, type=Fault)
