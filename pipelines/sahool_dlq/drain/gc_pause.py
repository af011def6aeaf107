"""Python's garbage collector at rest in a drain: rows are many, and no garbage till stored."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (100_000, 10, 10)  # thresholds far above a batch's rows


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Have the collector look seldom, and never at what was there before."""
    thresholds = gc.get_threshold()
    if thresholds == _RARELY:  # another drain of this process does it
        yield
        return
    gc.freeze()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
