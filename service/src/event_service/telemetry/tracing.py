"""Whether there is tracing, by the standard variables; the spans themselves are in `spans.py`."""

from collections.abc import Mapping
from importlib.util import find_spec

_PREFIX = "OTEL_EXPORTER_OTLP_"
_PROTOCOL = "http/protobuf"
_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


class TracingUnavailable(Exception):
    """The OTEL_* variables ask for what cannot be had; the text says what to do."""


def tracing_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the OTEL_* variables switch tracing on. Imports nothing if they do not.

    They do if OTEL_TRACES_EXPORTER is `otlp`, or is not set while there is an
    OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT; never if OTEL_SDK_DISABLED
    is `true`. Raises TracingUnavailable for another exporter, for a protocol other than
    http/protobuf, and when the packages of the extra are not installed.
    """

    def value(name: str) -> str:
        return environ.get(name, "").strip().lower()

    if value("OTEL_SDK_DISABLED") == "true":
        return False
    exporter = value("OTEL_TRACES_EXPORTER")
    if not exporter:
        if not value(f"{_PREFIX}ENDPOINT") and not value(f"{_PREFIX}TRACES_ENDPOINT"):
            return False
    elif exporter == "none":
        return False
    elif exporter != "otlp":
        raise TracingUnavailable(f"OTEL_TRACES_EXPORTER: must be otlp or none, not {exporter}")
    protocol = value(f"{_PREFIX}TRACES_PROTOCOL") or value(f"{_PREFIX}PROTOCOL") or _PROTOCOL
    if protocol != _PROTOCOL:
        raise TracingUnavailable(f"{_PREFIX}PROTOCOL: must be {_PROTOCOL}, not {protocol}")
    if not all(map(_is_installed, _NEEDED)):
        raise TracingUnavailable(
            "The OTEL_* variables switch tracing on, which needs: pip install 'event-service[otel]'"
        )
    return True


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
