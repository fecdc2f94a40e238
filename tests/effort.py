"""How long tests that look at random look: shortly in every run, and for long when somebody wants to know.

`make test-long` is the long look, for a night or before a release.
"""

import os

IS_LONG = os.environ.get("LIFESIGN_TEST_PROFILE") == "long"


def examples(shortly: int, at_length: int) -> int:
    """How many examples to try."""
    return at_length if IS_LONG else shortly
