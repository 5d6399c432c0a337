"""Functional graphs: making them, however deep, and what a config says of one."""

import contextlib
import gc
import threading

import keras

from keras_mpelu.deep_graphs import deep_graphs

_one_at_a_time = threading.RLock()  # Keras's setting is one for all threads


@contextlib.contextmanager
def channels_last():
    """Layers follow (batch, height, width, channels), as all networks here, also where keras.json says otherwise."""
    with _one_at_a_time:
        before = keras.config.image_data_format()
        keras.config.set_image_data_format("channels_last")
        try:
            yield
        finally:
            keras.config.set_image_data_format(before)


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


def one_or_all(tensors):
    """The tensor of a list of one: a model made of such a list warns when it is called with an array."""
    return tensors[0] if len(tensors) == 1 else tensors


def tensors_in(part):
    """Name of the layer that it is from, shape and dtype of each tensor in a serialised call, in order."""
    if isinstance(part, dict):
        if part.get("class_name") == "__keras_tensor__":
            config = part["config"]
            return [(config["keras_history"][0], tuple(config["shape"]), config["dtype"])]
        part = list(part.values())
    return [tensor for item in part for tensor in tensors_in(item)] if isinstance(part, list | tuple) else []


def names_of_outputs(part):
    """Names in Keras's nest of `[layer, node, tensor]`."""
    if isinstance(part, dict):
        return [name for item in part.values() for name in names_of_outputs(item)]
    if isinstance(part, list | tuple):
        if len(part) == 3 and isinstance(part[0], str) and isinstance(part[1], int):
            return [part[0]]
        return [name for item in part for name in names_of_outputs(item)]
    return []
