from typing import NamedTuple

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from event_service.errors import UpstreamFailed


class AdminReply(NamedTuple):
    status: int
    body: bytes


class MockAdmin:
    """The mock upstream's admin API: faults on demand. No other upstream has one."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = f"{url}/__admin"

    async def get(self, path: str) -> AdminReply:
        """Raises UpstreamFailed when nothing answers there."""
        return await self._ask("GET", path)

    async def put(self, path: str, body: bytes) -> AdminReply:
        """Raises UpstreamFailed when nothing answers there."""
        return await self._ask("PUT", path, body)

    async def reset(self) -> AdminReply:
        """Raises UpstreamFailed when nothing answers there."""
        return await self._ask("POST", "/reset")

    async def _ask(self, method: str, path: str, body: bytes = b"") -> AdminReply:
        request = self._client.request(method, self._url + path)
        if body:
            request = request.header("content-type", "application/json").body_bytes(body)
        try:
            response = await request.build().send()
            return AdminReply(response.status, bytes(await response.bytes()))
        except PyreqwestError as exc:
            raise UpstreamFailed(
                "mock admin", "The mock upstream does not answer.", reason=type(exc).__name__
            ) from exc
