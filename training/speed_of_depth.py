"""Seconds and memory of one deep network; each function is the whole work of a fresh process."""

import contextlib
import dataclasses
import functools
import pathlib
import resource
import statistics
import tempfile
import time

import keras
import numpy as np

from keras_mpelu.deep_graphs import deep_graphs
from training import loop
from training.optimizer import CoupledSGD
from training.recipes import get_recipe
from zoo.folders import sha256
from zoo.hub import SUMS
from zoo.inference import predict
from zoo.pretrained import load_folder
from zoo.registry import create_model
from zoo.saving import save_model

STEPS = 4  # the first compiles, the others are the steady ones


class StepTimes(keras.callbacks.Callback):
    """Seconds of each step of the first `STEPS`, each waited for; then it ends `fit`."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):  # Keras waits for the loss before it calls this
        self.seconds.append(time.perf_counter() - self.begun)
        if len(self.seconds) == STEPS:
            self.model.stop_training = True


def deep(name, way, batch):
    """From nothing to a prediction and to training steps, by the zoo or by what Keras has.

    `load, s` is of files known by their pinned sums, as those of a published name are. Others are looked through first,
    which takes longer.
    """
    x, y = _data(batch)
    started = time.perf_counter()
    model = create_model(name, num_classes=100, classifier_activation=None)
    measured = {"build, s": time.perf_counter() - started}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "folder"
        save_model(model, folder)
        del model
        keras.backend.clear_session()
        load = functools.partial(load_folder, folder, sha256(folder / SUMS), compile=False)
        started = time.perf_counter()
        with deep_graphs():
            model = load() if way != "plain fit" else keras.saving.load_model(folder)
        measured["load, s"] = time.perf_counter() - started
        started = time.perf_counter()
        if way != "plain fit":
            predict(model, x[:1])
        else:
            with deep_graphs():
                model.predict(x[:1].astype("float32"), verbose=0)
        measured["first prediction, s"] = time.perf_counter() - started
        measured["load and first prediction, s"] = measured["load, s"] + measured["first prediction, s"]
    del model
    keras.backend.clear_session()
    times = training_step(name, batch) if way != "plain fit" else _plain_fit(name, x, y, batch)
    return {**{what: round(seconds, 2) for what, seconds in measured.items()}, **times}


def training_step(name, batch, **overrides):
    """Steps of the training loop in float32, by the network's own recipe."""
    x, y = _data(batch)
    x, y = x[:batch], y[:batch]  # one step an epoch, or they would be one call on an accelerator
    times = StepTimes()
    recipe = get_recipe(name)
    overrides = {**recipe.overrides, **overrides}
    recipe = dataclasses.replace(
        recipe, batch_size=batch, dtype="float32", augmentation="none", epochs=STEPS + 1, overrides=overrides
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(loop.Interrupted):
        with deep_graphs():
            loop.fit(recipe, x, y, 100, folder, quiet=True, callbacks=[times])
    return _summary(times, batch)


def _plain_fit(name, x, y, batch):
    times = StepTimes()
    model = create_model(name, num_classes=100, classifier_activation=None)
    model.compile(CoupledSGD(0.1, l2=1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with deep_graphs():
        model.fit(x.astype("float32"), y, batch_size=batch, verbose=0, callbacks=[times])
    return _summary(times, batch)


def _data(batch):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch * STEPS, 32, 32, 3), "uint8"), rng.integers(0, 100, batch * STEPS)


def _summary(times, batch):
    steady = statistics.median(times.seconds[1:])
    return {
        "first training step, s": round(times.seconds[0], 2),
        "steady step, s": round(steady, 3),
        "training images/s": round(batch / steady, 1),
        "peak memory, GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
