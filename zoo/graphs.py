"""Functional graphs deeper than Python's recursion limit."""

import contextlib
import gc
import sys

import keras

DEEPEST = 40_000  # frames; Keras takes about one per layer, and nopre-1001 has some 3,000 layers


@contextlib.contextmanager
def deep_graphs():
    """Raises Python's recursion limit: Keras walks a functional graph by recursion."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@contextlib.contextmanager
def without_collection():
    """Holds Python's garbage collector off, which looks through all layers again and again while more are made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def functional_model(inputs, outputs, name):
    """`keras.Model`, however deep the graph."""
    with deep_graphs():
        return keras.Model(inputs, outputs, name=name)
