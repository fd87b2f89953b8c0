import gc

# More objects than all requests in flight have together (about 100 each): requests that come and
# go start no collection, only objects that stay behind do.
ALLOCATIONS = 1_000_000


def make_collection_rare() -> None:
    """Exclude long-lived objects from garbage collection, and collect less often.

    Call it once the server is set up. Requests must leave few or no reference cycles.
    With Python's thresholds, made for small programs, walking the requests in flight again and
    again took a third of a busy worker's time (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 10, 10)
