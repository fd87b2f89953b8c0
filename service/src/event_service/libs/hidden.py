import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(*modules: str) -> Iterator[None]:
    """Inside, an import of these top-level modules fails, as if they were not installed.

    For libraries that load others, and with them megabytes, only because they are there. Modules
    that are loaded already stay. For the start of a program: other threads would see it, too.
    """
    unloaded = [module for module in modules if module not in sys.modules]
    # What the import system takes for a module that is known to be absent.
    sys.modules.update(dict.fromkeys(unloaded))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for module in unloaded:
            del sys.modules[module]
