"""How near the zoo's work comes to what this machine can do: bytes moved and operations counted, by measured time.

The ceilings are measured in the same run on the same backend: the bandwidth is
that of adding a number to an array that is larger than the caches, the
operations are those of a product of large matrices. The bytes of a layer are
the least that it must move: its input read and its output written, and in the
backward pass the input and the upstream gradient read and the gradient written. An
operation is a multiplication or an addition; a training step is counted as
three forward passes.
"""

import functools
import statistics

import keras
import numpy as np

from keras_mpelu import MPELU
from training.speed import MODES
from training.speed import conditions
from training.speed import forward_and_backward
from training.speed import in_turns
from zoo.registry import create_model
from zoo.registry import model_info

TURNS = 15
SHAPE = (64, 32, 32, 64)
NETWORKS = ("relu_resnet20", "mpelu_resnet20", "mpelu_nopre_resnet164")


def jobs(shape=SHAPE, side=2048, networks=NETWORKS, batch=64):
    """`(key, function that measures)`: the activations, and training steps of networks, each beside the ceilings."""
    backend = keras.backend.backend()
    mode = MODES[backend][0]
    yield {"what": "activations", "batch": shape[0]}, functools.partial(_activations, mode, shape, side)
    for name in networks:
        yield {"what": name, "batch": batch}, functools.partial(_training_step, name, batch, mode, side)


def _activations(mode, shape, side):
    rng = np.random.default_rng(0)
    x, upstream = (keras.ops.convert_to_tensor(rng.standard_normal(shape).astype("float32")) for _ in range(2))
    layers = {"PReLU": keras.layers.PReLU(shared_axes=[1, 2]), "MPELU": MPELU()}
    steps = {}
    for name, layer in layers.items():
        layer.build(shape)
        steps[name] = functools.partial(forward_and_backward(layer, mode), x, upstream)
    size = 4 * int(np.prod(shape))
    return [
        {"layer": name, **_shares(seconds, found, moved=5 * size)} | conditions(TURNS)
        for name, seconds, found in _measured(steps, mode, shape, side)
    ]


def _training_step(name, batch, mode, side):
    model = create_model(name, num_classes=100, classifier_activation=None)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (batch, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 100, batch)
    macs = model_info(name)["macs"]
    steps = {name: lambda: model.train_on_batch(x, y)}
    return [
        {"layer": "training step", **_shares(seconds, found, operations=3 * 2 * macs * batch)} | conditions(TURNS)
        for _, seconds, found in _measured(steps, mode, SHAPE, side)
    ]


def _measured(steps, mode, shape, side):
    """(name, median seconds, ceilings) of each step, all in turns with the ceilings."""
    array = keras.ops.ones(shape)
    matrix = keras.ops.ones((side, side))
    ceilings = {
        "bandwidth": _compiled(lambda x: x + 1.0, mode, array),
        "operations": _compiled(keras.ops.matmul, mode, matrix, matrix),
    }
    times = in_turns({**ceilings, **steps}, TURNS)
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    found = {
        "bandwidth": 2 * 4 * int(np.prod(shape)) / seconds["bandwidth"],
        "operations": 2 * side**3 / seconds["operations"],
    }
    return [(name, seconds[name], found) for name in steps]


def _compiled(function, mode, *arguments):
    if mode == "jit":
        import jax

        function = jax.jit(function)
    elif mode == "graph":
        import tensorflow as tf

        function = tf.function(function)
    return functools.partial(function, *arguments)


def _shares(seconds, ceilings, moved=None, operations=None):
    row = {"ms": round(1000 * seconds, 2)}
    for what, done, unit, ceiling in (
        ("bandwidth", moved, "GB/s", ceilings["bandwidth"]),
        ("operations", operations, "GFLOP/s", ceilings["operations"]),
    ):
        row[f"{what}, {unit}"] = "" if done is None else round(done / seconds / 1e9, 1)
        row[f"machine's {what}, {unit}"] = round(ceiling / 1e9, 1)
        row[f"share of the {what}"] = "" if done is None else round(done / seconds / ceiling, 3)
    return row
