"""The variables that Kubernetes defines for each Service of a namespace.

A Service named `event-service` gives every container of the namespace an EVENT_SERVICE_PORT, which
looks like a setting of ours and is not.

https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
"""

import re

_is_name = re.compile(
    r"(?:[A-Z0-9_]+_)?(?:"
    r"SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?"
    r")"
).fullmatch
_is_port = re.compile(r"(?:[A-Z0-9_]+_)?PORT").fullmatch
_is_address = re.compile(r"(?:tcp|udp|sctp)://\S+").fullmatch


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes defined this variable for a Service; `name` is without the prefix of the
    program.
    """
    return bool(_is_name(name) or (_is_port(name) and _is_address(value)))
