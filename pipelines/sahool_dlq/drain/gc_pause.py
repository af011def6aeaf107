"""Reduces Python's garbage collection during a drain: there are many rows, and no garbage until
they are stored.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (100_000, 10, 10)  # thresholds far above a batch's rows


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Let the collector run rarely, and never check existing objects."""
    thresholds = gc.get_threshold()
    if thresholds == _RARELY:  # another drain in this process did it
        yield
        return
    gc.freeze()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
