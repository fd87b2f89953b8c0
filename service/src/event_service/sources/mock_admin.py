from typing import NamedTuple

from event_service.errors import UpstreamFailed
from event_service.libs.http_client import HttpClient, HttpClientError


class AdminReply(NamedTuple):
    status: int
    body: bytes


class MockAdmin:
    """The mock upstream's admin API: faults on demand. No other upstream has one."""

    def __init__(self, client: HttpClient, *, time_limit: float) -> None:
        """`time_limit`, of one exchange, in seconds."""
        self._client = client
        self._time_limit = time_limit

    async def get(self, path: str) -> AdminReply:
        """Raises UpstreamFailed when nothing answers there."""
        return await self._ask("GET", path)

    async def put(self, path: str, body: bytes) -> AdminReply:
        """Raises UpstreamFailed when nothing answers there."""
        return await self._ask("PUT", path, body)

    async def delete(self, path: str) -> AdminReply:
        """Raises UpstreamFailed when nothing answers there."""
        return await self._ask("DELETE", path)

    async def reset(self) -> AdminReply:
        """Raises UpstreamFailed when nothing answers there."""
        return await self._ask("POST", "/reset")

    async def _ask(self, method: str, path: str, body: bytes = b"") -> AdminReply:
        headers = {"content-type": "application/json"} if body else {}
        try:
            reply = await self._client.send(
                method, f"/__admin{path}", headers=headers, body=body, time_limit=self._time_limit
            )
            return AdminReply(reply.status, await reply.read())
        except HttpClientError as exc:
            raise UpstreamFailed(
                "mock admin", "The mock upstream does not answer.", reason=str(exc)
            ) from exc
