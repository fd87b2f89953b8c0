from event_service.libs.http_client.client import HttpClient
from event_service.libs.http_client.errors import (
    Broken,
    ClientClosed,
    ConnectFailed,
    HttpClientError,
    InvalidRequest,
    Malformed,
    OutOfResources,
    Progress,
    ProxyFailed,
    TimedOut,
    Timings,
    TlsFailed,
    TooLarge,
    Undecodable,
)
from event_service.libs.http_client.reply import Reply, Watch
from event_service.libs.http_client.tls import tls_context
from event_service.libs.http_client.urls import (
    BaseUrl,
    Proxy,
    check_headers,
    check_target,
    parse_base_url,
    parse_proxy_url,
)

__all__ = [
    "BaseUrl",
    "Broken",
    "ClientClosed",
    "ConnectFailed",
    "HttpClient",
    "HttpClientError",
    "InvalidRequest",
    "Malformed",
    "OutOfResources",
    "Progress",
    "Proxy",
    "ProxyFailed",
    "Reply",
    "TimedOut",
    "Timings",
    "TlsFailed",
    "TooLarge",
    "Undecodable",
    "Watch",
    "check_headers",
    "check_target",
    "parse_base_url",
    "parse_proxy_url",
    "tls_context",
]
