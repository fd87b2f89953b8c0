import gc

# More than all requests in flight allocate together (about 100 objects each), so that only objects
# that stay behind trigger a collection.
ALLOCATIONS = 1_000_000


def make_collection_rare() -> None:
    """Exclude long-lived objects from garbage collection, and collect less often.

    Call it once the server is set up. Requests must leave few or no reference cycles. With Python's
    default thresholds, traversing the requests in flight took a third of a busy worker's time
    (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 10, 10)
