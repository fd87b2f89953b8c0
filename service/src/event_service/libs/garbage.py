import gc

# More objects than all requests that may be in flight have, some 100 each: what comes and goes
# with them starts no collection, only what is left behind does.
ALLOCATIONS = 1_000_000


def make_collection_rare() -> None:
    """Spare Python's collector what lives as long as the process, and let it look less often.

    For a server that is all set up and whose requests leave no reference cycles, or almost none.
    With Python's thresholds, made for small programs, walking the requests in flight again and
    again took a third of a busy worker's time (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 10, 10)
