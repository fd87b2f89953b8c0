import pytest

from event_service.telemetry.tracing import TracingUnavailable, tracing_wanted


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "no"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_standard_variables_switch_tracing_on(environ, wanted):
    assert tracing_wanted(environ) is wanted


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "grpc"),
    ],
)
def test_unavailable_tracing_is_reported_at_the_start(environ, named):
    with pytest.raises(TracingUnavailable, match=named):
        tracing_wanted(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collec tor"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such.pem"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
    ],
)
def test_what_the_sdk_could_not_start_with_is_quoted(name, value):
    with pytest.raises(TracingUnavailable) as refusal:
        tracing_wanted({"OTEL_TRACES_EXPORTER": "otlp", name: value})

    assert str(refusal.value).startswith(f"{name}: ")
    assert f"(got {value!r})" in str(refusal.value)


def test_all_faults_are_told_at_once_and_no_credentials():
    with pytest.raises(TracingUnavailable) as refusal:
        tracing_wanted(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:hush@collector",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096",
            }
        )

    assert [line.split(":")[0] for line in str(refusal.value).splitlines()] == [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    ]
    assert "hush" not in str(refusal.value)
