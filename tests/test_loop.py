"""The training loop: it learns, resumes exactly, and refuses what it cannot do."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from training import Recipe
from training import get_recipe
from training import loop
from training.curves import curves_png

ROOT = pathlib.Path(__file__).parent.parent
TINY = Recipe(
    name="snn_mlp2.digits",
    epochs=4,
    batch_size=16,
    learning_rate=0.02,
    warmup_epochs=1,
    l2=1e-4,
    overrides={"width": 16, "dropout": 0.1, "num_features": 5},
)


def rows(count=100, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("int64")


def weights(model):
    return [np.asarray(value) for value in model.get_weights()]


def test_it_learns_and_keeps_a_history(tmp_path):
    recipe = dataclasses.replace(TINY, epochs=20, learning_rate=0.1)
    model, history = loop.fit(recipe, *rows(400), 2, tmp_path)
    assert [row["epoch"] for row in history] == list(range(1, 21))
    assert history[-1]["accuracy"] > 0.9 > history[0]["accuracy"]
    assert history[-1]["learning_rate"] < 1e-6
    held_x, held_y = rows(500, seed=1)
    assert (np.asarray(model.predict_on_batch(held_x)).argmax(1) == held_y).mean() > 0.9


def test_schedule_warms_up_then_follows_the_cosine():
    recipe = dataclasses.replace(TINY, epochs=10, warmup_epochs=2, learning_rate=0.4)
    schedule = loop.learning_rate_schedule(recipe, steps=5)
    found = [float(schedule(step)) for step in (0, 5, 10, 30, 50)]
    np.testing.assert_allclose(found, [0, 0.2, 0.4, 0.4 * (1 + np.cos(np.pi / 2)) / 2, 0], atol=1e-6)


def test_a_stopped_run_ends_like_an_uninterrupted_one(tmp_path):
    whole, history = loop.fit(TINY, *rows(), 2, tmp_path / "whole", seed=3)
    with pytest.raises(loop.Interrupted, match="after epoch 1 of 4"):
        loop.fit(TINY, *rows(), 2, tmp_path / "parts", seed=3, stop_after=1e-9)
    parts, parts_history = loop.fit(TINY, *rows(), 2, tmp_path / "parts", seed=3)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["loss"] for row in parts_history] == [row["loss"] for row in history]


LONG = dataclasses.replace(TINY, epochs=100)


def test_a_killed_run_resumes_from_its_checkpoint(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from test_loop import *; loop.CHECKPOINT_SECONDS = 0; "
        "loop.fit(LONG, *rows(), 2, sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], cwd=ROOT)
    while not list((tmp_path / "killed").glob("checkpoint-*[3-9].json")):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    newest = max((tmp_path / "killed").glob("checkpoint-*.json"))
    before = json.loads(newest.read_text())["history"]
    assert 3 <= len(before) < 100

    killed, killed_history = loop.fit(LONG, *rows(), 2, tmp_path / "killed", quiet=True)
    whole, history = loop.fit(LONG, *rows(), 2, tmp_path / "whole", quiet=True)
    for one, other in zip(weights(whole), weights(killed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["loss"] for row in killed_history] == [row["loss"] for row in history]
    # The epochs before the kill were not run again: their times are those of the killed process.
    assert killed_history[: len(before)] == before


def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys):
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, stop_after=1e-9)
    with pytest.raises(loop.Interrupted):
        loop.fit(TINY, *rows(), 2, tmp_path, stop_after=1e-9)
    newest = max(tmp_path.glob("checkpoint-*.weights.h5"))
    newest.write_bytes(newest.read_bytes()[:-100])
    whole, _ = loop.fit(TINY, *rows(), 2, tmp_path / "whole")
    capsys.readouterr()
    model, _ = loop.fit(TINY, *rows(), 2, tmp_path)
    printed = capsys.readouterr().out
    assert "checkpoint-0002.json is damaged" in printed
    assert "resumed at step 6 of 24" in printed
    for one, other in zip(weights(whole), weights(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seeds_differ(tmp_path):
    first, _ = loop.fit(TINY, *rows(), 2, tmp_path / "a", seed=0)
    second, _ = loop.fit(TINY, *rows(), 2, tmp_path / "b", seed=1)
    assert not np.array_equal(weights(first)[0], weights(second)[0])


def test_batches_cover_the_data_and_are_repeatable():
    x = np.arange(40, dtype="float32")[:, None]
    recipe = dataclasses.replace(TINY, batch_size=10)
    stream = loop.batches(recipe, x, np.arange(40), seed=5, steps=4)
    first = [next(stream) for _ in range(4)]
    assert sorted(np.concatenate([labels for _, labels in first]).tolist()) == list(range(40))
    second = [next(stream)[1] for _ in range(4)]
    resumed = loop.batches(recipe, x, np.arange(40), seed=5, steps=4, first_epoch=1)
    np.testing.assert_array_equal(second, [next(resumed)[1] for _ in range(4)])
    assert not np.array_equal(second[0], first[0][1])


def test_the_recipes_model_under_mixed_precision_comes_back_in_float32(tmp_path):
    recipe = dataclasses.replace(TINY, dtype="mixed_bfloat16", epochs=1)
    model, _ = loop.fit(recipe, *rows(), 2, tmp_path)
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    loop.fit(dataclasses.replace(TINY, epochs=1), *rows(), 2, tmp_path)
    with pytest.raises(ValueError, match="another recipe, seed, data or backend"):
        loop.fit(TINY, *rows(), 2, tmp_path)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size 16 is larger than the 10"):
        loop.fit(TINY, *rows(10), 2, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="loss was nan"):
        loop.fit(dataclasses.replace(TINY, learning_rate=1e30, warmup_epochs=0), *rows(), 2, tmp_path)


def test_a_recipe_field_that_does_not_exist_is_an_error():
    with pytest.raises(TypeError, match="batchsize"):
        Recipe(name="a.b", epochs=1, batchsize=2)
    with pytest.raises(ValueError, match="epochs is above 0"):
        dataclasses.replace(TINY, epochs=0)
    with pytest.raises(ValueError, match="mpelu_resnet20.cifar100"):
        get_recipe("mpelu_resnet20.cifar10")


def test_the_picture_is_one():
    history = [{"epoch": 1, "loss": 2.0, "accuracy": 0.1, "learning_rate": 0.1}] * 2
    assert curves_png(history, "title").startswith(b"\x89PNG")


@pytest.mark.skipif(
    os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow", reason="TensorFlow itself is the backend"
)
def test_training_needs_no_tensorflow(tmp_path):
    code = (
        "import sys, importlib.machinery as machinery; find = machinery.PathFinder.find_spec; "
        "hide = lambda cls, name, *rest: None if name.partition('.')[0] == 'tensorflow' else find(name, *rest); "
        "machinery.PathFinder.find_spec = classmethod(hide); sys.path.insert(0, 'tests'); import test_loop as t; "
        "recipe = t.dataclasses.replace(t.get_recipe('mpelu_resnet20.cifar100'), epochs=1, batch_size=8, "
        "overrides={'depth': 8}); import numpy as np; "
        "t.loop.fit(recipe, np.zeros((16, 32, 32, 3), 'uint8'), np.arange(16), 100, sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
