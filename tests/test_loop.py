"""The training loop: it learns, resumes exactly from any step, and refuses what it cannot do."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from training import Recipe
from training import get_recipe
from training import loop
from training import minutes
from training import queue
from training import run
from training.__main__ import main as training_command
from training.curves import curves_png
from training.minutes import Clock
from training.queue import read_queue
from training.standardisation import image_statistics
from zoo.folders import write_sums
from zoo.pretrained import load_folder

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROOT = pathlib.Path(__file__).parent.parent
TINY = Recipe(
    name="snn_mlp2.digits",
    epochs=4,
    batch_size=16,
    learning_rate=0.02,
    warmup_epochs=1,
    l2=1e-4,
    average=0.9,
    overrides={"width": 16, "dropout": 0.1, "num_features": 5},
)
# Everything that draws random numbers, on a network with batch norm and MPELU.
IMAGES = dataclasses.replace(
    get_recipe("mpelu_nopre_resnet164.cifar100-modern"),
    name="mpelu_resnet20.cifar100",
    epochs=2,
    batch_size=8,
    warmup_epochs=0,
    overrides={"depth": 8, "stochastic_depth": 0.1},
)


def rows(count=100, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("int64")


def images(count=48):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), "uint8"), rng.integers(0, 10, count)


def weights(fitted):
    return [np.asarray(value) for value in (*fitted.model.get_weights(), *(fitted.average or ()))]


def assert_same_run(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    figures = [[{**row, "seconds": 0} for row in run.history] for run in (one, other)]
    assert figures[0] == figures[1]
    np.testing.assert_array_equal(one.alpha_beta, other.alpha_beta)


class StopAt(keras.callbacks.Callback):
    """Does as Ctrl-C does, so that the run stops after so many steps of this process.

    It is called after the keeper, which stops before the next step; that one is still made.
    """

    def __init__(self, step, number=signal.SIGINT):
        super().__init__()
        self.left, self.number = step - 1, number

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def test_it_learns_and_keeps_a_history(tmp_path):
    recipe = dataclasses.replace(TINY, epochs=20, learning_rate=0.1)
    model, history, average, alpha_beta, *_ = loop.fit(recipe, *rows(400), 2, tmp_path)
    assert [row["epoch"] for row in history] == list(range(1, 21))
    assert history[-1]["accuracy"] > 0.9 > history[0]["accuracy"]
    assert history[-1]["learning_rate"] < 1e-6
    held_x, held_y = rows(500, seed=1)
    assert (np.asarray(model.predict_on_batch(held_x)).argmax(1) == held_y).mean() > 0.9
    model.set_weights(average)
    assert (np.asarray(model.predict_on_batch(held_x)).argmax(1) == held_y).mean() > 0.9
    assert alpha_beta.size == 0  # SELU has none


def test_cosine_schedule_with_warm_up():
    recipe = dataclasses.replace(TINY, epochs=10, warmup_epochs=2, learning_rate=0.4)
    schedule = loop.learning_rate_schedule(recipe, steps=5)
    found = [float(schedule(step)) for step in (0, 5, 10, 30, 50)]
    np.testing.assert_allclose(found, [0, 0.2, 0.4, 0.4 * (1 + np.cos(np.pi / 2)) / 2, 0], atol=1e-6)


@pytest.mark.parametrize(
    "tag, first_steps",  # the first step with each rate, in epochs: mpelu.md d
    [
        ("paper", {0: 0.1, 80: 0.01, 121: 0.001}),
        ("warmup", {0: 0.01, 1: 0.1, 80: 0.01, 121: 0.001}),
        ("dagger", {0: 0.1, 149: 0.01, 224: 0.001}),
    ],
)
def test_the_papers_schedules(tag, first_steps):
    recipe = get_recipe(f"mpelu_resnet20.cifar100-{tag}")
    schedule = loop.learning_rate_schedule(recipe, steps=10)
    before = None
    for epoch, rate in first_steps.items():
        assert float(schedule(10 * epoch)) == pytest.approx(rate)
        if before is not None:
            assert float(schedule(10 * epoch - 1)) == pytest.approx(before)
        before = rate
    assert float(schedule(10 * recipe.epochs)) == pytest.approx(before)


def test_images_of_ones_own_are_standardised_by_their_own_statistics():
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), "uint8")
    x[..., 2] = 9
    found = image_statistics(x)
    np.testing.assert_allclose(found["mean"], x.mean((0, 1, 2), dtype="float64"), rtol=1e-12)
    np.testing.assert_allclose(found["std"][:2], x.std((0, 1, 2), dtype="float64")[:2], rtol=1e-12)
    assert found["std"][2] == 1  # constant


def test_each_recipe_standardises_by_the_statistics_of_its_data():
    for dataset, mean in (("cifar10", 125.3), ("cifar100", 129.304)):
        recipe = get_recipe(f"elu_resnet20.{dataset}")
        model = loop.build(dataclasses.replace(recipe, overrides={**recipe.overrides, "depth": 8}), 10)
        assert np.ravel(keras.ops.convert_to_numpy(model.get_layer("preprocess").mean))[0] == pytest.approx(mean)


def test_a_rescaled_recipe_moves_its_rates_and_says_so():
    recipe = get_recipe("mpelu_resnet20.cifar100-paper").rescaled(50)
    assert recipe.epochs == 50 and recipe.rates == ((20.0, 0.01), (30.25, 0.001))
    assert get_recipe("mpelu_resnet20.cifar100").rescaled(25).warmup_epochs == 0.5
    assert recipe.notes.startswith("Rescaled from 200 to 50 epochs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run of TINY."""
    return loop.fit(TINY, *rows(), 2, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step, number", [(2, signal.SIGINT), (6, signal.SIGINT), (15, signal.SIGTERM)])
def test_a_stopped_run_ends_like_an_uninterrupted_one(tmp_path, capsys, whole, step, number):
    """Six steps are an epoch: at its end, and within it."""
    with pytest.raises(loop.Interrupted, match=f"stopped at step {step} of 24"):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(step, number)])
    capsys.readouterr()
    parts = loop.fit(TINY, *rows(), 2, tmp_path)
    assert f"resumed at step {step} of 24" in capsys.readouterr().out
    assert_same_run(whole, parts)


def test_images_resume_exactly_with_augmentation_batch_norm_mpelu_and_bfloat16(tmp_path):
    whole = loop.fit(IMAGES, *images(), 10, tmp_path / "whole")
    with pytest.raises(loop.Interrupted):
        loop.fit(IMAGES, *images(), 10, tmp_path / "parts", callbacks=[StopAt(4)])
    parts = loop.fit(IMAGES, *images(), 10, tmp_path / "parts")
    assert_same_run(whole, parts)
    assert whole.alpha_beta.shape == (2, 7, 2)  # the stem and two in each of three units
    assert abs(whole.alpha_beta[-1] - 1).max() > 1e-4


def test_the_time_is_kept(tmp_path):
    with pytest.raises(loop.Interrupted, match="stopped at step 1 of 24"):
        loop.fit(TINY, *rows(), 2, tmp_path, stop_after=1e-9)


class StopWithin(keras.callbacks.Callback):
    """A user's own callback that ends the training within the first epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 3:
            time.sleep(0.3)
            self.model.stop_training = True


def test_the_seconds_of_an_epoch_that_a_callback_ends_count_once(tmp_path):
    stop = StopWithin()
    with pytest.raises(loop.Interrupted, match="stopped at step 4 of 24"):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[stop])
    assert 0.3 < loop.checkpoints.load_newest(tmp_path)[2]["seconds"] < time.monotonic() - stop.began


LONG = dataclasses.replace(TINY, epochs=100)


def start_process(folder):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from test_loop import *; loop.CHECKPOINT_SECONDS = 0; "
        "log = open(sys.argv[1] + '-steps', 'a', buffering=1); "
        "count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: print(batch, file=log)); "
        "loop.fit(LONG, *rows(), 2, sys.argv[1], callbacks=[count])"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def newest_step(folder):
    return max((int(path.stem[5:]) for path in folder.glob("step-*.json")), default=0)


def cut_short(folder):
    """Damages the newest checkpoint; the step of the one before it, which is to serve."""
    newest, before = sorted(folder.glob("step-*.json"))[-1:-3:-1]
    part = folder / f"{newest.stem}.00.npz"
    part.write_bytes(part.read_bytes()[:-100])
    return int(before.stem[5:])


def wait_for_step(folder, step, process):
    while newest_step(folder) < step:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)


def killed_runs_end_alike(tmp_path, kills):
    """Kills a real process at random steps, as often as asked; then lets the run end here.

    Every fifth time, and the last, the newest checkpoint is cut short as well.
    """
    folder, rng, steps = tmp_path / "killed", random.Random(0), 6 * LONG.epochs
    reached, damaged = 0, 0
    for kill in range(1, kills + 1):
        process = start_process(folder)
        target = reached + rng.randint(1, steps // (kills + 1) - 20)
        wait_for_step(folder, target, process)
        process.kill()
        printed = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL
        if kill > 1:
            assert reached > 0 and f"resumed at step {reached} of {steps}" in printed
        assert target <= newest_step(folder) < steps
        cut = kill % 5 == 0 or kill == kills
        reached = cut_short(folder) if cut else newest_step(folder)
        damaged += cut
        print(f"kill {kill}: goes on at step {reached}{', the newest checkpoint cut short' if cut else ''}", flush=True)
    done = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: done.append(batch))
    killed = loop.fit(LONG, *rows(), 2, folder, quiet=True, callbacks=[count])
    assert len(done) == steps - reached, "it did not go on from where it was"
    executed = len(done) + len((tmp_path / "killed-steps").read_text().split())
    print(f"{executed} steps executed for {steps}, {kills} kills, {damaged} damaged checkpoints")
    assert steps <= executed <= steps + 2 * (kills + damaged), "a kill costs the steps since the last checkpoint"
    assert len(list(folder.glob("damaged-step-*.json"))) == damaged
    assert_same_run(loop.fit(LONG, *rows(), 2, tmp_path / "whole", quiet=True), killed)


def test_killed_runs_end_like_an_uninterrupted_one(tmp_path):
    killed_runs_end_alike(tmp_path, kills=2)


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    killed_runs_end_alike(tmp_path, kills=20)


def test_a_run_goes_on_with_another_backend_on_another_machine(tmp_path, capsys, whole, monkeypatch):
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(8)])
    run = json.loads((tmp_path / "run.json").read_text())
    begun = {"backend": "mxnet", "versions": {"keras": "3.15", "mxnet": "1.9"}}
    (tmp_path / "run.json").write_text(json.dumps({**run, **begun}))
    capsys.readouterr()
    monkeypatch.setattr(loop, "hardware", lambda: "another machine")
    fitted = loop.fit(TINY, *rows(), 2, tmp_path)
    printed = capsys.readouterr().out
    assert f"was begun with {begun['versions']}; with {run['versions']} the weights may differ" in printed
    assert "resumed at step 8 of 24" in printed
    assert_same_run(whole, fitted)
    assert fitted.machines == [*whole.machines, ["another machine", whole.machines[0][1]]]
    assert loop.fit(TINY, *rows(), 2, tmp_path).machines == fitted.machines  # it has ended: nothing is added


OTHER = """
import dataclasses, sys
sys.path.insert(0, {tests!r})
from test_loop import *
with contextlib.suppress(loop.Interrupted):
    loop.fit({recipe}, *{data}(), {classes}, {folder!r}, callbacks=[StopAt(8)])
np.savez({folder!r} + "/whole.npz", *weights(loop.fit({recipe}, *{data}(), {classes}, {folder!r} + "/whole")))
"""
PLAIN = dataclasses.replace(TINY, overrides={**TINY.overrides, "dropout": 0.0})  # draws no random numbers in training
PLAIN_IMAGES = dataclasses.replace(
    IMAGES, augmentation="none", erase=0, mixup=0, cutmix=0, dtype="float32", learning_rate=1e-3, overrides={"depth": 8}
)


@pytest.mark.parametrize(
    "recipe, data, classes",
    [("PLAIN", "rows", 2), pytest.param("PLAIN_IMAGES", "images", 10, marks=pytest.mark.slow)],
)
def test_a_checkpoint_of_another_backend_is_gone_on_with(tmp_path, recipe, data, classes):
    here = keras.backend.backend()
    others = [name for name in ("jax", "tensorflow", "torch") if name != here and importlib.util.find_spec(name)]
    if not others:
        pytest.skip("no other backend is installed")
    program = OTHER.format(tests=str(ROOT / "tests"), recipe=recipe, data=data, classes=classes, folder=str(tmp_path))
    environment = {**os.environ, "KERAS_BACKEND": others[0]}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=ROOT)
    assert loop.checkpoints.load_newest(tmp_path)[0] == 8
    fitted = loop.fit(globals()[recipe], *globals()[data](), classes, tmp_path)
    with np.load(tmp_path / "whole.npz") as whole:
        for one, other in zip(whole.values(), weights(fitted), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert [name.split()[0] for _, name in fitted.machines] == [others[0], here]


@contextlib.contextmanager
def steps_joined(monkeypatch, most):
    from training import scanned_jax

    with monkeypatch.context() as patch:
        patch.setattr(scanned_jax, "is_useful", lambda: True)
        patch.setattr(scanned_jax, "MOST", most)
        yield


only_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="jax.lax.scan")


@only_jax
@pytest.mark.parametrize("most, calls_of_epoch", [(50, 1), (4, 2)])  # of 6 steps: 6; 4 and 2
@pytest.mark.parametrize(
    "recipe, data, classes", [(TINY, rows, 2), pytest.param(IMAGES, images, 10, marks=pytest.mark.slow)]
)
def test_steps_in_one_call_are_those_of_single_calls(
    tmp_path, monkeypatch, recipe, data, classes, most, calls_of_epoch
):
    recipe = dataclasses.replace(recipe, dtype="float32", learning_rate=1e-3)
    whole = loop.fit(recipe, *data(), classes, tmp_path / "whole")
    with pytest.raises(loop.Interrupted):  # in the midst of the first epoch of 6 steps
        loop.fit(recipe, *data(), classes, tmp_path / "joined", callbacks=[StopAt(2)])
    calls = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: calls.append(batch))
    with steps_joined(monkeypatch, most):
        with pytest.raises(loop.Interrupted):
            loop.fit(recipe, *data(), classes, tmp_path / "joined", callbacks=[count, StopAt(2)])
        assert len(calls) == calls_of_epoch
        assert loop.checkpoints.load_newest(tmp_path / "joined")[0] == 6
        with pytest.raises(loop.Interrupted):  # after the second call: whole epochs, or the first two thirds of one
            loop.fit(recipe, *data(), classes, tmp_path / "joined", callbacks=[StopAt(2 if most == 50 else 3)])
        joined = loop.fit(recipe, *data(), classes, tmp_path / "joined", callbacks=[count])
    for one, other in zip(weights(whole), weights(joined), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)
    for one, other in zip(whole.history, joined.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4) and one["epoch"] == other["epoch"]
        assert one["learning_rate"] == pytest.approx(other["learning_rate"])


@only_jax
def test_steps_are_joined_in_bfloat16_and_timed_one_by_one(tmp_path, monkeypatch):
    recipe = dataclasses.replace(TINY, dtype="mixed_bfloat16", epochs=10)
    with steps_joined(monkeypatch, 50):
        history = loop.fit(recipe, *rows(), 2, tmp_path / "run").history
        assert history[-1]["loss"] < history[0]["loss"]
        clock, calls = Clock(), []
        watch = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: calls.append(time.monotonic()))
        with pytest.raises(loop.Interrupted):
            recipe = dataclasses.replace(TINY, epochs=80)
            loop.fit(recipe, *rows(), 2, tmp_path / "timed", quiet=True, callbacks=[clock, watch])
    seconds = calls[Clock.WARM + Clock.TIMED] - calls[Clock.WARM]
    assert clock.seconds_per_step == pytest.approx(seconds / (6 * Clock.TIMED), rel=0.2)


@only_jax
@pytest.mark.parametrize("steps, together", [(390, 39), (500, 50), (781, 11), (89, 50), (6, 6), (1, 1)])
def test_an_epoch_is_cut_into_equal_calls_where_it_has_divisors(steps, together):
    from training.scanned_jax import ScannedTrainingModel

    assert ScannedTrainingModel.steps_in_call(None, steps) == together
    recipe, half = dataclasses.replace(TINY, batch_size=1), steps // 2  # gone on with in the midst of an epoch
    calls = loop.row_batches(recipe, steps, 0, steps, half, together)
    found = [next(calls)[0].reshape(-1) for _ in range(-(-steps // together) - half // together)]
    single = loop.row_batches(recipe, steps, 0, steps, half)
    np.testing.assert_array_equal(np.concatenate(found), [next(single)[0][0] for _ in range(steps - half)])
    assert {*map(len, found[1:-1])} <= {together}


def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys, whole, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1e9)  # none between the two, however slow the machine
    for _ in range(2):
        with pytest.raises(loop.Interrupted):
            loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(6)])
    newest = max(tmp_path.glob("step-*.npz"))
    newest.write_bytes(newest.read_bytes()[:-100])
    capsys.readouterr()
    fitted = loop.fit(TINY, *rows(), 2, tmp_path)
    printed = capsys.readouterr().out
    assert "step-000000012.json is damaged" in printed
    assert list(tmp_path.glob("damaged-step-000000012*.npz"))  # nothing is deleted
    assert "resumed at step 6 of 24" in printed
    assert_same_run(whole, fitted)


@contextlib.contextmanager
def full_after_the_parts(patch):
    """The disk is full when the JSON of a checkpoint is written."""
    write = loop.checkpoints.write_atomically

    def full(path, content):
        if path.suffix == ".json":
            raise OSError(28, "No space left on device")
        write(path, content)

    with patch.context() as context:
        context.setattr(loop.checkpoints, "write_atomically", full)
        yield


@contextlib.contextmanager
def files_end_early(patch):
    """The system itself cuts every file off within the first part."""
    resource = pytest.importorskip("resource", reason="limits of Unix")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("full, message", [(full_after_the_parts, "No space left"), (files_end_early, "too large")])
def test_a_full_disk_keeps_what_there_is(tmp_path, monkeypatch, whole, full, message):
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(6)])
    kept = sorted(path.name for path in tmp_path.iterdir())
    with full(monkeypatch), pytest.raises(OSError, match=message):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(6)])
    assert sorted(path.name for path in tmp_path.iterdir()) == kept  # nothing half-written
    assert_same_run(whole, loop.fit(TINY, *rows(), 2, tmp_path))


def test_a_disk_that_is_full_from_the_start_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    with files_end_early(monkeypatch), pytest.raises(OSError, match="too large"):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[count])
    assert not steps


def test_a_checkpoint_of_resnet164_with_its_average_is_small_enough_to_move(tmp_path):
    """The one before the first step: it has every array already."""
    recipe = get_recipe("mpelu_nopre_resnet164.cifar100-modern")

    class Built(Exception):
        pass

    def stop(logs):
        raise Built

    data = np.zeros((recipe.batch_size, 32, 32, 3), "uint8"), np.zeros(recipe.batch_size, int)
    with pytest.raises(Built):
        loop.fit(recipe, *data, 100, tmp_path, callbacks=[keras.callbacks.LambdaCallback(on_train_begin=stop)])
    _, arrays, _ = loop.checkpoints.load_newest(tmp_path)
    assert sum(array.nbytes for array in arrays.values()) > 3 * 4 * 1_719_380  # weights, momentum, their average
    sizes = [path.stat().st_size for path in tmp_path.glob("step-*")]
    assert max(sizes) <= 16 * 2**20 and sum(sizes) <= 24 * 2**20, sizes


def test_checkpoints_move_in_parts(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(loop.checkpoints, "PART_BYTES", 1000)
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(6)])
    parts = list(tmp_path.glob("step-000000006.*.npz"))
    assert len(parts) > 5 and max(part.stat().st_size for part in parts) <= 1000
    assert_same_run(whole, loop.fit(TINY, *rows(), 2, tmp_path))


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(6)])
    manifest = max(tmp_path.glob("step-*.json"))
    manifest.write_text(manifest.read_text().replace("hidden1/kernel", "dense1/kernel"))
    with pytest.raises(ValueError, match="another version of this network or optimizer.*(dense1|hidden1)"):
        loop.fit(TINY, *rows(), 2, tmp_path)
    assert manifest.exists()


def test_two_runs_in_one_folder_are_refused(tmp_path):
    process = start_process(tmp_path)
    try:
        wait_for_step(tmp_path, 1, process)
        with pytest.raises(BlockingIOError, match="another process trains in"):
            loop.fit(LONG, *rows(), 2, tmp_path)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("limit", "words"), [(keras.config.set_max_epochs, "3 epochs"), (keras.config.set_max_steps_per_epoch, "3 steps")]
)
def test_a_limit_of_keras_is_named(limit, words, tmp_path):
    """Under which `fit` would return too early, time and again."""
    limit(3)
    try:
        with pytest.raises(ValueError, match=f"at most .*{words}.* this run has 4 of 6; leave KERAS_MAX_EPOCHS"):
            loop.fit(TINY, *rows(), 2, tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        limit(None)


def test_seeds_differ(tmp_path):
    """In what a network starts from, and in the order of its rows."""
    still = dataclasses.replace(TINY, epochs=1, learning_rate=1e-30)  # too little to change a weight
    starts = [weights(loop.fit(still, *rows(), 2, tmp_path / str(k), seed))[0] for k, seed in enumerate((0, 0, 1))]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.any(starts[0] == starts[2])
    orders = [next(loop.row_batches(TINY, 48, seed=seed, steps=3))[0].tolist() for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_batches_cover_the_data_and_are_repeatable():
    recipe = dataclasses.replace(TINY, batch_size=10)
    stream = loop.row_batches(recipe, 40, seed=5, steps=4)
    first = [next(stream)[0] for _ in range(4)]
    assert sorted(np.concatenate(first).tolist()) == list(range(40))
    second = [next(stream)[0] for _ in range(4)]
    resumed = loop.row_batches(recipe, 40, seed=5, steps=4, first_step=6)
    np.testing.assert_array_equal(second[2:], [next(resumed)[0] for _ in range(2)])
    assert not np.array_equal(second[0], first[0])


def test_the_moving_average_is_that_of_the_weights(tmp_path):
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([np.asarray(value) for value in self.model.network.get_weights()])

    fitted = loop.fit(dataclasses.replace(TINY, overrides={**TINY.overrides, "dropout": 0.0}), *rows(), 2, tmp_path,
                      callbacks=[See()])  # fmt: skip
    assert len(seen) == 24
    for place, variable in enumerate(fitted.model.weights):
        if not any(variable is other for other in fitted.model.trainable_variables):
            continue
        expected = seen[0][place].astype("float64")
        for step in seen[1:]:
            expected = 0.9 * expected + 0.1 * step[place]
        np.testing.assert_allclose(fitted.average[place], expected, rtol=1e-4, atol=1e-6)


def test_the_averaged_weights_have_batch_norm_statistics_of_their_own(tmp_path):
    """Those of the last weights are wrong for them: the first batch norm's follow from the data and its convolution."""
    x, y = images()
    recipe = dataclasses.replace(IMAGES, augmentation="none", erase=0, mixup=0, cutmix=0, dtype="float32", epochs=18)
    model, _, average, *_ = loop.fit(recipe, x, y, 10, tmp_path)
    last = model.get_weights()
    paths = [weight.path for weight in model.weights]
    assert not np.allclose(average[paths.index("stem_bn/moving_mean")], last[paths.index("stem_bn/moving_mean")])
    model.set_weights(average)
    stem = keras.Model(model.inputs, model.get_layer("stem_conv").output)
    outputs = np.asarray(stem.predict(x.astype("float32"), verbose=0), "float64")
    # Keras's are averages over batches, of 8 images; the mean of these means is that of all images, weighted alike.
    np.testing.assert_allclose(
        average[paths.index("stem_bn/moving_mean")], outputs.mean((0, 1, 2)), rtol=0.1, atol=0.1 * outputs.std()
    )
    variance = outputs.var((0, 1, 2))
    np.testing.assert_allclose(average[paths.index("stem_bn/moving_variance")], variance, rtol=0.2)
    again = loop.fit(recipe, x, y, 10, tmp_path)  # a run that has ended gives the same once more
    for actual, expected in zip(again.average, average, strict=True):
        np.testing.assert_array_equal(actual, expected)
    for actual, expected in zip(again.model.get_weights(), last, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_the_recipes_model_under_mixed_precision_comes_back_in_float32(tmp_path):
    recipe = dataclasses.replace(TINY, dtype="mixed_bfloat16", epochs=1)
    model = loop.fit(recipe, *rows(), 2, tmp_path).model
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    loop.fit(dataclasses.replace(TINY, epochs=1), *rows(), 2, tmp_path)
    with pytest.raises(ValueError, match="it differs in recipe: epochs 1, here 4.; give another --out"):
        loop.fit(TINY, *rows(), 2, tmp_path)


def test_a_run_of_another_version_of_the_engine_is_refused(tmp_path, monkeypatch):
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(2)])
    kept = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    monkeypatch.setattr(loop, "ENGINE", loop.ENGINE + 1)
    with pytest.raises(ValueError, match="holds another run .it differs in engine.; give another --out"):
        loop.fit(TINY, *rows(), 2, tmp_path)
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == kept


def test_checkpoints_that_belong_to_no_run_or_another_are_refused(tmp_path):
    long, short = tmp_path / "long", tmp_path / "short"
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, long, callbacks=[StopAt(8)])
    (long / "run.json").rename(tmp_path / "run.json")
    kept = sorted(path.name for path in long.iterdir())
    with pytest.raises(ValueError, match="holds checkpoints but no run.json"):
        loop.fit(TINY, *rows(), 2, long)
    assert sorted(path.name for path in long.iterdir()) == kept  # else the second try would be let in
    loop.fit(dataclasses.replace(TINY, epochs=1), *rows(), 2, short)
    (short / "run.json").rename(long / "run.json")
    with pytest.raises(ValueError, match="is of step 8, but this run has 6"):
        loop.fit(dataclasses.replace(TINY, epochs=1), *rows(), 2, long)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size 16 is larger than the 10"):
        loop.fit(TINY, *rows(10), 2, tmp_path)


def test_more_devices_than_there_are_is_refused(tmp_path):
    with pytest.raises(ValueError, match="devices=99"):
        loop.fit(TINY, *rows(), 2, tmp_path, devices=99)


@pytest.mark.parametrize("joined", [False, pytest.param(True, marks=only_jax)])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_layer(tmp_path, monkeypatch, joined):
    x, y = rows(800)
    x[77] = 3e38  # its sum overflows in some units of the first layer
    recipe = dataclasses.replace(TINY, epochs=2)
    order = np.concatenate(
        [batch for (batch,), _ in zip(loop.row_batches(recipe, 800, 0, 50), range(50), strict=False)]
    )
    step = int(np.flatnonzero(order == 77)[0]) // 16 + 1
    message = rf"loss was (nan|inf) at step {step}, first in the output of layer hidden1"
    with contextlib.ExitStack() as held:
        if joined:
            monkeypatch.setattr(loop, "CHECK_STEPS", 10)
            held.enter_context(steps_joined(monkeypatch, 10))
        caught = held.enter_context(pytest.raises(FloatingPointError, match=message))
        loop.fit(recipe, x, y, 2, tmp_path)
    assert "lower the learning rate" in str(caught.value)
    kept = loop.checkpoints.load_newest(tmp_path)
    assert kept[0] < step and all(np.isfinite(array).all() for array in kept[1].values())


def test_a_recipe_field_that_does_not_exist_is_an_error():
    with pytest.raises(TypeError, match="batchsize"):
        Recipe(name="a.b", epochs=1, batchsize=2)
    for change, message in (
        ({"epochs": 0}, "epochs is above 0"),
        ({"rates": ((1, 0.1),)}, "belong to schedule='steps'"),
        ({"average": 1.0}, "below 1"),
        ({"average": 0.0, "publish": "average"}, "needs average > 0"),
        ({"schedule": "linear"}, "schedule is one of"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **change)
    with pytest.raises(ValueError, match="mpelu_resnet20.cifar100"):
        get_recipe("mpelu_resnet20.cifar1000")


def test_the_picture_is_one():
    history = [{"epoch": 1, "loss": 2.0, "accuracy": 0.1, "learning_rate": 0.1}] * 2
    plain, learned = curves_png(history, "title"), curves_png(history, "title", np.ones((2, 19, 2)))
    assert plain.startswith(b"\x89PNG") and learned.startswith(b"\x89PNG")
    assert len(learned) > len(plain)


def test_the_queue_gives_the_runs_to_do_in_order(tmp_path):
    path = tmp_path / "QUEUE.md"
    path.write_text(
        "# Runs\n\n| run | command | state |\n|---|---|---|\n"
        "| a | `python -m training train a.b --seeds 0 1` | done: 70 % |\n"
        "| c | `python -m training train c.d --seeds 0 1` | to do |\n"
        "| e | `python -m training train e.f` | begun |\n"
    )
    assert read_queue(path) == [["c.d", "--seeds", "0", "1"], ["e.f"]]
    path.write_text("nothing")
    with pytest.raises(ValueError, match="no table row with a command"):
        read_queue(path)
    assert all(get_recipe(arguments[0]) for arguments in read_queue(ROOT / "results" / "QUEUE.md"))


def test_a_run_without_a_sound_checkpoint_is_not_begun_anew(tmp_path):
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(6)])
    for part in tmp_path.glob("step-*.npz"):
        part.rename(tmp_path / f"elsewhere-{part.name}")
    with pytest.raises(ValueError, match="none of the 2 checkpoints in .* is sound"):
        loop.fit(TINY, *rows(), 2, tmp_path)
    for part in tmp_path.glob("elsewhere-*"):
        part.rename(tmp_path / part.name.removeprefix("elsewhere-"))
    with pytest.raises(loop.Interrupted, match="stopped at step 12"):
        loop.fit(TINY, *rows(), 2, tmp_path, callbacks=[StopAt(6)])


def test_the_queue_goes_on_after_a_failure_and_stops_in_time(tmp_path, monkeypatch, capsys):
    path = tmp_path / "QUEUE.md"
    names = ("snn_mlp2.wine --epochs 1", "no_such_net", "--seeds 1", "snn_mlp4.digits", "snn_mlp2.wine", "late.d")
    path.write_text("\n".join(f"| `python -m training train {name}` | to do |" for name in names))
    ended = tmp_path / "runs" / "snn_mlp4.digits" / "snn_mlp4.digits" / "recipe.json"
    ended.parent.mkdir(parents=True)
    facts = {"recipe": dataclasses.asdict(get_recipe("snn_mlp4.digits")), "results": {"seeds": [0]}}
    ended.write_text(json.dumps(facts))
    calls = []

    def run(command, stop):
        calls.append(command)
        return 1 if "--epochs" in command else queue.TEMPFAIL

    monkeypatch.setattr(queue, "_run", run)
    command = ["train", "--queue", str(path), "--out", str(tmp_path / "runs"), "--stop-after", "9"]
    with pytest.raises(SystemExit) as exit:
        training_command(command)
    assert exit.value.code == queue.TEMPFAIL
    assert [call[4] for call in calls] == ["snn_mlp2.wine", "snn_mlp2.wine"]
    assert 8 < float(calls[0][calls[0].index("--stop-after") + 1]) < 9
    printed = capsys.readouterr().out
    assert "snn_mlp4.digits has ended" in printed
    assert "queue: snn_mlp2.wine --epochs 1 failed with exit status 1; going on" in printed
    assert "queue: no_such_net cannot be run: unknown" in printed and "queue: --seeds 1 cannot be run" in printed
    with pytest.raises(SystemExit):
        training_command([*command[:-1], "0"])
    assert len(calls) == 2  # no time: nothing is begun
    assert training_command([*command, "--bundle"]) == 1
    assert "--bundle belongs into the commands" in capsys.readouterr().err
    assert training_command([*command, "--label", "kind"]) == 1
    assert "--label belongs into the commands" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_queue_also_where_the_run_does_not_save(tmp_path, number):
    """Real processes; the run is still importing when the signal comes, so it dies of it."""
    names = ("snn_mlp2.wine", "snn_mlp4.breast_cancer")
    path = tmp_path / "QUEUE.md"
    path.write_text("\n".join(f"| `python -m training train {name}` | to do |" for name in names))
    command = [sys.executable, "-m", "training", "train", "--queue", str(path), "--out", str(tmp_path / "runs")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    first = process.stdout.readline()
    assert "train snn_mlp2.wine" in first
    if number == signal.SIGINT:  # as a terminal does: to the queue and its run
        time.sleep(0.2)
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == queue.TEMPFAIL
    assert "queue: stopped; the same command goes on" in rest
    assert "snn_mlp4" not in rest and "failed" not in rest


def test_a_run_has_ended_where_epochs_seeds_and_recipe_are_the_stored_ones(tmp_path, monkeypatch):
    asked, name, ended = [], "snn_mlp2.wine", queue._has_ended
    path = tmp_path / "QUEUE.md"
    monkeypatch.setattr(queue, "_has_ended", lambda run, out: asked.append(ended(run, out)) or True)

    def has_ended(options):
        path.write_text(f"| `python -m training train {name} {options}` | to do |")
        training_command(["train", "--queue", str(path), "--out", str(tmp_path)])
        return asked[-1]

    recipe = get_recipe(name)
    fields = dataclasses.asdict(recipe.rescaled(15))
    (tmp_path / name / name).mkdir(parents=True)
    (tmp_path / name / name / "recipe.json").write_text(json.dumps({"recipe": fields, "results": {"seeds": [0, 1]}}))
    (tmp_path / name / "validation-0.1").mkdir()
    (tmp_path / name / "validation-0.1" / "validation.json").write_text(
        json.dumps({"recipe": {**fields, "notes": "Older."}, "runs": [{"seed": 0}]})
    )
    assert has_ended("--epochs 15 --seeds 0 1")
    assert has_ended("--epochs 15 --seeds 0 1 --dtype float32")
    assert not has_ended("--epochs 15 --seeds 0 1 --dtype mixed_bfloat16")
    assert has_ended("--validation 0.1 --epochs 15") and has_ended("--epochs=15 --validation=0.1")
    for options in ("", "--seeds 0 1", "--epochs 15 --seeds 0", "--epochs 15 --seeds 1 0", "--minutes 3 --seeds 0 1"):
        assert not has_ended(options)
    for options in ("", "--epochs 14", "--epochs 15 --seeds 1"):
        assert not has_ended(f"--validation 0.1 {options}")
    assert not has_ended("--validation 0.2 --epochs 15")
    newer = json.dumps({"recipe": {**fields, "of_a_newer_version": 1}, "results": {"seeds": [0, 1]}})
    path_of_it = tmp_path / name / name / "recipe.json"
    kept = path_of_it.read_text()
    of_the_average = json.dumps({"recipe": {**fields, "publish": "average"}, "results": {"seeds": [0, 1]}})
    for other in (newer, of_the_average):
        path_of_it.write_text(other)
        assert not has_ended("--epochs 15 --seeds 0 1")
    path_of_it.write_text(kept)
    # Of one's own data the run itself is to say whether it has ended: two files of one name have runs of one name.
    assert not has_ended("--epochs 15 --seeds 0 1 --data wine.csv")
    (tmp_path / name / "epochs_in_minutes.json").write_text("[[3.0, 15], [4.0, 20]]")
    assert has_ended("--minutes 3 --seeds 0 1") and not has_ended("--minutes 4 --seeds 0 1")
    published = {"recipe": fields, "results": {"seeds": [0, 1, 2], "added": [{"seeds": [1]}, {"seeds": [2]}]}}
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "recipe.json").write_text(json.dumps(published))
    adding = f"--add-to {tmp_path / 'published'} --epochs"
    for seeds, done in (("1", True), ("2 1", True), ("0", False), ("1 3", False)):
        assert has_ended(f"{adding} 15 --seeds {seeds}") == done
    assert not has_ended(f"{adding} 14 --seeds 1") and not has_ended(f"--add-to {tmp_path} --epochs 15 --seeds 1")
    shutil.copytree(tmp_path / "published", tmp_path / name / name, dirs_exist_ok=True)
    for seeds, done in (("0", True), ("0 1 2", True), ("0 1", False)):  # what was added does not undo what was made
        assert has_ended(f"--epochs 15 --seeds {seeds}") == done
    (tmp_path / name / name / "recipe.json").write_text(json.dumps({"recipe": fields, "results": {"seeds": [0, 1]}}))
    monkeypatch.setattr(queue, "BUNDLED", tmp_path / "weights")
    assert not has_ended("--epochs 15 --seeds 0 1 --bundle")  # made, but not yet put into the package
    shutil.copytree(tmp_path / name / name, tmp_path / "weights" / name)
    assert has_ended("--epochs 15 --seeds 0 1 --bundle")
    shutil.rmtree(tmp_path / "weights")
    assert has_ended("--validation 0.1 --epochs 15 --bundle")  # which bundles nothing


# The command where only the modules of its first argument are found of those that others bring; it stops at a step.
BARE = """
import dataclasses
import importlib.machinery as machinery
import sys

find = machinery.PathFinder.find_spec
optional = ("tensorflow jax torch tensorflow_datasets tensorboard huggingface_hub matplotlib sklearn PIL pyarrow "
            "safetensors scipy pandas")
hidden = set(optional.split()) - set(sys.argv[1].split(","))
hide = lambda cls, name, *rest: None if name.partition(".")[0] in hidden else find(name, *rest)
machinery.PathFinder.find_spec = classmethod(hide)

from training import loop, recipes
from training.__main__ import main

loop.Keeper.on_train_begin = lambda self, logs=None: setattr(self, "stop", True)
known, small = recipes.get_recipe, {"batch_size": 8, "dtype": "float32", "overrides": {"depth": 8}}
recipes.get_recipe = lambda name: dataclasses.replace(known(name), **small)
main(sys.argv[2:])
"""


def test_the_command_needs_only_keras_numpy_h5py_and_the_backend(tmp_path):
    """`python -m training train` on the .npz, in a process that finds nothing else."""
    np.savez_compressed(
        tmp_path / "cifar10.npz",
        **{f"x_{split}": np.zeros((count, 32, 32, 3), "uint8") for split, count in (("train", 50000), ("test", 10000))},
        **{f"y_{split}": np.arange(count) % 10 for split, count in (("train", 50000), ("test", 10000))},
    )
    needed = {"jax": "jax,scipy"}.get(keras.backend.backend(), keras.backend.backend())  # JAX itself needs SciPy
    command = [sys.executable, "-c", BARE, needed, "train", "relu_resnet20.cifar10", "--data-dir", tmp_path]
    command += ["--out", tmp_path / "runs"]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == queue.TEMPFAIL, result.stderr[-3000:]
    assert "huggingface_hub, matplotlib, safetensors missing here: the run trains" in result.stderr
    assert "stopped at step 1 of 312500" in result.stderr
    assert newest_step(tmp_path / "runs" / "relu_resnet20.cifar10" / "seed0") == 1


def test_validation_reads_no_test_row_and_publishes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_test_once", lambda *_: pytest.fail("the test rows were read"))
    recipe = dataclasses.replace(get_recipe("snn_mlp2.wine"), epochs=2, average=0.9)
    made = run.train(recipe, out=tmp_path, seeds=[0, 1], validation=0.25)
    found = json.loads(made.read_text())
    assert [row["seed"] for row in found["runs"]] == [0, 1]
    assert set(found["runs"][0]) == {"seed", "last", "average"}
    means = {kind: np.mean([row[kind]["top1"] for row in found["runs"]]) for kind in ("average", "last")}
    assert found["choice"] == ("average" if means["average"] > means["last"] else "last")
    assert found["rows"] == sum(round(0.25 * count) for count in (47, 57, 38))
    assert not (tmp_path / recipe.name / recipe.name).exists()
    with pytest.raises(ValueError, match="between 0 and 1"):
        run.train(recipe, out=tmp_path, validation=1.5)


def test_the_test_rows_are_read_once(tmp_path, monkeypatch):
    reads = []
    predict = run.predict
    monkeypatch.setattr(run, "predict", lambda model, x: reads.append(len(x)) or predict(model, x))
    model, data = loop.build(TINY, 2), Data()
    fitted = loop.Fitted(model, [], [value + 1 for value in model.get_weights()], np.zeros(0), [])
    first = run._test_once(fitted, TINY, data, tmp_path)
    again = run._test_once(fitted, TINY, data, tmp_path)
    assert reads == [20]
    np.testing.assert_array_equal(first.logits, again.logits)
    other = dataclasses.replace(TINY, average=0.9, publish="average")
    with pytest.raises(ValueError, match="the test rows were read for other weights of this run"):
        run._test_once(fitted, other, data, tmp_path)
    assert reads == [20]


def test_minutes_become_epochs_once(tmp_path, monkeypatch):
    recipe = dataclasses.replace(get_recipe("snn_mlp2.wine"), epochs=7)
    arguments = recipe, Data(), {"num_features": 5}, tmp_path, 1
    epochs = minutes.epochs_in(2, *arguments)
    assert epochs >= 1
    fit = loop.fit
    monkeypatch.setattr(loop, "fit", lambda *_: pytest.fail("timed again"))
    assert minutes.epochs_in(2, *arguments) == epochs
    monkeypatch.setattr(loop, "fit", fit)
    assert minutes.epochs_in(200, *arguments) > epochs
    monkeypatch.setattr(loop, "fit", lambda *_: pytest.fail("timed again"))
    assert minutes.epochs_in(2, *arguments) == epochs  # other minutes in between do not lose it


@pytest.mark.parametrize("stop_after", [None, 1e-9])
def test_what_stops_a_run_stops_the_timing_of_its_steps(tmp_path, monkeypatch, stop_after):
    class Clock(minutes.Clock):
        def on_train_batch_begin(self, batch, logs=None):
            super().on_train_batch_begin(batch, logs)
            if stop_after is None and batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(minutes, "Clock", Clock)
    recipe = get_recipe("snn_mlp2.wine")
    with pytest.raises(loop.Interrupted, match="snn_mlp2.wine stopped while its first steps were timed"):
        minutes.epochs_in(2, recipe, Data(), {"num_features": 5}, tmp_path, 1, lambda: stop_after)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given, message",
    [
        ({"seeds": [0, 0]}, "seeds are different whole numbers from 0 .* received .0, 0."),
        ({"seeds": [-1]}, "seeds are different whole numbers from 0 .* received .-1."),
        ({"minutes": float("nan")}, "minutes is a number above 0; received nan"),
        ({"stop_after": float("nan")}, "stop_after is a number of minutes; received nan"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_folder_is_made(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        run.train(get_recipe("snn_mlp2.wine"), out=tmp_path, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("validation", [None, 0.1])
def test_another_run_does_not_take_the_place_of_one_that_has_ended(tmp_path, monkeypatch, validation):
    class Begun(Exception):
        pass

    def begin(*_, **__):
        raise Begun

    monkeypatch.setattr(loop, "fit", begin)
    recipe = get_recipe("snn_mlp2.wine")
    path = tmp_path / recipe.name / recipe.name / "recipe.json"
    facts = {"recipe": dataclasses.asdict(recipe), "results": {"seeds": [0, 1]}}
    if validation is not None:
        path = tmp_path / recipe.name / "validation-0.1" / "validation.json"
        facts = {"recipe": dataclasses.asdict(recipe), "runs": [{"seed": 0}, {"seed": 1}]}
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(facts))
    for given in ({"seeds": [1]}, {"seeds": [0]}, {"seeds": [0, 1], "epochs": 2}):
        with pytest.raises(ValueError, match="is of another run .seeds .0, 1., 100 epochs. .* give another --out"):
            run.train(recipe, out=tmp_path, validation=validation, **given)
    for seeds in ([0, 1], [0, 1, 2]):  # the same again, and further seeds
        with pytest.raises(Begun):
            run.train(recipe, out=tmp_path, validation=validation, seeds=seeds)
    path.write_text("")
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        run.train(recipe, out=tmp_path, validation=validation)


@pytest.mark.usefixtures("no_cross_validation")
def test_what_is_published_is_float32_whatever_the_callers_policy(tmp_path):
    recipe = dataclasses.replace(get_recipe("snn_mlp2.wine"), epochs=1)
    expected = run.train(recipe, out=tmp_path / "plain")
    keras.config.set_dtype_policy("mixed_bfloat16")
    folder = run.train(recipe, out=tmp_path / "mixed")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert "bfloat16" not in (folder / "config.json").read_text()
    weights = [load_folder(place).get_weights() for place in (folder, expected)]
    for value, same in zip(*weights, strict=True):
        np.testing.assert_array_equal(value, same)
    with pytest.raises(
        ValueError, match=r"dtype is one of .'float32', 'float64', 'mixed_bfloat16'.; received 'mixed_float16'"
    ):
        dataclasses.replace(recipe, dtype="mixed_float16")


@pytest.mark.usefixtures("no_cross_validation")
def test_another_run_does_not_take_the_place_of_a_bundled_one(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "BUNDLED", tmp_path / "weights")
    monkeypatch.setattr("training.folder_files.BUNDLED", tmp_path / "weights")
    recipe = dataclasses.replace(get_recipe("snn_mlp2.wine"), epochs=3)
    bundled = tmp_path / "weights" / recipe.name / "recipe.json"
    bundled.parent.mkdir(parents=True)
    bundled.write_text(json.dumps({"recipe": dataclasses.asdict(recipe), "results": {"seeds": [0]}}))
    for given in ({"seeds": [5]}, {"epochs": 1}):
        with pytest.raises(ValueError, match="is of another run .seeds .0., 3 epochs. .* leave --bundle out"):
            run.train(recipe, out=tmp_path / "runs", bundle=True, **given)
    assert run.train(recipe, out=tmp_path / "runs", seeds=[0, 1], epochs=3, bundle=True) == bundled.parent
    assert json.loads(bundled.read_text())["results"]["seeds"] == [0, 1]
    made = {path.name for path in (tmp_path / "runs" / recipe.name / recipe.name).iterdir()}
    assert {path.name for path in bundled.parent.iterdir()} == made - {"model.safetensors"}


@pytest.mark.usefixtures("no_cross_validation")
def test_further_seeds_are_added_to_a_finished_folder_whose_weights_stay(tmp_path, capsys):
    recipe = get_recipe("snn_mlp2.wine")
    folder = tmp_path / "published"
    shutil.move(run.train(recipe, out=tmp_path / "first", epochs=2), folder)
    before = json.loads((folder / "recipe.json").read_text())["results"]
    weights = (folder / "model.weights.h5").read_bytes()
    command = ["train", recipe.name, "--epochs", "2", "--out", str(tmp_path / "elsewhere"), "--seeds"]
    assert training_command([*command, "2", "1", "--add-to", str(folder)]) == 0
    assert '"published": "' in capsys.readouterr().out  # the pin
    assert (folder / "model.weights.h5").read_bytes() == weights
    assert load_folder(folder)  # the sums are those of the new card
    results = json.loads((folder / "recipe.json").read_text())["results"]
    at_once = run.train(recipe, out=tmp_path / "at_once", epochs=2, seeds=[0, 2, 1])
    expected = json.loads((at_once / "recipe.json").read_text())["results"]
    for key in ("seeds", "top1", "top1_by_seed"):
        assert results[key] == expected[key]
    for key in ("minutes", "hardware", "ece"):
        assert results[key] == before[key]
    card = (folder / "README.md").read_text()
    assert "(n = 3, seeds 0, 2, 1;" in card
    assert "Seeds 2, 1 were trained later" in card
    assert "by `python -m training train snn_mlp2.wine --epochs 2 --seeds 2 1`" in card
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert training_command([*command, "1", "--add-to", str(folder)]) == 1
    assert "has the seeds [0, 2, 1]; give others by --seeds than [1]" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


@pytest.mark.usefixtures("no_cross_validation")
def test_seeds_that_belong_to_another_folder_are_refused_before_they_are_trained(tmp_path, monkeypatch):
    recipe = get_recipe("snn_mlp2.wine")
    folder = run.train(recipe, out=tmp_path / "first", epochs=2)
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("it was trained"))

    def refused(message, kind=ValueError, folder=folder, **given):
        with pytest.raises(kind, match=message):
            run.train(recipe, **{"out": tmp_path / "out", "epochs": 2, "seeds": [1], "add_to": folder, **given})

    def changed(change):
        other = shutil.copytree(folder, tmp_path / "other", dirs_exist_ok=True)
        facts = json.loads((folder / "recipe.json").read_text())
        change(facts)
        (other / "recipe.json").write_text(json.dumps(facts))
        write_sums(other)
        return other

    refused(r"is of another training: .*epochs 2, here 3", epochs=3)
    refused(r"dtype 'float32', here 'mixed_bfloat16'", dtype="mixed_bfloat16")
    refused("leave out bundle", bundle=True)
    refused("leave out bundle, data and validation", validation=0.1)
    refused("has no recipe.json", FileNotFoundError, tmp_path / "none")
    refused("publish 'average', here 'last'", folder=changed(lambda facts: facts["recipe"].update(publish="average")))
    refused("l2 None, here 0.0001", folder=changed(lambda facts: facts["recipe"].update(l2=None)))
    refused("is not of `python -m training train`", folder=changed(lambda facts: facts["recipe"].pop("name")))
    refused("is not split as it was", folder=changed(lambda facts: facts["data"].update(sha256="0" * 64)))
    refused("is not of `python -m training train`", folder=changed(lambda facts: facts.pop("results")))
    refused(
        "is not of `python -m training train`", folder=changed(lambda facts: facts["data"].update(source="own data"))
    )
    (tmp_path / "other" / "model.weights.h5").write_bytes(b"damaged")
    refused("model.weights.h5", folder=tmp_path / "other")


def test_a_batch_larger_than_ones_own_data_becomes_the_data(tmp_path, monkeypatch, capsys):
    class Begun(Exception):
        pass

    def begin(recipe, *_, **__):
        raise Begun(recipe.batch_size)

    monkeypatch.setattr(loop, "fit", begin)
    (tmp_path / "few.csv").write_text("a,label\n" + "1,x\n2,y\n" * 3)
    with pytest.raises(Begun, match="^4$"):  # a row of each class is held out
        run.train(get_recipe("snn_mlp2.wine"), out=tmp_path / "runs", data=tmp_path / "few.csv")
    assert "batch size 4 in place of" in capsys.readouterr().out


def test_what_is_no_image_in_a_class_folder_is_counted(tmp_path, capsys):
    from PIL import Image

    from zoo.labelled_files import read_image_folders

    for name in ("cat", "dog"):
        (tmp_path / name / "x.png").mkdir(parents=True)
        (tmp_path / name / "y.heic").write_text("")
        for number in range(2):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{number}.png")
    assert len(read_image_folders(tmp_path, (32, 32, 3))[0]) == 4
    assert "4 entries of class folders are left out as no images (2 .heic, 2 folders)" in capsys.readouterr().err


def test_a_run_keeps_its_determinism_and_tells_of_other_versions(tmp_path, capsys):
    path = tmp_path / "run.json"
    fields = loop.decisive(dataclasses.asdict(TINY))
    run = {"recipe": fields, "seed": 0, "deterministic": False, "backend": "jax", "versions": {"keras": "3.15"}}
    loop._check_same_run(path, run)
    with pytest.raises(ValueError, match="differs in deterministic"):
        loop._check_same_run(path, {**run, "deterministic": True})
    assert capsys.readouterr().out == ""
    loop._check_same_run(path, {**run, "versions": {"keras": "3.16"}})
    assert "was begun with {'keras': '3.15'}; with {'keras': '3.16'}" in capsys.readouterr().out
    del fields["cutmix"]  # as an older version left it, before there was such a field
    path.write_text(json.dumps({**run, "recipe": fields}))
    loop._check_same_run(path, {**run, "recipe": loop.decisive(dataclasses.asdict(TINY))})
    assert capsys.readouterr().out == ""


def test_a_damaged_run_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"recipe": {')
    with pytest.raises(ValueError, match="run.json is damaged .* bring a sound copy of it, or give another --out"):
        loop.fit(TINY, *rows(), 2, tmp_path)


class Data:
    x_train, y_train = rows(320)
    x_test, y_test = rows(20, seed=1)
    class_names = ("no", "yes")
