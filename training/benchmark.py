"""Measurements behind the figures in results/; each writes one CSV."""

import csv
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import shutil
import statistics
import tempfile
import time

import keras
import numpy as np

from training import ceilings
from training import learned
from training import loop
from training import modern
from training import plain_depth
from training import robustness as robust
from training import signal as signals
from training import speed
from training.machine import hardware
from training.minutes import Clock
from training.optimizer import CoupledSGD
from training.recipes import TABULAR
from training.recipes import get_recipe
from training.tabular import choices
from training.tabular import validation_accuracy
from zoo.datasets import load_dataset
from zoo.demo import digits_as_images
from zoo.deploy import deploy
from zoo.folders import find_folder
from zoo.hub import SUMS
from zoo.inference import predict
from zoo.pretrained import load_model
from zoo.registry import create_model

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def tabular(out):
    """Validation accuracy of each setting of the tabular recipes; the recipes hold the best ones."""
    jobs = []
    for depth, name in TABULAR:
        dataset = load_dataset(name)
        for recipe in choices(get_recipe(f"snn_mlp{depth}.{name}")):
            key = {
                "name": recipe.name,
                **recipe.overrides,
                "learning_rate": recipe.learning_rate,
                "epochs": recipe.epochs,
            }
            measure = functools.partial(validation_accuracy, recipe, dataset)
            jobs.append((key, lambda measure=measure: {"validation_accuracy": round(measure(), 4)}))
    return _write(pathlib.Path(out) / "tabular_choices.csv", jobs)


def finetuning(out, name="mpelu_resnet20.cifar100", seeds=(0, 1, 2), per_class=10, epochs=30):
    """Fine-tuning against training from scratch, on digits rendered to 32 x 32.

    Ten images a class to train, ten a class to choose each arm's learning rate
    (of the same five), the data set's own test rows for the result, read once
    per seed and arm with the chosen rate.
    """
    jobs = [
        (
            {"model": name, "arm": arm, "seed": seed, "images": 10 * per_class, "epochs": epochs},
            functools.partial(_finetuning_arm, name, arm, seed, per_class, epochs),
        )
        for seed in seeds
        for arm in ("pretrained", "scratch")
    ]
    return _write(pathlib.Path(out) / "finetuning.csv", jobs)


def _finetuning_arm(name, arm, seed, per_class, epochs):
    dataset = load_dataset("digits")
    images, labels = digits_as_images(dataset.x_train), dataset.y_train
    order = np.random.default_rng(seed).permutation(len(images))
    by_class = [order[labels[order] == label] for label in range(10)]
    train = np.concatenate([rows[:per_class] for rows in by_class])
    held = np.concatenate([rows[per_class : 2 * per_class] for rows in by_class])
    keras.utils.set_random_seed(seed)
    if arm == "pretrained":
        model = load_model(name, num_classes=10)
    else:
        model = create_model(name.partition(".")[0], num_classes=10)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    start = model.get_weights()
    fresh = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
    found = []
    for rate in RATES:  # compiled once; every rate starts from the same weights and an optimizer without memory
        model.set_weights(start)
        for variable, value in zip(optimizer.variables, fresh, strict=True):
            variable.assign(value)
        optimizer.learning_rate = rate
        keras.utils.set_random_seed(seed)
        model.fit(images[train], labels[train], batch_size=20, epochs=epochs, verbose=0)
        found.append((_accuracy(model, images[held], labels[held]), rate, model.get_weights()))
    accuracy, rate, weights = max(found, key=lambda row: row[0])  # the smallest rate of equals
    model.set_weights(weights)
    return {
        "validation_accuracy": " ".join(f"{row[0]:.2f}" for row in found),
        "chosen_rate": rate,
        "test_accuracy": round(_accuracy(model, digits_as_images(dataset.x_test), dataset.y_test), 4),
        "test_rows": len(dataset.x_test),
    }


def _accuracy(model, images, labels):
    return float((predict(model, images).argmax(axis=1) == labels).mean())


def throughput(out, archs=("relu_resnet20", "mpelu_resnet20"), repeats=3, rows=6400):
    """Rows per second of our loop against `model.fit` of the same stock layers on arrays.

    Same network, batch, precision and optimizer; each pair one after the other
    in the same process. `plain fit` has no augmentation, checkpoint or history.
    `host share` is the part of the time that our loop spends outside of the
    step. Targets: not augmented / plain 0.97 or more, host share below 0.05.
    """
    jobs = [
        (
            {"arch": arch, "backend": keras.backend.backend(), "dtype": dtype, "repeat": repeat, "rows": rows},
            functools.partial(_throughput_pair, arch, dtype, rows),
        )
        for repeat in range(repeats)  # outermost: what was stopped early has some of everything
        for dtype in ("float32", "mixed_bfloat16")
        for arch in archs
    ]
    return _write(pathlib.Path(out) / "throughput.csv", jobs)


def _throughput_pair(arch, dtype, count):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (count, 32, 32, 3), "uint8"), rng.integers(0, 100, count)
    enough = HostClock.WARM + 2 * HostClock.TIMED + 2  # epochs, should each be a single call
    recipe = dataclasses.replace(get_recipe(f"{arch}.cifar100"), dtype=dtype, epochs=enough)
    plain = loop.build(recipe, 100, dtype, classifier_activation=None)
    optimizer = CoupledSGD(0.1, l2=recipe.l2, multipliers=recipe.multipliers)
    plain.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    clocks = {arm: HostClock() for arm in ("plain fit", "ours", "ours, not augmented")}
    fit = functools.partial(plain.fit, batch_size=recipe.batch_size, epochs=9, verbose=0)
    fit(x.astype("float32"), y, callbacks=[clocks["plain fit"]])
    for arm, augmentation in (("ours", recipe.augmentation), ("ours, not augmented", "none")):
        ours = dataclasses.replace(recipe, augmentation=augmentation)
        with tempfile.TemporaryDirectory() as folder:
            try:
                loop.fit(ours, x, y, 100, folder, quiet=True, callbacks=[clocks[arm]])
            except loop.Interrupted:
                if clocks[arm].host_share is None:  # not by the clock
                    raise
    rates = {arm: recipe.batch_size / clock.seconds_per_step for arm, clock in clocks.items()}
    return {
        **{f"{arm}, rows/s": round(rate, 1) for arm, rate in rates.items()},
        "ours / plain": round(rates["ours"] / rates["plain fit"], 3),
        "not augmented / plain": round(rates["ours, not augmented"] / rates["plain fit"], 3),
        **{f"host share, {arm}": round(clock.host_share, 4) for arm, clock in clocks.items()},
        "hardware": hardware(),
        "load_average": round(os.getloadavg()[0], 1),
    }


class HostClock(Clock):
    """Also takes the share of some further steps, each waited for, that `fit` spends outside of the step function."""

    host_share = None

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)
        if self.step == self.WARM + self.TIMED + 1:
            self.model.stop_training = False
            self.step_function, self.inside, self.begun = self.model.train_function, 0.0, time.perf_counter()
            self.model.train_function = self.timed_step
        elif self.step == self.WARM + 2 * self.TIMED + 1:
            self.host_share = 1 - self.inside / (time.perf_counter() - self.begun)
            self.model.train_function = self.step_function
            self.model.stop_training = True

    def timed_step(self, *arguments):
        started = time.perf_counter()
        outputs = self.step_function(*arguments)
        speed.wait_for_device(outputs)
        self.inside += time.perf_counter() - started
        return outputs


def loading(out, name="mpelu_resnet20.cifar100", repeats=7):
    """Seconds to a usable model: zoo.load_model, plain Keras, and pytorchcv with a checkpoint of about the size.

    The libraries are imported before. The ways take turns, so that another load
    on the machine falls on all of them; the first turn is given apart, as it
    holds what a backend compiles.
    """
    key = {"model": name, "backend": keras.backend.backend()}
    return _write(pathlib.Path(out) / "loading.csv", [(key, lambda: _loading(name, repeats))])


def _loading(name, repeats):
    folder, _ = find_folder(name)
    with tempfile.TemporaryDirectory() as scratch:
        unpinned = pathlib.Path(shutil.copytree(folder, pathlib.Path(scratch) / name))
        (unpinned / SUMS).unlink()
        ways = {
            "zoo.load_model of the bundled folder": (lambda: load_model(name), folder / "model.weights.h5"),
            "zoo.load_model of the folder without sums": (lambda: load_model(unpinned), folder / "model.weights.h5"),
            "keras.saving.load_model of the folder": (
                lambda: keras.saving.load_model(folder),
                folder / "model.weights.h5",
            ),
            "pytorchcv resnet20_cifar100 and torch.load": _pytorchcv(pathlib.Path(scratch) / "resnet20.pth"),
        }
        times = {way: [] for way in ways}
        for _ in range(repeats + 1):
            for way, (load, _) in ways.items():
                start = time.perf_counter()
                load()
                times[way].append(time.perf_counter() - start)
        return [
            {
                "way": way,
                "bytes_of_weights": weights.stat().st_size,
                "first": round(times[way][0], 3),
                "median": round(statistics.median(times[way][1:]), 3),
                "fastest": round(min(times[way][1:]), 3),
                "repeats": repeats,
                "hardware": hardware(),
                "load_average": round(os.getloadavg()[0], 1),
            }
            for way, (_, weights) in ways.items()
        ]


def _pytorchcv(path):
    """A function that builds pytorchcv's network of the size and loads a checkpoint of it, and that checkpoint."""
    import torch
    from pytorchcv.models.resnet_cifar import resnet20_cifar100  # not get_model: that imports every network it has

    def load():
        model = resnet20_cifar100()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    torch.save(resnet20_cifar100().state_dict(), path)
    return load, path


# Our networks, and those of pytorchcv that they are measured against: of its name, or of its depth and units.
INFERENCE = {
    "relu_resnet20": "resnet20_cifar100",
    "mpelu_resnet20": "resnet20_cifar100",
    "relu_resnet110": "resnet110_cifar100",
    "mpelu_resnet110": "resnet110_cifar100",
    "relu_preact_resnet164": "resnet164bn_cifar100",
    "mpelu_preact_resnet164": "resnet164bn_cifar100",
    "mpelu_nopre_resnet164": "resnet164bn_cifar100",
}


def inference(out, archs=tuple(INFERENCE), batches=(64, 1), turns=30):
    """Images per second of deployed and undeployed networks, and of pytorchcv's in PyTorch, channels last.

    All ways take turns in one process, so that another load on the machine
    falls on all of them. What is timed is the compiled step (on TensorFlow, of
    its own kernels and of XLA), on a batch that lies in memory, until the
    outputs are there. All end in logits; ours standardise the images too.
    `fastest` compares the fastest turns, where another load on the machine has
    the least part: PyTorch's threads wait for one another at every operation, so
    that its median suffers most from it. Targets: 1.0 of pytorchcv's, 1.5 of
    ours undeployed, compiled in the better way.
    """
    jobs = [
        (
            {"arch": arch, "batch": batch, "backend": keras.backend.backend()},
            functools.partial(_inference, arch, batch, turns),
        )
        for arch in archs
        for batch in batches
    ]
    return _write(pathlib.Path(out) / "inference.csv", jobs)


def _inference(arch, batch, turns):
    import torch
    from pytorchcv.models import resnet_cifar

    images = np.random.default_rng(0).uniform(0, 255, (batch, 32, 32, 3)).astype("float32")
    peer = getattr(resnet_cifar, INFERENCE[arch])().eval().to(memory_format=torch.channels_last)
    peer_images = torch.from_numpy(images).permute(0, 3, 1, 2)  # so it is channels last in memory

    def run_peer():
        with torch.inference_mode():
            peer(peer_images)

    model = create_model(arch, classifier_activation=None)
    deployed = deploy(model)
    ways = {"pytorchcv": run_peer}
    outputs = {}
    for way in COMPILED[keras.backend.backend()]:
        for kind, net in (("undeployed", model), ("deployed", deployed)):
            ways[kind, way] = run = compiled_step(net, images, way)
            outputs[kind, way] = keras.ops.convert_to_numpy(run())
    seconds = {way: [] for way in ways}
    calls = max(1, 16 // batch)
    for _ in range(turns):
        for way, run in ways.items():
            run()  # the threads of the way before may still wait for work
            start = time.perf_counter()
            for _ in range(calls):
                run()
            seconds[way].append((time.perf_counter() - start) / calls)
    peer_seconds = seconds.pop("pytorchcv")
    undeployed = {way: times for (kind, way), times in seconds.items() if kind == "undeployed"}
    rows = []
    for (kind, way), times in seconds.items():
        difference = np.abs(outputs[kind, way] - outputs["undeployed", way])
        row = {
            "kind": kind,
            "compiled": way,
            "peer": INFERENCE[arch],
        }
        for word, of in (("median", statistics.median), ("fastest", min)):
            row[f"images/s, {word}"] = round(batch / of(times), 1)
            row[f"peer images/s, {word}"] = round(batch / of(peer_seconds), 1)
            row[f"{word} / pytorchcv"] = round(of(peer_seconds) / of(times), 2)
            row[f"{word} / best undeployed"] = round(min(map(of, undeployed.values())) / of(times), 2)
        rows.append(
            {
                **row,
                "largest difference": f"{difference.max() / np.abs(outputs['undeployed', way]).max():.0e}",
                "turns": turns,
                "hardware": hardware(),
                "load_average": round(os.getloadavg()[0], 1),
                "versions": _versions("torch", "pytorchcv", keras.backend.backend()),
            }
        )
    return rows


def training_speed(out, archs=tuple(INFERENCE), batch=128, turns=10):
    """Training images per second of our step and of pytorchcv's networks in PyTorch, channels last, in turns.

    Both in float32 and in bfloat16 with float32 weights (PyTorch's autocast),
    SGD with Nesterov momentum and coupled L2, on a batch that lies in memory,
    not augmented. Ours also takes the rows by their numbers, standardises the
    images and counts the hits. PyTorch's is on the processor: so should ours
    be. Target: 0.9 of pytorchcv's, of the same precision.
    """
    jobs = [
        (
            {"arch": arch, "batch": batch, "backend": keras.backend.backend()},
            functools.partial(_training, arch, batch, turns),
        )
        for arch in archs
    ]
    return _write(pathlib.Path(out) / "training_speed.csv", jobs)


def _training(arch, batch, turns):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (batch, 32, 32, 3), "uint8"), rng.integers(0, 100, batch)
    ways = {}
    for dtype in ("float32", "mixed_bfloat16"):
        ways["ours", dtype] = _our_step(arch, dtype, x, y)
        ways["pytorchcv", dtype] = _peer_step(INFERENCE[arch], dtype, x, y)
    times = {way: statistics.median(seconds) for way, seconds in speed.in_turns(ways, turns).items()}
    return [
        {
            "dtype": dtype,
            "peer": INFERENCE[arch],
            "images/s": round(batch / times["ours", dtype], 1),
            "peer images/s": round(batch / times["pytorchcv", dtype], 1),
            "ours / pytorchcv": round(times["pytorchcv", dtype] / times["ours", dtype], 2),
            **speed.conditions(turns),
            "versions": _versions("torch", "pytorchcv", keras.backend.backend()),
        }
        for dtype in ("float32", "mixed_bfloat16")
    ]


def _our_step(arch, dtype, x, y):
    recipe = dataclasses.replace(get_recipe(f"{arch}.cifar100"), dtype=dtype, augmentation="none", batch_size=len(x))
    arguments = {"classifier_activation": None}
    plain = loop.build(recipe, 100, **arguments)
    model = loop.prepare(recipe, plain, x, y, 100, 0, len(x), arguments)
    return functools.partial(model.train_on_batch, np.arange(len(x), dtype="int32"), return_dict=True)


def _peer_step(name, dtype, x, y):
    import torch
    from pytorchcv.models import resnet_cifar

    model = getattr(resnet_cifar, name)().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    images = torch.from_numpy(x / np.float32(255)).permute(0, 3, 1, 2)  # so it is channels last in memory
    labels = torch.from_numpy(y)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != "float32"):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _versions(*packages):
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in dict.fromkeys(packages))


COMPILED = {"tensorflow": ("graph", "XLA"), "jax": ("XLA",), "torch": ("eager",)}


def compiled_step(model, images, way):
    """A function that computes the outputs for a batch, as `COMPILED` says, and waits for them."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        step = tf.function(lambda x: model(x, training=False), jit_compile=way == "XLA")
        given = tf.constant(images)
        return lambda: step(given).numpy()
    if backend == "jax":
        import jax

        step = jax.jit(lambda trained, others, x: model.stateless_call(trained, others, x, training=False)[0])
        weights = [
            [weight.value for weight in part] for part in (model.trainable_variables, model.non_trainable_variables)
        ]
        given = jax.numpy.asarray(images)
        return lambda: jax.block_until_ready(step(*weights, given))
    import torch

    given = torch.from_numpy(images)

    def step():
        with torch.inference_mode():
            return model(given, training=False)

    return step


def signal(out, nets=signals.NETS):
    """Second moments of signals and gradients through deep networks, and the picture of them."""
    return _write(pathlib.Path(out) / "signal.csv", list(signals.jobs(nets)), signals.draw)


def robustness(out):
    """Training loss of self-normalizing networks and of batch norm by depth, and the picture of them."""
    return _write(pathlib.Path(out) / "robustness.csv", list(robust.jobs()), robust.draw)


def plain(out):
    """Training loss of plain networks of 15 to 52 layers by activation and initialisation, and the picture of it."""
    return _write(pathlib.Path(out) / "plain.csv", list(plain_depth.jobs()), plain_depth.draw)


def parts_of_modern(out):
    """Held-out accuracy of each part of the modern recipe; a variant that was interrupted goes on from its checkpoint.

    Runs are kept in `runs/modern`. What came of it for the recipes is said there (`training.recipes`).
    """
    return _write(pathlib.Path(out) / "modern_choices.csv", list(modern.jobs()))


def alpha_beta(out):
    """Alpha and beta of the trained networks by depth, and the picture of them."""
    return _write(pathlib.Path(out) / "learned.csv", list(learned.jobs()), learned.draw)


def activation(out):
    """Milliseconds of MPELU, forward and backward, against Keras's PReLU in turns.

    Targets: 1.3 times PReLU, on JAX 2 times.
    """
    return _write(_of_backend(out, "activation"), list(speed.activation_jobs()))


def startup(out):
    """Seconds to the first sign of life of the zoo's commands, against a bare Keras model's first prediction."""
    return _write(_of_backend(out, "startup"), list(speed.startup_jobs()))


def deep(out):
    """Seconds and memory of nopre-1001: built, loaded, first prediction, first and further training steps."""
    return _write(_of_backend(out, "deep"), list(speed.deep_jobs()))


def scaling(out):
    """Seconds and memory of a training step against depth and batch, and the picture of them."""
    return _write(_of_backend(out, "scaling"), list(speed.scaling_jobs()), speed.draw_scaling)


def memory(out):
    """Memory and seconds of a training step of ResNet-164 (Fig. 4c, 4d) with ReLU, PReLU and MPELU.

    Targets: at most 1.3 times the memory with ReLU, and that with PReLU.
    """
    return _write(_of_backend(out, "memory"), list(speed.memory_jobs()))


def machine(out):
    """Activations and training steps beside this machine's measured bandwidth and operations."""
    return _write(_of_backend(out, "ceilings"), list(ceilings.jobs()))


def _of_backend(out, name):
    return pathlib.Path(out) / f"{name}_{keras.backend.backend()}.csv"


def _write(path, jobs, draw=None):
    """Runs the jobs, each a key and a function, and writes a row (or a list of them) as each ends.

    A job of which the file has a row is not run again. `draw` makes the picture of the file at the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    conditions = {"backend": keras.backend.backend(), "keras": keras.__version__}
    done = []
    if path.exists():
        with open(path, newline="") as file:
            done = list(csv.DictReader(file))
    another = f"{path} has other columns than are measured now; move it away and measure anew"
    for number, (key, measure) in enumerate(jobs, start=1):
        if done and not {*key, *conditions} <= set(done[0]):  # seen before it is measured, which can take long
            raise ValueError(another)
        if any(all(row[name] == str(value) for name, value in key.items()) for row in done):
            continue
        measured = measure()
        rows = [{**key, **row, **conditions} for row in (measured if isinstance(measured, list) else [measured])]
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            elif done and list(done[0]) != list(rows[0]):
                raise ValueError(f"{another}; this was measured now: {rows}")
            writer.writerows(rows)
        done = done or rows
        print(f"{number} of {len(jobs)}: {rows[-1]}", flush=True)
    if draw:
        print(draw(path))
    return path


BENCHMARKS = {
    "tabular": tabular,
    "finetuning": finetuning,
    "throughput": throughput,
    "loading": loading,
    "inference": inference,
    "training": training_speed,
    "signal": signal,
    "robustness": robustness,
    "plain": plain,
    "modern": parts_of_modern,
    "learned": alpha_beta,
    "activation": activation,
    "startup": startup,
    "deep": deep,
    "scaling": scaling,
    "memory": memory,
    "ceilings": machine,
}
