import asyncio
import gc
import weakref

import pytest
from starlette.types import Message

from event_service.errors import RequestTimeout
from event_service.middleware.upload import Upload, Uploads

pytestmark = pytest.mark.anyio


async def never() -> Message:
    return await asyncio.get_running_loop().create_future()


def upload() -> Upload:
    return Uploads().of({"headers": [(b"content-length", b"10")]}, never)


async def test_a_body_that_came_too_slowly_is_not_read_on():
    slow = upload()
    with pytest.raises(RequestTimeout):
        await slow.arrive(deadline=asyncio.get_running_loop().time())

    async with asyncio.timeout(1):
        await slow.discard()


async def test_a_body_is_not_read_on_after_its_request_was_cancelled():
    slow = upload()
    arriving = asyncio.create_task(slow.arrive(deadline=asyncio.get_running_loop().time() + 60))
    await asyncio.sleep(0)
    arriving.cancel()
    await asyncio.wait([arriving])

    assert arriving.cancelled()
    async with asyncio.timeout(1):
        await slow.discard()


class Connection:
    """Stands for the server's end of a request, which closes once nobody holds it."""

    async def __call__(self) -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": True}


async def test_a_request_with_a_body_leaves_nothing_to_the_garbage_collector():
    gc.disable()
    try:
        server = Connection()
        gone = weakref.ref(server)
        upload = Uploads().of({"headers": [(b"content-length", b"100")]}, server)
        receive = upload.receive

        del upload, receive, server

        assert gone() is None
    finally:
        gc.enable()
