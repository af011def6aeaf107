"""The seed of whatever tests leave to chance: one number, so that a run says the same twice.

`make explore` gives others; a failure prints the seed that repeats it.
"""

import os

SEED = int(os.environ.get("DLQ_TEST_SEED", "1"))
IS_FIXED = "DLQ_TEST_SEED" not in os.environ
