"""Functional graphs deeper than Python's recursion limit."""

import contextlib
import sys
import threading

DEEPEST = 40_000  # frames; Keras takes about one per layer, and nopre-1001 has some 3,000 layers


# Python's limit is one for all threads: the first of those who need a higher one notes it, the last restores it.
_deep = {"users": 0, "limit before": None}
_counting = threading.Lock()


@contextlib.contextmanager
def deep_graphs():
    """Raises Python's recursion limit: Keras walks a functional graph by recursion."""
    with _counting:
        if not _deep["users"]:
            _deep["limit before"] = sys.getrecursionlimit()
            sys.setrecursionlimit(max(_deep["limit before"], DEEPEST))
        _deep["users"] += 1
    try:
        yield
    finally:
        with _counting:
            _deep["users"] -= 1
            if not _deep["users"]:
                sys.setrecursionlimit(_deep["limit before"])
