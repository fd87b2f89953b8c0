"""Spans for OpenTelemetry, by its stable conventions for HTTP. Imported when tracing is on.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import asyncio
import threading
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from event_service import context
from event_service.context import CallContext
from event_service.errors import UpstreamTimeout
from event_service.libs.trace_context import Parent
from event_service.signals import (
    UNMATCHED,
    DeliveryBegan,
    DeliveryEnded,
    DeliveryFailed,
    DeliveryFenced,
    DeliveryPutOff,
    GuardsBuilt,
    RequestDone,
    RequestIdentified,
    Shared,
    Signals,
)
from event_service.telemetry.metrics import METHODS
from halfopen import CallRejected, StateChanged

# Seconds to flush the last spans when the service ends.
FLUSH = 3.0

_context = TraceContextTextMapPropagator()


def build_provider(*, version: str) -> TracerProvider:
    """A provider that exports spans in batches; the OTEL_* variables configure it."""
    resource = Resource({"service.version": version}).merge(Resource.create())
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "event-service"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Spans:
    """One span for each request, with a child for each attempt at the upstream.

    The request's span travels in its call context. A caller that shares another's call gets a link
    to that caller's span; breaker transitions are events on the request's span.
    """

    def __init__(
        self, provider: TracerProvider, *, version: str, upstream_paths: Mapping[str, str]
    ) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("event_service", version)
        self._paths = upstream_paths

    async def close(self) -> None:
        """Flush the remaining spans, for at most `FLUSH` seconds."""
        # A daemon thread, so that a hanging collector does not keep the process alive.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, FLUSH)

    def listen(self, signals: Signals) -> None:
        signals.on(GuardsBuilt, self._guards_built)
        signals.on(RequestIdentified, self._request_identified)
        signals.on(RequestDone, self._request_done)
        signals.on(Shared, self._shared)
        signals.on(DeliveryBegan, self._delivery_began)
        signals.on(DeliveryEnded, self._delivery_ended)
        signals.on(DeliveryFailed, self._delivery_ended)
        signals.on(DeliveryFenced, self._delivery_ended)
        signals.on(DeliveryPutOff, self._delivery_ended)

    def _request_identified(self, signal: RequestIdentified) -> None:
        call, scope = signal.call, signal.scope
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        method, scheme = scope["method"], scope.get("scheme", "http")
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method if method in METHODS else "_OTHER",
            "url.scheme": scheme,
            "url.path": scope["raw_path"].decode("latin-1"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if method not in METHODS:
            attributes["http.request.method_original"] = method
        if scope["query_string"]:
            attributes["url.query"] = scope["query_string"].decode("latin-1")
        if "user-agent" in headers:
            attributes["user_agent.original"] = headers["user-agent"]
        attributes |= _server(f"{scheme}://{headers.get('host', '')}")
        span = self._tracer.start_span(
            _name(method), _remote(call.parent), SpanKind.SERVER, attributes
        )
        _carry(call, span)

    def _request_done(self, record: RequestDone) -> None:
        span = _span(context.current.get())
        if record.route != UNMATCHED:
            span.update_name(f"{_name(record.method)} {record.route}")
            span.set_attribute("http.route", record.route)
        span.set_attribute("client.address", record.client)
        span.set_attribute("http.response.status_code", record.status)
        if record.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            error = record.error
            kind = str(record.status) if error is None else type(error).__name__
            span.set_attribute("error.type", kind)
            span.set_status(StatusCode.ERROR)
            if error is not None and record.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                span.record_exception(error)
        span.end()

    def _shared(self, signal: Shared) -> None:
        follower = _span(context.current.get())
        follower.add_link(
            _span(signal.leader).get_span_context(), {"upstream.operation": signal.operation}
        )

    def _delivery_began(self, signal: DeliveryBegan) -> None:
        call = signal.call
        accepting = _remote(call.parent)
        # A trace of its own, because delivery may come days later; a link leads to the accepting
        # request.
        link = trace.Link(trace.get_current_span(accepting).get_span_context())
        span = self._tracer.start_span(
            "deliver addEvent",
            Context(),
            SpanKind.CONSUMER,
            {"delivery.id": signal.delivery_id},
            [link] if link.context.is_valid else [],
        )
        _carry(call, span)

    def _delivery_ended(
        self, signal: DeliveryEnded | DeliveryFailed | DeliveryFenced | DeliveryPutOff
    ) -> None:
        span = _span(context.current.get())
        state = signal.state if isinstance(signal, DeliveryEnded) else type(signal).__name__
        span.set_attribute("delivery.outcome", state)
        if isinstance(signal, DeliveryEnded | DeliveryFailed) and signal.error is not None:
            span.set_attribute("error.type", type(signal.error).__name__)
            span.set_status(StatusCode.ERROR)
        span.end()

    def exchange(self, operation: str, method: str, url: str) -> "Exchange":
        """Trace one HTTP exchange with the upstream; a context manager."""
        template = self._paths[operation]
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "url.full": url,
            "url.template": template,
            "upstream.operation": operation,
            **_server(url),
        }
        attempt = context.attempt.get()
        if attempt is not None and attempt.number > 1:
            attributes["http.request.resend_count"] = attempt.number - 1
        parent = trace.set_span_in_context(_span(context.current.get()))
        return Exchange(
            self._tracer.start_span(f"{method} {template}", parent, SpanKind.CLIENT, attributes)
        )

    def _guards_built(self, signal: GuardsBuilt) -> None:
        for breaker in signal.breakers.values():
            breaker.on(CallRejected, self._call_rejected)
            breaker.on(StateChanged, self._state_changed)

    def _call_rejected(self, event: CallRejected) -> None:
        _add_event(
            "circuit_breaker.rejected",
            {
                "circuit_breaker.name": event.breaker.name,
                "circuit_breaker.state": event.state.value,
                "circuit_breaker.retry_after": event.retry_after,
            },
        )

    def _state_changed(self, event: StateChanged) -> None:
        _add_event(
            "circuit_breaker.state_changed",
            {
                "circuit_breaker.name": event.breaker.name,
                "circuit_breaker.old_state": event.old.value,
                "circuit_breaker.new_state": event.new.value,
                "circuit_breaker.reason": event.reason,
            },
        )


class Exchange:
    """The client span of one exchange; `headers` pass it on, so that the upstream's spans become
    its children.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self.headers = _outgoing(span)

    def __enter__(self) -> Self:
        return self

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.BAD_REQUEST:
            self._failed(str(status))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, asyncio.CancelledError):
            attempt = context.attempt.get()
            if attempt is not None and attempt.limit.expired:
                self._failed(UpstreamTimeout.__name__)
            else:
                self._span.add_event("cancelled")
        elif exc_type is not None and self._failed_as is None:
            self._failed(exc_type.__name__)
        self._span.end()

    _failed_as: str | None = None

    def _failed(self, error_type: str) -> None:
        self._failed_as = error_type
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)


def _remote(parent: Parent | None) -> Context:
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([parent.state] if parent.state else [])
    ids = int(parent.trace_id, 16), int(parent.span_id, 16)
    remote = SpanContext(*ids, is_remote=True, trace_flags=flags, trace_state=state)
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())


def _carry(call: CallContext, span: Span) -> None:
    """Make it the call's span: the parent of the call's exchanges, and the trace in the log."""
    call.span = span
    placed = span.get_span_context()
    call.trace_id = trace.format_trace_id(placed.trace_id)
    call.sampled = placed.trace_flags.sampled
    sent = _outgoing(span)
    call.traceparent, call.tracestate = sent["traceparent"], sent.get("tracestate")


def _span(call: CallContext | None) -> Span:
    found = None if call is None else call.span
    return found if isinstance(found, Span) else trace.INVALID_SPAN


def _add_event(name: str, attributes: dict[str, AttributeValue]) -> None:
    span = _span(context.current.get())
    # The request that began a shared call may have ended already.
    if span.is_recording():
        span.add_event(name, attributes)


def _outgoing(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    _context.inject(headers, trace.set_span_in_context(span))
    return headers


def _name(method: str) -> str:
    return method if method in METHODS else "HTTP"


def _server(url: str) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return found
    if host:
        found["server.address"] = host
        found["server.port"] = port or (443 if parts.scheme == "https" else 80)
    return found
