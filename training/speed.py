"""What an activation, a start and a deep network cost, each beside a peer in the same run."""

import csv
import functools
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

from keras_mpelu import MPELU
from keras_mpelu.layers import plain_mpelu
from training.machine import hardware
from zoo.registry import model_info

TURNS = 15
MODES = {"tensorflow": ("graph", "xla"), "jax": ("jit",), "torch": ("eager",)}


class PlainMPELU(MPELU):
    """MPELU from Keras operations alone, with the gradient that the backend derives: what the kernels must beat."""

    def call(self, inputs):
        return plain_mpelu(inputs, self._align(self.alpha, inputs), self._align(self.beta, inputs))


def activation_jobs(batches=(1, 16, 64, 256), shape=(32, 32, 64)):
    """`(key, function that measures)`: a forward and a backward pass of MPELU against Keras's PReLU."""
    for dtype in ("float32", "bfloat16"):
        for parameters in ("per channel", "shared"):
            for batch in batches:
                for mode in MODES[keras.backend.backend()]:
                    key = {
                        "backend": keras.backend.backend(),
                        "mode": mode,
                        "dtype": dtype,
                        "parameters": parameters,
                        "batch": batch,
                        "shape": " x ".join(map(str, shape)),
                    }
                    yield key, functools.partial(_activation, mode, dtype, parameters, (batch, *shape))


def _activation(mode, dtype, parameters, shape):
    shared = parameters == "shared"
    quarter = keras.initializers.Constant(0.25)
    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    layers = {
        "PReLU": keras.layers.PReLU(quarter, shared_axes=[1, 2, 3] if shared else [1, 2], dtype=policy),
        "MPELU": MPELU(quarter, axis=None if shared else -1, dtype=policy),
        "plain MPELU": PlainMPELU(quarter, axis=None if shared else -1, dtype=policy),
    }
    rng = np.random.default_rng(0)
    x, upstream = (keras.ops.cast(rng.standard_normal(shape).astype("float32"), dtype) for _ in range(2))
    steps = {}
    for name, layer in layers.items():
        layer.build(shape)
        steps[name] = functools.partial(forward_and_backward(layer, mode), x, upstream)
    times = in_turns(steps)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return {
        **{f"{name}, ms": round(1000 * seconds, 3) for name, seconds in medians.items()},
        "MPELU / PReLU": round(medians["MPELU"] / medians["PReLU"], 2),
        "plain MPELU / PReLU": round(medians["plain MPELU"] / medians["PReLU"], 2),
        **conditions(TURNS),
    }


def forward_and_backward(layer, mode):
    """A function of an input and the gradient of its output: the output, and the gradients of input and weights."""
    weights = layer.trainable_variables
    values = [keras.ops.copy(weight.value) for weight in weights]

    def call(x, *values):
        with keras.StatelessScope(zip(weights, values, strict=True)):  # `stateless_call` would not cast the weights
            return layer(x)

    if mode in ("graph", "xla"):
        import tensorflow as tf

        @tf.function(jit_compile=mode == "xla")
        def run(x, upstream, *values):
            with tf.GradientTape() as tape:
                tape.watch((x, *values))
                outputs = call(x, *values)
            return outputs, tape.gradient(outputs, (x, *values), upstream)

        return lambda x, upstream: run(x, upstream, *values)
    if mode == "jit":
        import jax

        @jax.jit
        def run(x, upstream, *values):
            outputs, pull_back = jax.vjp(call, x, *values)
            return outputs, pull_back(upstream)

        return lambda x, upstream: run(x, upstream, *values)
    import torch

    def run(x, upstream):
        tensors = [tensor.detach().requires_grad_() for tensor in (x, *values)]
        outputs = call(*tensors)
        return outputs, torch.autograd.grad(outputs, tensors, upstream)

    return run


def in_turns(ways, turns=TURNS):
    """Seconds of each way's calls, which take turns, so that another load on the machine falls on all of them."""
    for call in ways.values():  # compiles
        for _ in range(2):
            wait_for_device(call())
    times = {name: [] for name in ways}
    for _ in range(turns):
        for name, call in ways.items():
            started = time.perf_counter()
            wait_for_device(call())
            times[name].append(time.perf_counter() - started)
    return times


def wait_for_device(outputs):
    """Until what a step has made is there."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.block_until_ready(outputs)
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.test.experimental.sync_devices()
    else:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def conditions(repeats):
    """What a figure of speed depends on, besides backend and Keras."""
    backend = keras.backend.backend()
    return {
        "repeats": repeats,
        "hardware": hardware(),
        "load_average": round(os.getloadavg()[0], 1),
        "version": __import__(backend).__version__,
    }


# A ResNet-20 of stock layers in one process: what starting the backend and predicting once costs without a zoo.
BARE = """
import keras
import numpy as np
from keras import layers

def unit(x, filters, stride):
    y = x
    for first in (True, False):
        y = layers.Conv2D(filters, 3, stride if first else 1, "same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        y = layers.ReLU()(y) if first else y
    x = layers.Conv2D(filters, 1, stride, use_bias=False)(x) if stride == 2 else x
    return layers.ReLU()(layers.Add()([x, y]))

inputs = keras.Input((32, 32, 3))
x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)))
for filters in (16, 32, 64):
    for block in range(3):
        x = unit(x, filters, 2 if block == 0 and filters > 16 else 1)
outputs = layers.Dense(100, "softmax")(layers.GlobalAveragePooling2D()(x))
print(keras.Model(inputs, outputs).predict(np.zeros((1, 32, 32, 3), "float32"), verbose=0).argmax())
"""


def startup_jobs(name="mpelu_resnet20.cifar100", repeats=7):
    """`(key, function that measures)`: seconds until something has happened, each in fresh processes."""
    yield {"model": name, "backend": keras.backend.backend()}, functools.partial(_startup, name, repeats)


def _startup(name, repeats):
    from PIL import Image  # of the extra `data`, like the command's own reading of images

    with tempfile.TemporaryDirectory() as scratch:
        image = pathlib.Path(scratch) / "image.png"
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), "uint8")
        Image.fromarray(pixels).save(image)
        ways = {
            "python -c pass": ["-c", "pass"],
            "python -c 'import zoo'": ["-c", "import zoo"],
            "python -m zoo list": ["-m", "zoo", "list"],
            "python -m zoo predict, one image": ["-m", "zoo", "predict", name, str(image)],
            "a bare Keras ResNet-20 predicts once": ["-c", BARE],
        }
        run = functools.partial(subprocess.run, check=True, capture_output=True)
        times = {way: [] for way in ways}
        for turn in range(repeats + 1):
            for way, arguments in ways.items():
                started = time.perf_counter()
                run([sys.executable, *arguments])
                if turn:  # the first turn fills the caches of the disk
                    times[way].append(time.perf_counter() - started)
    medians = {way: statistics.median(taken) for way, taken in times.items()}
    bare = medians["a bare Keras ResNet-20 predicts once"]
    return [
        {
            "way": way,
            "median, s": round(seconds, 3),
            "without python, s": round(seconds - medians["python -c pass"], 3),
            "times the bare model": round(seconds / bare, 3),
            **conditions(repeats),
        }
        for way, seconds in medians.items()
    ]


def deep_jobs(name="mpelu_nopre_resnet1001", batch=16):
    """`(key, function that measures)`: what a network of a thousand layers costs, each way in a fresh process."""
    for way in ("zoo and its training loop", "plain fit"):
        key = {"model": name, "backend": keras.backend.backend(), "way": way, "batch": batch}
        yield key, functools.partial(in_a_process, "deep", name=name, way=way, batch=batch)


SCALING = ("mpelu_resnet20", "mpelu_resnet56", "mpelu_resnet110", "mpelu_nopre_resnet164", "mpelu_nopre_resnet1001")


def scaling_jobs(batches=(16, 64)):
    """`(key, function that measures)`: a step of each depth in a fresh process, of 1001 layers in batches of 16."""
    for name, batch in itertools.product(SCALING, batches):
        if batch <= 16 or "1001" not in name:
            info = model_info(name)
            key = {"model": name, "macs": info["macs"], "backend": keras.backend.backend(), "batch": batch}
            yield key, functools.partial(in_a_process, "training_step", name=name, batch=batch)


def draw_scaling(path):
    """Draws the picture beside the CSV: time of an image by its work, and memory by depth."""
    from matplotlib.figure import Figure

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(10, 4), layout="constrained")
    time_panel, memory_panel = figure.subplots(1, 2)
    for batch in dict.fromkeys(row["batch"] for row in rows):
        mine = sorted((row for row in rows if row["batch"] == batch), key=lambda row: int(row["macs"]))
        macs = [int(row["macs"]) / 1e6 for row in mine]
        cost = [1000 * float(row["steady step, s"]) / int(batch) for row in mine]
        time_panel.plot(macs, cost, marker="o", label=f"batches of {batch}")
        memory_panel.plot(macs, [float(row["peak memory, GiB"]) for row in mine], marker="o")
    first = min(rows, key=lambda row: int(row["macs"]))
    start = 1000 * float(first["steady step, s"]) / int(first["batch"])
    ends = np.array([int(row["macs"]) for row in rows]) / 1e6
    line = np.array([ends.min(), ends.max()])
    time_panel.plot(line, start * line / line[0], color="black", linewidth=0.5, linestyle=":", label="in proportion")
    time_panel.set(
        xscale="log", yscale="log", xlabel="million multiply-accumulates of an image", ylabel="training, ms an image"
    )
    memory_panel.set(xscale="log", xlabel="million multiply-accumulates of an image", ylabel="peak memory, GiB")
    time_panel.legend()
    for row in rows:
        if row["batch"] == first["batch"]:
            place = int(row["macs"]) / 1e6, float(row["peak memory, GiB"])
            memory_panel.annotate(row["model"].rpartition("resnet")[2], place, (4, 4), textcoords="offset points")
    figure.suptitle(f"A training step by depth, {first['backend']}")
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=100, metadata={"Software": None})
    return picture


def memory_jobs(batch=128):
    """`(key, function that measures)`: a training step of the same deep network with each activation."""
    for name, overrides in (
        ("relu_preact_resnet164", {}),
        ("relu_preact_resnet164", {"activation": "prelu"}),
        ("mpelu_preact_resnet164", {}),
    ):
        activation = overrides.get("activation", name.partition("_")[0])
        key = {"activation": activation, "backend": keras.backend.backend(), "batch": batch}
        yield key, functools.partial(in_a_process, "training_step", name=name, batch=batch, **overrides)


def in_a_process(what, **arguments):
    """What the function of that name in `training.speed_of_depth` measures, in a process of its own."""
    code = f"import json; from training import speed_of_depth as s; print(json.dumps(s.{what}(**{arguments!r})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return {**json.loads(done.stdout.splitlines()[-1]), **conditions(1)}
