import gc
import weakref

from event_service.middleware.upload import Uploads


class Connection:
    """Stands for the server's end of a request, which closes once nobody holds it."""

    async def __call__(self):
        return {"type": "http.request", "body": b"{}", "more_body": True}


def test_a_request_with_a_body_leaves_nothing_to_the_garbage_collector():
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
