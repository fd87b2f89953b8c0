import gc


def make_collection_rare() -> None:
    """Spare Python's collector what lives as long as the process, and let it look less often.

    For a server that is all set up and whose requests leave almost no reference cycles. With
    Python's thresholds, made for small programs, walking the requests in flight again and again
    took a third of a busy worker's time (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)
