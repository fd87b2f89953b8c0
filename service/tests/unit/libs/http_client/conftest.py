import pytest


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """Both of the loops that people run."""
    return "asyncio", {"use_uvloop": request.param}
