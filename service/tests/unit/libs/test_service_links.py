import pytest

from event_service.libs.service_links import is_service_link


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "3000"),
        ("SERVICE_PORT_HTTP", "3000"),
        ("PORT", "tcp://10.0.0.1:3000"),
        ("PORT", "udp://[fd00::1]:53"),
        ("PORT_3000_TCP", "tcp://10.0.0.1:3000"),
        ("PORT_3000_TCP_PROTO", "tcp"),
        ("PORT_3000_TCP_PORT", "3000"),
        ("PORT_3000_TCP_ADDR", "10.0.0.1"),
        ("OUTBOX_SERVICE_HOST", "10.0.0.2"),
        ("OUTBOX_PORT", "tcp://10.0.0.2:5432"),
        ("OUTBOX_PORT_5432_TCP_ADDR", "10.0.0.2"),
    ],
)
def test_variables_that_kubernetes_generates_are_recognized(name: str, value: str):
    assert is_service_link(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "3000"),
        ("PORT", ""),
        ("PORT", "http://10.0.0.1"),
        ("HOST", "0.0.0.0"),
        ("SERVICE", "x"),
        ("UPSTREAM_URL", "tcp://10.0.0.1:80"),
        ("PORT_TCP", "1"),
        ("SERVICE_HOSTS", "x"),
    ],
)
def test_what_somebody_set_is_not_taken_for_it(name: str, value: str):
    assert not is_service_link(name, value)
