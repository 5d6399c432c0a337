"""The training loop: `model.fit` with checkpoints at any step, exact resume and a history."""

import contextlib
import dataclasses
import functools
import io
import json
import math
import os
import pathlib
import time
import typing

import keras
import numpy as np

from keras_mpelu import MPELU
from keras_mpelu.deep_graphs import deep_graphs
from training import checkpoints
from training import unit_functions
from training.interrupting import signals_stop
from training.machine import hardware
from training.machine import versions
from training.optimizer import CoupledSGD
from training.recipes import decisive
from training.recipes import differences
from training.training_model import TrainingModel
from zoo.datasets import sha256_of
from zoo.graphs import functional_model
from zoo.registry import create_model

# Counts up whenever a change makes the same recipe and seed give other weights, but for rounding: an older run is then
# not resumed.
ENGINE = 4
CHECKPOINT_SECONDS = 30
# After so many, or two seconds, the host waits for the device (between calls): to see a NaN, and to keep time.
CHECK_STEPS = 50
LINE_SECONDS = 60  # within an epoch
FORGOTTEN = 1e-4  # of the statistics that are replaced, this is left
DEEP_UNITS = 100  # from so many, units that are alike share a function on TensorFlow and JAX


class Interrupted(Exception):
    """The run stopped before its last step; the same command resumes it."""


class Fitted(typing.NamedTuple):
    """What `fit` returns: the float32 model with logits, its history, and the moving average of its weights.

    `average` lists the values of `model.weights`; `None` if the recipe has no
    average. `alpha_beta` holds the mean alpha and beta of every MPELU layer
    after every epoch, (epochs, layers, 2). `machines` lists the hardware
    and the backend of the run in order, more than one pair where it moved.
    """

    model: keras.Model
    history: list
    average: list | None
    alpha_beta: np.ndarray
    machines: list


def build(recipe, num_classes, dtype="float32", **arguments):
    """The recipe's model with its overrides in a dtype policy, by default float32 whatever the caller's is."""
    with dtype_policy(dtype):
        return create_model(recipe.arch, num_classes=num_classes, **{**recipe.overrides, **arguments})


@contextlib.contextmanager
def dtype_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def fit(
    recipe,
    x,
    y,
    num_classes,
    folder,
    seed=0,
    stop_after=None,
    build_arguments=None,
    quiet=False,
    devices=1,
    callbacks=(),
    taught=None,
):
    """Trains a model, or goes on where an earlier call stopped.

    Interrupted at any step (Ctrl-C, SIGTERM, a kill, `stop_after`) and called
    again, it ends with the weights of an uninterrupted run, bit for bit on a
    CPU; a kill costs the steps since the last checkpoint, at most
    `CHECKPOINT_SECONDS`. On an accelerator JAX makes some steps in one call
    (`scanned_jax`), and stops and checkpoints are between two calls.

    Args:
        recipe: A `Recipe`.
        x: Training inputs, a NumPy array.
        y: Integer labels.
        num_classes: Number of classes.
        folder: Where checkpoints and the history live.
        seed: Seed of the weights, the order, the augmentation and the dropout.
        stop_after: Minutes after which to stop.
        build_arguments: Further arguments of the builder (such as the mean and
            variance of a table's columns).
        quiet: Whether to leave out the lines of progress.
        devices: Devices to spread each batch over; see `distribution`. An
            equal part for each.
        callbacks: Further Keras callbacks; a "batch" is a call.
        taught: What `training.distillation.ask_teachers` gives for these rows,
            where the recipe has teachers.

    Returns:
        A `Fitted`.

    Raises:
        ValueError: the folder holds another run, a batch is larger than the
            data, there are not so many devices, the recipe's teachers were not
            asked about these rows, or Keras is told to make fewer steps.
        BlockingIOError: another process trains in this folder.
        FloatingPointError: the loss is not finite; names the step and the
            layer. The last good checkpoint is kept.
        OSError: a checkpoint could not be written; the earlier ones are kept.
        Interrupted: the run was stopped before its end.
    """
    deadline = float("inf") if stop_after is None else time.monotonic() + 60 * stop_after
    steps = len(x) // recipe.batch_size
    if steps < 1:
        raise ValueError(f"batch_size {recipe.batch_size} is larger than the {len(x)} training rows; make it smaller")
    most_epochs, most_steps = keras.config.max_epochs(), keras.config.max_steps_per_epoch()
    if most_steps is not None or most_epochs is not None and most_epochs < recipe.epochs:
        raise ValueError(
            f"{recipe.name}: Keras is told to make at most {most_epochs} epochs of {most_steps} steps, and this run "
            f"has {recipe.epochs} of {steps}; leave KERAS_MAX_EPOCHS and KERAS_MAX_STEPS_PER_EPOCH unset"
        )
    _check_taught(taught, recipe, len(x), num_classes)
    found = check_devices(devices, recipe.batch_size)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    backend = keras.backend.backend()
    run = {
        "recipe": decisive(dataclasses.asdict(recipe)),
        "seed": seed,
        "data": sha256_of(x, y),
        "backend": backend,
        "devices": devices,
        "engine": ENGINE,
        "deterministic": deterministic,
        "versions": {"keras": keras.__version__, backend: __import__(backend).__version__},
    }
    if taught:
        run["teachers"] = taught.teachers
    arguments = {"classifier_activation": None, **(build_arguments or {})}
    with contextlib.ExitStack() as held:
        held.enter_context(only_run_in(folder))
        _check_same_run(folder / "run.json", run)
        keras.utils.set_random_seed(seed)
        plain = build(recipe, num_classes, **arguments)  # what is returned lives on one device
        held.enter_context(distribution(found))
        model = prepare(recipe, plain, x, y, num_classes, seed, steps, arguments, taught)
        if model.training_pass:
            from training.unit_functions_tensorflow import one_function_for_all_calls

            held.enter_context(one_function_for_all_calls())
        done, kept = _restore(model, folder)
        if done > recipe.epochs * steps:
            raise ValueError(
                f"the checkpoint in {folder} is of step {done}, but this run has {recipe.epochs * steps}: it is of "
                "another run; give another --out"
            )
        if done:
            print(f"{recipe.name} resumed at step {done} of {recipe.epochs * steps}", flush=True)
        keeper = Keeper(recipe, folder, model, done, kept, steps, deadline, quiet)
        keeper.save()  # also before the first step, so that there is always one to go back to
        with signals_stop(keeper):
            _train_from(model, recipe, len(x), seed, steps, keeper, callbacks)
        if keeper.step < recipe.epochs * steps:
            raise Interrupted(f"{recipe.name} stopped at step {keeper.step} of {recipe.epochs * steps}; {folder}")
        plain.set_weights(model.network.get_weights())
        rows = functools.partial(row_batches, recipe, len(x), seed, steps, recipe.epochs * steps)
        average = _average(model, folder, functools.partial(_on_devices, rows, recipe.batch_size))
        return Fitted(plain, keeper.history, average, np.array(keeper.alpha_beta), keeper.machines)


def _check_taught(taught, recipe, rows, num_classes):
    said = tuple(taught.teachers) if taught else ()
    if said != tuple(recipe.teachers):
        raise ValueError(
            f"{recipe.name} has the teachers {list(recipe.teachers)}; received answers of {list(said)}; "
            "`training.train` asks them"
        )
    if taught and taught.soft_targets.shape != (rows, num_classes):
        raise ValueError(
            f"{recipe.name}: the teachers' answers have the shape {taught.soft_targets.shape}, expected "
            f"{(rows, num_classes)}, a row for each training row"
        )


def prepare(recipe, plain, x, y, num_classes, seed, steps, arguments, taught=None):
    """What is trained; it starts from the weights of the plain model."""
    with dtype_policy(recipe.dtype):
        network = build(recipe, num_classes, recipe.dtype, **arguments)
        network, optimizer, model = _faster(network, recipe)
    network.set_weights(plain.get_weights())
    model = model(network, recipe, x, y, num_classes, seed, soft_targets=taught.soft_targets if taught else None)
    model.compile(
        optimizer=optimizer(
            learning_rate_schedule(recipe, steps),
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            l2=recipe.l2,
            multipliers=recipe.multipliers,
            use_ema=recipe.average > 0,
            ema_momentum=recipe.average,
        )
    )
    # Before the first step: inside the step function its variables cost a second trace.
    model.optimizer.build(model.trainable_variables)
    return model


def _faster(network, recipe):
    """The network with faster layers, the class of the optimizer, and what makes the training model."""
    backend = keras.backend.backend()
    deep = len(unit_functions.units(network)) >= DEEP_UNITS
    optimizer, model = CoupledSGD, TrainingModel
    if backend == "tensorflow":
        from training import fast_tensorflow
        from training import mirrored_tensorflow
        from training.unit_functions_tensorflow import forward_by_units

        network, optimizer = fast_tensorflow.accelerate(network, not deep), fast_tensorflow.FusedCoupledSGD
        if deep and not mirrored_tensorflow.is_distributed() and (pieces := _pieces(network)):
            model = functools.partial(TrainingModel, training_pass=forward_by_units(pieces))
    elif backend == "jax" and keras.distribution.distribution() is None:
        from training import scanned_jax
        from training import unit_functions_jax

        by_units = deep and not (recipe.average or recipe.teachers)
        if by_units and (pieces := _pieces(network, unit_functions_jax.TOGETHER)):
            optimizer = unit_functions_jax.UnitwiseCoupledSGD
            model = functools.partial(unit_functions_jax.UnitwiseTrainingModel, pieces=pieces)
        elif scanned_jax.is_useful():
            model = scanned_jax.ScannedTrainingModel
    return network, optimizer, model


def _pieces(network, together=1):
    with deep_graphs():
        return unit_functions.pieces(network, together)


def _train_from(model, recipe, count, seed, steps, keeper, callbacks):
    """Calls `fit` for what is left: first for the rest of a begun epoch, then for the whole ones."""
    while keeper.step < recipe.epochs * steps and not keeper.stop:
        epoch, done = divmod(keeper.step, steps)
        together = keeper.together
        rows = functools.partial(row_batches, recipe, count, seed, steps, keeper.step, together)
        model.fit(
            _on_devices(rows, recipe.batch_size),
            steps_per_epoch=math.ceil(steps / together) - done // together,
            initial_epoch=epoch,
            epochs=epoch + 1 if done else recipe.epochs,
            callbacks=[keeper, *callbacks],
            shuffle=False,  # the batches come shuffled
            verbose=0,
        )
        if keeper.failed or model.stop_training:  # by a callback
            break
    keeper.save()
    if keeper.failed:
        raise FloatingPointError(_diagnosis(model, recipe, count, seed, steps, keeper))


def _on_devices(batches, batch_size):
    """The batches, for `fit`; `batches` is a function without arguments."""
    if keras.backend.backend() == "tensorflow":
        from training import mirrored_tensorflow

        if mirrored_tensorflow.is_distributed():
            return mirrored_tensorflow.distributed_rows(batches, batch_size)
    return batches()


def learning_rate_schedule(recipe, steps):
    """The recipe's schedule in steps of the optimizer.

    `"cosine"`: linear warm-up from 0 (at most half of the run), then a cosine to
    0. `"steps"`: constant pieces.
    """
    warmup = min(round(recipe.warmup_epochs * steps), recipe.epochs * steps // 2)
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else rate,
            decay_steps=recipe.epochs * steps - warmup,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    if not recipe.rates:
        return rate
    # Keras still has the earlier value at a boundary; the first step is number 0.
    boundaries = [round(epoch * steps) - 1 for epoch, _ in recipe.rates]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [rate, *(later for _, later in recipe.rates)])


def row_batches(recipe, count, seed, steps, first_step=0, together=1):
    """Endless batches of row numbers. They depend on seed, epoch and step only, so a run resumes anywhere.

    With `together` several are one, (steps, batch): that many or, at the end of an epoch and where a run resumes
    between two, fewer.
    """
    epoch, step = divmod(first_step, steps)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(count).astype("int32")
        batches = order[: steps * recipe.batch_size].reshape(steps, recipe.batch_size)
        while step < steps:
            after = end_of_call(step, steps, together)
            yield (batches[step] if together == 1 else batches[step:after],)
            step = after
        epoch, step = epoch + 1, 0


def end_of_call(step, steps, together):
    """The step of an epoch up to which a call goes that begins at `step`."""
    return min(step - step % together + together, steps)


class Keeper(keras.callbacks.Callback):
    """Keeps the run: history, checkpoints, progress, and a stop in time.

    It acts before a batch and not after one: a callback with `on_train_batch_end`
    makes Keras wait for the device at every step.
    """

    def __init__(self, recipe, folder, model, done, kept, steps, deadline, quiet):
        super().__init__()
        self.recipe, self.folder, self.steps, self.quiet = recipe, folder, steps, quiet
        self.training_model = model
        self.step = done
        self.together = model.steps_in_call(steps)
        self.saved_step = done if kept else None
        self.history = kept.get("history", [])
        self.alpha_beta = kept.get("alpha_beta", [])
        self.machines = kept.get("machines", [])  # older checkpoints have none
        here = [hardware(), versions()["backend"]]
        if here not in self.machines and (done < recipe.epochs * steps or not self.machines):
            if self.machines:
                print(f"{recipe.name} goes on on {here[0]}, where the weights may differ by rounding", flush=True)
            self.machines.append(here)
        self.seconds_before = kept.get("seconds", 0.0)  # spent in the epoch that was interrupted
        self.metrics = kept.get("metrics") if done % steps else None
        self.deadline = deadline
        self.stop = self.failed = False
        self.saved = self.printed = self.checked = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.started, self.steps_before = time.monotonic(), self.step % self.steps
        self.checked_step = self.step
        if self.metrics is not None:  # the sums of the begun epoch, which `fit` has just reset
            for variable, value in zip(self.model.metrics_variables, self.metrics, strict=True):
                variable.assign(value)
            self.metrics = None

    def on_train_batch_begin(self, batch, logs=None):
        now = time.monotonic()
        due = self.step - self.checked_step >= CHECK_STEPS or now > self.checked + 2
        if not self.stop and self.step % self.steps and due:
            self._check()
            now = self.checked = time.monotonic()
            self.checked_step = self.step
        if now > self.deadline:
            self.stop = True
        if self.stop or self.failed:
            self.model.stop_training = True  # ends `fit` after this step
        elif now - self.saved >= CHECKPOINT_SECONDS:
            self.model  # noqa: B018  on JAX, reading it brings the variables up to date
            self.save()
        done = self.step % self.steps
        self.step += end_of_call(done, self.steps, self.together) - done

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self.started
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs.update(learning_rate=rate, step=self.step)  # for the callbacks that come after this one
        if self.step % self.steps:  # stopped within the epoch
            self.seconds_before += seconds
            self.started += seconds  # or `save` would count them again
            return
        if not np.isfinite(logs["loss"]):
            self.failed = self.model.stop_training = True
            return
        row = {"epoch": epoch + 1, "loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])}
        self.history.append({**row, "learning_rate": rate, "seconds": round(self.seconds_before + seconds, 2)})
        self.alpha_beta.append(alpha_beta(self.training_model.network))
        self.seconds_before = 0.0
        self._line(row)
        if time.monotonic() > self.deadline:
            self.stop = True
        if self.stop:
            self.model.stop_training = True
        if time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self.save()

    def _check(self):
        """Waits for the device; sees a loss that is not finite, and prints a line now and then."""
        self.model  # noqa: B018  as above
        logs = self._logs()
        if not np.isfinite(logs["loss"]):
            self.failed = True
        elif time.monotonic() - self.printed >= LINE_SECONDS:
            self._line(logs)

    def _logs(self):
        return {metric.name: float(metric.result()) for metric in self.training_model.metrics}

    def _line(self, logs):
        if self.quiet:
            return
        steps, done = self.steps, self.step % self.steps or self.steps
        per_step = (time.monotonic() - self.started) / max(1, done - self.steps_before)
        left = per_step * (self.recipe.epochs * steps - self.step)
        rate = float(keras.ops.convert_to_numpy(self.training_model.optimizer.learning_rate))
        print(
            f"{self.recipe.name} epoch {(self.step - 1) // steps + 1}/{self.recipe.epochs}, step {done}/{steps}: loss "
            f"{logs['loss']:.4f}, accuracy {100 * logs['accuracy']:.2f} %, rate {rate:.4f}, "
            f"{self.recipe.batch_size / per_step:.0f} rows/s, {left / 60:.1f} min left",
            flush=True,
        )
        self.printed = time.monotonic()

    def save(self):
        """A checkpoint of this moment, if there is none; never of a state whose loss is not finite."""
        if self.step == self.saved_step or self.failed:
            return
        if not np.isfinite(self._logs()["loss"]):
            self.failed = True
            return
        state = self.training_model.state()
        arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in state.items()}
        begun = self.step % self.steps
        facts = {
            "history": self.history,
            "alpha_beta": self.alpha_beta,
            "machines": self.machines,
            "seconds": self.seconds_before + (time.monotonic() - self.started if begun else 0.0),
        }
        if not all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f"):
            self.failed = True  # a gradient that overflowed after a finite loss
            return
        checkpoints.save(self.folder, self.step, arrays, facts)
        self.saved, self.saved_step = time.monotonic(), self.step


def alpha_beta(network):
    """Mean alpha and beta of every MPELU layer, in order."""
    return [
        [float(keras.ops.convert_to_numpy(weight).mean()) for weight in (layer.alpha, layer.beta)]
        for layer in network.layers
        if isinstance(layer, MPELU)
    ]


def _restore(model, folder):
    """Loads the newest sound checkpoint: `(steps done, what else it holds)`."""
    state = model.state()
    found = checkpoints.load_newest(folder)
    if found is None:
        _separate_seeds(state)
        return 0, {}
    done, arrays, facts = found
    expected = {name: tuple(variable.shape) for name, variable in state.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected:
        strange = next(iter(dict(set(shapes.items()) ^ set(expected.items()))))
        raise ValueError(
            f"the checkpoint in {folder} is of another version of this network or optimizer: it differs at "
            f"{strange!r}; go on with the version that wrote it, or give another --out"
        )
    for name, variable in state.items():
        variable.assign(arrays[name])
    _separate_seeds(state)
    metrics = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables]
    return done, {**facts, "metrics": metrics}


def _separate_seeds(state):
    if keras.backend.backend() == "tensorflow":
        from training import mirrored_tensorflow

        if mirrored_tensorflow.is_distributed():
            mirrored_tensorflow.separate_seeds(state.values())


def _average(model, folder, batches):
    """The moving averages of the weights, in the order of the network's weights.

    Batch norm's moving statistics are those of other weights, the last ones; they are taken anew from training batches
    that the averaged weights see, for the same purpose as `torch.optim.swa_utils.update_bn`. They are kept: a finished
    run that is called again, perhaps on another machine, gives the same average to the bit.
    """
    if not model.optimizer.use_ema:
        return None
    kept = folder / "average.npz"
    if not kept.exists():
        arrays = {f"{place:05d}": value for place, value in enumerate(_with_own_statistics(model, batches))}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        checkpoints.write_atomically(kept, buffer.getvalue())
    with np.load(kept) as arrays:
        return [arrays[name] for name in sorted(arrays)]


def _with_own_statistics(model, batches):
    network, optimizer = model.network, model.optimizer
    last = network.get_weights()
    optimizer.write_average(model.trainable_variables)
    slowest = max(
        (layer.momentum for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)), default=0
    )
    if 0 < slowest < 1:
        steps = math.ceil(math.log(FORGOTTEN) / math.log(slowest))
        print(f"batch norm's statistics of the averaged weights: {steps} steps", flush=True)
        model.compile(optimizer=keras.optimizers.SGD(0.0))  # of a step only the statistics remain
        model.fit(batches(), steps_per_epoch=steps, shuffle=False, verbose=0)
        model.optimizer = optimizer
    average = network.get_weights()
    network.set_weights(last)
    return average


def _diagnosis(model, recipe, count, seed, steps, keeper):
    """Goes back to the last checkpoint and walks to the step whose loss is not finite."""
    step = keeper.saved_step
    _restore(model, keeper.folder)
    model.reset_metrics()
    before = None
    for (rows,) in row_batches(recipe, count, seed, steps, first_step=step):
        if step > keeper.step - 3 * CHECK_STEPS:  # the check before found it sound
            before = model.network.get_weights()
        step += 1
        loss = model.train_on_batch(rows, return_dict=True)["loss"]
        if not np.isfinite(loss) or step > keeper.step + CHECK_STEPS:
            break
    model.network.set_weights(before or model.network.get_weights())
    return (
        f"{recipe.name}: the loss was {float(loss)} at step {step}, {_first_bad_layer(model, rows)}; the checkpoint at "
        f"step {keeper.saved_step} is kept in {keeper.folder}; lower the learning rate ({recipe.learning_rate}) and "
        "give another --out"
    )


def _first_bad_layer(model, rows):
    layers = [layer for layer in model.network.layers if isinstance(layer.output, keras.KerasTensor)]
    for layer in layers:
        for weight in layer.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight).astype("float64")).all():
                return f"where the weight {weight.path} is not finite"
    probe = functional_model(model.network.inputs[0], [layer.output for layer in layers], "probe")
    x = keras.ops.cast(keras.ops.take(model.inputs_on_device, rows, axis=0), model.network.inputs[0].dtype)
    for layer, output in zip(layers, probe(x, training=True), strict=True):
        if not np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))).all():
            joined = getattr(layer, "normalization", lambda: None)()  # of a FusedMPELU, which then normalises too
            return f"first in the output of layer {layer.name}" + (f" or of {joined.name}" if joined else "")
    return "with finite outputs in every layer"


@contextlib.contextmanager
def only_run_in(folder):
    """Holds the folder for this process; the system lets go of it however the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process trains in {folder}; wait for it, or give another --out") from None
        yield


def check_devices(devices, batch_size):
    """The devices to use; an empty list is Keras's own choice of one.

    Raises:
        ValueError: the backend takes one only, there are not so many, or the
            batch has no equal parts.
    """
    if devices == 1:
        return []
    backend = keras.backend.backend()
    if backend == "jax":
        found = keras.distribution.list_devices()
    elif backend == "tensorflow":
        from training.mirrored_tensorflow import devices_here

        found = devices_here()
    else:
        raise ValueError(
            f"devices={devices}: more than one device needs JAX or TensorFlow; this is {backend}; set KERAS_BACKEND, "
            "or leave --devices out"
        )
    if not 1 <= devices <= len(found):
        raise ValueError(f"devices={devices}, but there are {len(found)} here: {', '.join(map(str, found))}")
    if batch_size % devices:
        raise ValueError(f"batch_size {batch_size} has no equal parts on {devices} devices; give a divisor of it")
    return found[:devices]


@contextlib.contextmanager
def distribution(devices):
    """Data parallelism over the devices, if any: `keras.distribution` on JAX, `tf.distribute` on TensorFlow.

    On JAX the result is that of one device but for the order of sums; on
    TensorFlow batch norm is per device (`training.mirrored_tensorflow`).
    """
    if not devices:
        yield
        return
    if keras.backend.backend() == "tensorflow":
        from training.mirrored_tensorflow import strategy

        with strategy(*devices).scope():
            yield
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _check_same_run(path, run):
    run = json.loads(json.dumps(run))
    if path.exists():
        stored = checkpoints.read_json(path)
        words = differences(stored["recipe"], run["recipe"])
        stored["recipe"] = decisive(stored["recipe"])
        if stored.get("versions") != run["versions"]:
            print(
                f"{path.parent} was begun with {stored.get('versions')}; with {run['versions']} the weights may differ "
                "from those of a run without a stop",
                flush=True,
            )
        # A run may move: a checkpoint is the same on every backend.
        stored.update({key: run[key] for key in ("backend", "versions")})
        if stored != run:
            different = sorted(key for key in run.keys() | stored.keys() if run.get(key) != stored.get(key))
            raise ValueError(
                f"{path.parent} holds another run (it differs in {', '.join(different)}{words and f': {words}'}); give "
                "another --out, or delete it to start anew"
            )
        return
    if any(path.parent.glob("step-*.json")):
        raise ValueError(
            f"{path.parent} holds checkpoints but no {path.name}, which says of what run they are; bring it too, or "
            "give another --out"
        )
    checkpoints.write_atomically(path, json.dumps(run, indent=1).encode())


deterministic = False  # whether `make_deterministic` was called; a run keeps to what it began with


def make_deterministic():
    """Asks the backend for operations that give the same sums every time; they are slower on a GPU.

    JAX takes it from the environment, before its first operation (`python -m
    training train --deterministic` sets it).
    """
    global deterministic
    deterministic = True
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses without it
        torch.use_deterministic_algorithms(True)
