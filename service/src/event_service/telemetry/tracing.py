"""Decides from the standard variables whether tracing is on; the spans are in `spans.py`."""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from event_service.libs.credentials import hide_anything

_PREFIX = "OTEL_EXPORTER_OTLP_"
_PROTOCOL = "http/protobuf"
_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
# The SDK reads these itself and stops the start if one is wrong.
_COUNTS = tuple(
    f"OTEL_{kind}_LIMIT"
    for kind in (
        "ATTRIBUTE_COUNT",
        "ATTRIBUTE_VALUE_LENGTH",
        "SPAN_ATTRIBUTE_COUNT",
        "SPAN_ATTRIBUTE_VALUE_LENGTH",
        "SPAN_EVENT_COUNT",
        "SPAN_LINK_COUNT",
        "EVENT_ATTRIBUTE_COUNT",
        "LINK_ATTRIBUTE_COUNT",
    )
)
_QUEUE_SIZE = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH_SIZE = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_BATCH = {_QUEUE_SIZE: "2048", _BATCH_SIZE: "512", "OTEL_BSP_SCHEDULE_DELAY": "5000"}
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
_is_address = re.compile(r"https?://[^\s/@?#]+(?:/[^\s?#]*)?\Z", re.IGNORECASE).match


class TracingUnavailable(Exception):
    """The OTEL_* variables ask for something unsupported; the text has one line per fault."""


def tracing_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the OTEL_* variables switch tracing on. Imports nothing if they do not.

    They do if OTEL_TRACES_EXPORTER is `otlp`, or if it is unset and OTEL_EXPORTER_OTLP_ENDPOINT or
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set; never if OTEL_SDK_DISABLED is `true`. Raises
    TracingUnavailable for another exporter, a protocol other than http/protobuf, values that the
    SDK would reject, and missing packages.
    """
    values = {name: text.strip() for name, text in environ.items() if text.strip()}
    if values.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = values.get("OTEL_TRACES_EXPORTER", "").lower()
    if not exporter:
        if f"{_PREFIX}ENDPOINT" not in values and f"{_PREFIX}TRACES_ENDPOINT" not in values:
            return False
    elif exporter == "none":
        return False
    if faults := [*_exporter_faults(exporter, values), *_sdk_faults(values)]:
        raise TracingUnavailable("\n".join(faults))
    return True


def _exporter_faults(exporter: str, values: Mapping[str, str]) -> Iterator[str]:
    def of_traces(name: str) -> str:
        """The trace-specific variable, which overrides the one for all signals."""
        own = f"{_PREFIX}TRACES_{name}"
        return own if own in values else _PREFIX + name

    if exporter not in {"", "otlp"}:
        yield f"OTEL_TRACES_EXPORTER: must be otlp or none (got {exporter!a})"
    protocol, endpoint = of_traces("PROTOCOL"), of_traces("ENDPOINT")
    if values.get(protocol, _PROTOCOL).lower() != _PROTOCOL:
        yield f"{protocol}: must be {_PROTOCOL} (got {values[protocol]!a})"
    if endpoint in values and not _is_address(values[endpoint]):
        shown = hide_anything(values[endpoint])
        yield f"{endpoint}: must be an http:// or https:// address (got {shown!a})"
    for name in map(of_traces, _FILES):
        if name in values and not Path(values[name]).is_file():
            yield f"{name}: there is no such file (got {values[name]!a})"
    if not all(map(_is_installed, _NEEDED)):
        yield (
            "The OTEL_* variables switch tracing on, which needs: pip install 'event-service[otel]'"
        )


def _sdk_faults(values: Mapping[str, str]) -> Iterator[str]:
    for name in _COUNTS:
        if not values.get(name, "0").isdecimal():
            yield f"{name}: must be a whole number, at least 0 (got {values[name]!a})"
    sizes = {}
    for name, default in _BATCH.items():
        text = values.get(name, default)
        sizes[name] = int(text) if text.isdecimal() else 0
        if not sizes[name]:
            yield f"{name}: must be a whole number, at least 1 (got {text!a})"
    if sizes[_BATCH_SIZE] > sizes[_QUEUE_SIZE] > 0:
        yield f"{_BATCH_SIZE}: must not be above {_QUEUE_SIZE} ({sizes[_QUEUE_SIZE]})"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
