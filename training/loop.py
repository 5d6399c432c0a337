"""The training loop: `model.fit` with checkpoints, resume and a history."""

import dataclasses
import hashlib
import json
import os
import pathlib
import time

import keras
import numpy as np

from training.augmentation import pad_crop_flip
from training.optimizer import CoupledSGD
from zoo.datasets import sha256_of
from zoo.registry import create_model

CHECKPOINTS_KEPT = 2
CHECKPOINT_SECONDS = 20  # at the end of an epoch, but not more often: the epochs of small nets take milliseconds


class Interrupted(Exception):
    """The run stopped before its last epoch; the same command resumes it."""


def build(recipe, num_classes, **arguments):
    """The recipe's model in float32, with the recipe's overrides."""
    return create_model(recipe.arch, num_classes=num_classes, **{**recipe.overrides, **arguments})


def fit(recipe, x, y, num_classes, folder, seed=0, stop_after=None, build_arguments=None, quiet=False):
    """Trains a model, or goes on where an earlier call stopped.

    Args:
        recipe: A `Recipe`.
        x: Training inputs, a NumPy array.
        y: Integer labels.
        num_classes: Number of classes.
        folder: Where checkpoints and the history live.
        seed: Seed of the weights, the order, the augmentation and the dropout.
        stop_after: Minutes after which to stop at the end of an epoch.
        build_arguments: Further arguments of the builder (such as the mean and
            variance of a table's columns).
        quiet: Whether to leave out the lines of progress.

    Returns:
        `(model, history)`: the trained float32 model with logits as outputs,
        and a list of one dictionary per epoch.

    Raises:
        ValueError: the folder holds another recipe's run, or a batch is larger
            than the data.
        FloatingPointError: the loss is not finite; the last checkpoint is kept.
        Interrupted: `stop_after` came first.
    """
    steps = len(x) // recipe.batch_size
    if steps < 1:
        raise ValueError(f"batch_size {recipe.batch_size} is larger than the {len(x)} training rows; make it smaller")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    decisive = {**dataclasses.asdict(recipe), "notes": None, "seeds": None}  # neither changes the run
    run = {"recipe": decisive, "seed": seed, "data": sha256_of(x, y), "backend": keras.backend.backend()}
    _check_same_run(folder / "run.json", run)

    keras.utils.set_random_seed(seed)
    arguments = {"classifier_activation": None, **(build_arguments or {})}
    plain = build(recipe, num_classes, **arguments)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.dtype)
    try:
        model = build(recipe, num_classes, **arguments)
        if keras.backend.backend() == "tensorflow":
            from training.fast_tensorflow import accelerate

            model = accelerate(model)
    finally:
        keras.config.set_dtype_policy(policy)
    model.set_weights(plain.get_weights())
    model.compile(
        optimizer=CoupledSGD(
            learning_rate_schedule(recipe, steps),
            momentum=recipe.momentum,
            l2=recipe.l2,
            multipliers=recipe.multipliers,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # Before the first step: inside the step function its variables cost a second trace.
    model.optimizer.build(model.trainable_variables)

    history = _restore(model, folder)
    if history:
        print(f"resumed at step {len(history) * steps} of {recipe.epochs * steps} (epoch {len(history)})", flush=True)
    if len(history) < recipe.epochs:
        keeper = _Keeper(recipe, folder, history, steps, stop_after, quiet)
        model.fit(
            batches(recipe, x, y, seed, steps, first_epoch=len(history)),
            steps_per_epoch=steps,
            initial_epoch=len(history),
            epochs=recipe.epochs,
            callbacks=[keras.callbacks.TerminateOnNaN(), keeper],
            shuffle=False,  # the batches come shuffled
            verbose=0,
        )
        if keeper.bad_loss:
            raise FloatingPointError(
                f"{recipe.name}: the loss was {keeper.bad_loss} in epoch {len(history) + 1}; the last sound checkpoint "
                f"is kept in {folder}; lower the learning rate ({recipe.learning_rate})"
            )
    if len(history) < recipe.epochs:
        raise Interrupted(f"{recipe.name} stopped after epoch {len(history)} of {recipe.epochs}; {folder}")
    plain.set_weights(model.get_weights())
    return plain, history


def learning_rate_schedule(recipe, steps):
    """Linear warm-up from 0 (at most half of the run), then cosine to 0, in steps of the optimizer."""
    warmup = min(recipe.warmup_epochs * steps, recipe.epochs * steps // 2)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        decay_steps=recipe.epochs * steps - warmup,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def batches(recipe, x, y, seed, steps, first_epoch=0):
    """Endless batches. Order and augmentation depend on seed, epoch and step only, so a run resumes exactly."""
    augment = recipe.augmentation == "pad_crop_flip"
    if augment:
        mean = x.mean((0, 1, 2), dtype="float64")
    epoch = first_epoch
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        for step in range(steps):
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            images = x[rows]
            if augment:
                images = pad_crop_flip(images, np.random.default_rng([seed, epoch, step]), mean)
            yield images.astype("float32", copy=False), y[rows].astype("int32")
        epoch += 1


class _Keeper(keras.callbacks.Callback):
    """After each epoch: one line of progress, the history, a checkpoint; stops in time."""

    def __init__(self, recipe, folder, history, steps, stop_after, quiet):
        super().__init__()
        self.recipe, self.folder, self.history, self.steps = recipe, folder, history, steps
        self.deadline = float("inf") if stop_after is None else time.monotonic() + 60 * stop_after
        self.quiet = quiet
        self.saved = time.monotonic()
        self.bad_loss = None

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.bad_loss = logs["loss"]
            self.model.stop_training = True
            return
        seconds = time.monotonic() - self.started
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, "loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])}
        self.history.append({**row, "learning_rate": rate, "seconds": round(seconds, 2)})
        # Stop where the next epoch would end too late.
        self.model.stop_training = time.monotonic() + seconds > self.deadline
        last = self.model.stop_training or epoch + 1 == self.recipe.epochs
        if last or time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            _save(self.model, self.folder, self.history)
            self.saved = time.monotonic()
        if not self.quiet:
            left = seconds * (self.recipe.epochs - epoch - 1)
            print(
                f"{self.recipe.name} epoch {epoch + 1}/{self.recipe.epochs}: loss {row['loss']:.4f}, accuracy "
                f"{100 * row['accuracy']:.2f} %, rate {rate:.4f}, "
                f"{self.steps * self.recipe.batch_size / seconds:.0f} rows/s, {left / 60:.1f} min left",
                flush=True,
            )


def _check_same_run(path, run):
    run = json.loads(json.dumps(run))
    if path.exists() and json.loads(path.read_text()) != run:
        raise ValueError(
            f"{path.parent} holds a run of another recipe, seed, data or backend; give another --out, or delete it "
            "to start anew"
        )
    write_atomically(path, json.dumps(run, indent=1).encode())


def write_atomically(path, content):
    """Writes bytes so that a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _save(model, folder, history):
    """One checkpoint: weights and optimizer in an h5, then the JSON that vouches for it."""
    name = f"checkpoint-{len(history):04d}"
    temporary = folder / f".{name}.weights.h5"
    model.save_weights(temporary, overwrite=True)
    weights = folder / f"{name}.weights.h5"
    os.replace(temporary, weights)
    state = {
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "history": history,
        "random": [keras.ops.convert_to_numpy(variable).tolist() for variable in _random_states(model)],
    }
    write_atomically(folder / f"{name}.json", json.dumps(state).encode())
    for old in sorted(folder.glob("checkpoint-*.json"))[:-CHECKPOINTS_KEPT]:
        old.unlink()
        old.with_suffix(".weights.h5").unlink(missing_ok=True)


def _random_states(model):
    """The seed generators of dropout layers, which Keras's weight files leave out."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _restore(model, folder):
    """Loads the newest sound checkpoint; returns its history, empty if there is none."""
    for path in sorted(folder.glob("checkpoint-*.json"), reverse=True):
        weights = path.with_suffix(".weights.h5")
        try:
            state = json.loads(path.read_text())
            sound = hashlib.sha256(weights.read_bytes()).hexdigest() == state["sha256"]
        except (OSError, ValueError, KeyError):
            sound = False
        if sound:
            model.load_weights(weights)
            for variable, value in zip(_random_states(model), state["random"], strict=True):
                variable.assign(np.array(value, variable.dtype))
            return state["history"]
        print(f"{path.name} is damaged; trying the one before", flush=True)
        path.unlink()  # else it would count as newer than what follows
        weights.unlink(missing_ok=True)
    return []
