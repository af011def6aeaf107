"""The seed of everything random in tests, so that two runs do the same.

`make explore` uses other seeds; a failure prints the seed that repeats it.
"""

import os

SEED = int(os.environ.get("DLQ_TEST_SEED", "1"))
IS_FIXED = "DLQ_TEST_SEED" not in os.environ
