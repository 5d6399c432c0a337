"""Teachers: what they are asked, what a network learns from them, and what is refused."""

import dataclasses
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from test_loop import IMAGES
from test_loop import TINY
from test_loop import StopAt
from test_loop import assert_same_run
from test_loop import images
from test_loop import only_jax
from test_loop import rows
from test_loop import steps_joined
from test_loop import weights

import training
import zoo
from training import distillation
from training import get_recipe
from training import loop
from training.card import rewrite
from training.training_model import TrainingModel
from zoo.datasets import Dataset
from zoo.folders import find_folder
from zoo.folders import sha256

pytestmark = pytest.mark.usefixtures("quick_compilation")
TAUGHT = {"teachers": ("snn_mlp4.digits", "snn_mlp2.wine"), "distillation": 0.75, "temperature": 2.0}


def taught(soft, recipe):
    return distillation.Taught(soft, {name: name for name in recipe.teachers})


def softmax(logits):
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def cifar_like(count, seed=0):
    """Made-up images under CIFAR-100's names."""
    x = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), "uint8")
    names = json.loads((find_folder("relu_resnet20.cifar100")[0] / "recipe.json").read_text())
    y = np.arange(count) % 100
    return Dataset("made up", x, y, x[:0], y[:0], tuple(names["class_names"]), (), "")


def test_soft_targets_are_the_mean_of_the_teachers_softened_outputs(tmp_path):
    """Against probabilities of the loaded models by their default softmax, in float64."""
    names = ("relu_resnet20.cifar100", "elu_resnet20.cifar100")
    recipe = dataclasses.replace(IMAGES, mixup=0.0, cutmix=0.0, teachers=names, distillation=0.5, temperature=3.0)
    data = cifar_like(6)
    found, teachers = distillation.ask_teachers(recipe, data, tmp_path)
    parts = []
    for name in names:
        model = zoo.load_model(name)
        for x in (data.x_train, data.x_train[:, :, ::-1]):
            probabilities = np.asarray(model.predict_on_batch(np.ascontiguousarray(x)), "float64")
            parts.append(softmax(np.log(probabilities) / 3.0))
    assert found.dtype == "float32" and found.shape == (6, 100)
    np.testing.assert_allclose(found, np.mean(parts, axis=0), rtol=2e-3, atol=1e-6)  # kept in float16
    assert teachers == {name: sha256(find_folder(name)[0] / "model.weights.h5") for name in names}
    assert np.abs(parts[0] - parts[1]).max() > 0.01  # the mirror image is another question


def test_each_teacher_is_asked_once(tmp_path, monkeypatch):
    recipe = dataclasses.replace(TINY, **{**TAUGHT, "teachers": ("snn_mlp4.digits",)})
    asked, load = [], distillation.load_model
    monkeypatch.setattr(distillation, "load_model", lambda name, **options: asked.append(name) or load(name, **options))
    digits = zoo.load_dataset("digits")
    first = distillation.ask_teachers(recipe, digits, tmp_path).soft_targets
    np.testing.assert_array_equal(distillation.ask_teachers(recipe, digits, tmp_path, lambda: 0.0)[0], first)
    assert asked == ["snn_mlp4.digits"]
    turned = dataclasses.replace(digits, x_train=digits.x_train[::-1])
    np.testing.assert_allclose(distillation.ask_teachers(recipe, turned, tmp_path)[0], first[::-1], atol=1e-3)
    warmer = distillation.ask_teachers(dataclasses.replace(recipe, temperature=5.0), digits, tmp_path)[0]
    assert warmer.max() < first.max() and len(asked) == 3  # about other rows, or otherwise softened
    with pytest.raises(loop.Interrupted, match="stopped before teacher 1 of 1"):
        distillation.ask_teachers(recipe, digits, tmp_path / "elsewhere", lambda: 0.0)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_loss(dtype):
    """(1 - share) * cross-entropy + share * T^2 * divergence from the soft targets at T, in float64."""
    x, y = rows(8)
    recipe = dataclasses.replace(TINY, **TAUGHT)
    rng = np.random.default_rng(0)
    soft = softmax(rng.normal(size=(8, 2))).astype("float32")
    model = TrainingModel(loop.build(recipe, 2, classifier_activation=None), recipe, x, y, 2, 0, soft_targets=soft)
    chosen = np.array([5, 0, 3], "int32")
    _, targets, taught = model.batch(chosen, training=True)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(taught), soft[chosen])
    logits = keras.ops.cast(rng.normal(size=(3, 2)) * 4, dtype.removeprefix("mixed_"))
    found = float(model.compute_loss(y_pred=(logits, targets, taught)))
    logits = keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32")).astype("float64")
    hard = -np.log(softmax(logits))[np.arange(3), y[chosen]].mean()
    taught = soft[chosen].astype("float64")
    divergence = (taught * np.log(taught / softmax(logits / 2.0))).sum(axis=1).mean()
    assert found == pytest.approx(0.25 * hard + 0.75 * 4 * divergence, rel=1e-5)


def test_it_learns_what_the_teachers_say(tmp_path):
    """Teachers that contradict every label: with the whole loss theirs, the network says what they say."""
    x, y = rows(400)
    soft = np.where(np.arange(2) == y[:, None], 0.2, 0.8).astype("float32")
    recipe = dataclasses.replace(TINY, epochs=20, learning_rate=0.1, **{**TAUGHT, "distillation": 1.0})
    fitted = loop.fit(recipe, x, y, 2, tmp_path, taught=taught(soft, recipe))
    assert fitted.history[-1]["accuracy"] < 0.1  # by the labels
    held_x, held_y = rows(500, seed=1)
    assert (np.asarray(fitted.model.predict_on_batch(held_x)).argmax(axis=1) != held_y).mean() > 0.9


@pytest.mark.parametrize("make, base", [(rows, TINY), (images, dataclasses.replace(IMAGES, mixup=0.0, cutmix=0.0))])
def test_stopped_and_gone_on_with_it_ends_as_it_would_have(tmp_path, make, base):
    x, y = make()
    classes = y.max() + 1
    soft = softmax(np.random.default_rng(0).normal(size=(len(x), classes))).astype("float32")
    recipe = dataclasses.replace(base, **TAUGHT)
    given = {"taught": taught(soft, recipe)}
    whole = loop.fit(recipe, x, y, classes, tmp_path / "whole", **given)
    with pytest.raises(loop.Interrupted):
        loop.fit(recipe, x, y, classes, tmp_path / "parts", callbacks=[StopAt(4)], **given)
    (newest,) = sorted((tmp_path / "parts").glob("step-*.json"))[-1:]
    assert not any("soft" in name for name in json.loads(newest.read_text())["names"])
    assert_same_run(whole, loop.fit(recipe, x, y, classes, tmp_path / "parts", **given))
    untaught = loop.fit(base, x, y, classes, tmp_path / "untaught")
    assert any((a != b).any() for a, b in zip(whole.model.get_weights(), untaught.model.get_weights(), strict=True))


@only_jax
def test_steps_in_one_call_have_teachers_too(tmp_path, monkeypatch):
    x, y = rows()
    recipe = dataclasses.replace(TINY, **TAUGHT, learning_rate=1e-3)
    said = taught(softmax(np.random.default_rng(0).normal(size=(len(x), 2))).astype("float32"), recipe)
    single = loop.fit(recipe, x, y, 2, tmp_path / "single", taught=said)
    with steps_joined(monkeypatch, 50):
        joined = loop.fit(recipe, x, y, 2, tmp_path / "joined", taught=said)
    for one, other in zip(weights(single), weights(joined), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="units share a function on TensorFlow and JAX")
def test_deep_networks_have_teachers_too(tmp_path, monkeypatch):
    """Whose units share a function on TensorFlow, and are trained without that on JAX."""
    x, y = images(16)
    recipe = get_recipe("mpelu_nopre_resnet164.cifar100")
    short = {"epochs": 1, "batch_size": 8, "dtype": "float32", "overrides": {"depth": 38}}
    recipe = dataclasses.replace(recipe, **short, **TAUGHT)
    said = taught(softmax(np.random.default_rng(0).normal(size=(16, 10))).astype("float32"), recipe)
    plain = loop.fit(recipe, x, y, 10, tmp_path / "plain", taught=said)
    monkeypatch.setattr(loop, "DEEP_UNITS", 12)
    deep = loop.fit(recipe, x, y, 10, tmp_path / "deep", taught=said)
    for one, other in zip(deep.model.get_weights(), plain.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * max(1, np.abs(other).max()))


def test_other_weights_of_a_teacher_are_another_run(tmp_path):
    x, y = rows()
    recipe = dataclasses.replace(TINY, **TAUGHT)
    said = taught(np.full((len(x), 2), 0.5, "float32"), recipe)
    with pytest.raises(loop.Interrupted):
        loop.fit(recipe, x, y, 2, tmp_path, callbacks=[StopAt(4)], taught=said)
    others = said._replace(teachers={**said.teachers, "snn_mlp4.digits": "other weights"})
    with pytest.raises(ValueError, match=r"another run \(it differs in teachers\)"):
        loop.fit(recipe, x, y, 2, tmp_path, taught=others)


def test_another_card_of_a_teacher_is_the_same_teacher(tmp_path, monkeypatch):
    """Further seeds change the card and so the pin, the weights stay."""
    recipe = dataclasses.replace(TINY, **{**TAUGHT, "teachers": ("snn_mlp2.wine",)})
    before = distillation.teachers_of(recipe)
    folder = pathlib.Path(shutil.copytree(find_folder("snn_mlp2.wine")[0], tmp_path / "snn_mlp2.wine"))
    pin = rewrite(folder, details={**json.loads((folder / "recipe.json").read_text()), "further": 1})
    monkeypatch.setattr(distillation, "find_folder", lambda name: (folder, pin))
    assert distillation.teachers_of(recipe) == before


def test_a_network_with_a_teacher_through_to_its_card(tmp_path, capsys, monkeypatch):
    """A small network of digits in a whole run, with the time taken first, on held-out rows and then for its card."""
    recipe = get_recipe("snn_mlp2.digits")
    options = {"overrides": {**recipe.overrides, "width": 8}, "teachers": ("snn_mlp4.digits",)}
    recipe = dataclasses.replace(recipe, **options, epochs=5, distillation=0.9, temperature=2.0)
    validated = json.loads(training.train(recipe, out=tmp_path, validation=0.2).read_text())
    assert validated["runs"][0]["last"]["top1"] > 0.5
    known = "the teachers were trained on the held-out rows too"
    assert validated["caution"] == known and known in capsys.readouterr().err
    made = training.train(recipe, out=tmp_path)
    rows_of = {path: np.load(path).shape for path in tmp_path.rglob("teacher-snn_mlp4.digits-*.npy")}
    assert sorted(shape for shape in rows_of.values())[-1] == zoo.load_dataset("digits").y_train.shape + (10,)
    assert len(rows_of) == 2  # the rows differ, so each has its own answers
    card = (made / "README.md").read_text()
    assert "| teachers | ['snn_mlp4.digits'] |" in card and "| temperature | 2.0 |" in card
    assert zoo.evaluate(zoo.load_model(made), "digits")["top1"] > 0.5
    (digest,) = distillation.teachers_of(recipe).values()
    assert f"Its teachers: snn_mlp4.digits (model.weights.h5 {digest[:12]})" in card
    training.train(recipe, out=tmp_path / "more", seeds=[1], add_to=made)
    assert "(n = 2, seeds 0, 1;" in (made / "README.md").read_text()
    monkeypatch.setattr(distillation, "teachers_of", lambda recipe: {"snn_mlp4.digits": "other weights"})
    with pytest.raises(ValueError, match="was taught by other weights of snn_mlp4.digits; train it anew"):
        training.train(recipe, out=tmp_path / "more", seeds=[2], add_to=made)
    with pytest.raises(ValueError, match="was taught by other weights of snn_mlp4.digits; give another --out"):
        training.train(recipe, out=tmp_path)
    with pytest.raises(loop.Interrupted, match="stopped before teacher 1 of 1"):
        training.train(recipe, out=tmp_path / "late", minutes=0.05, stop_after=0)
    timed = training.train(recipe, out=tmp_path / "timed", minutes=0.05)
    assert json.loads((timed / "recipe.json").read_text())["recipe"]["teachers"] == ["snn_mlp4.digits"]


def test_what_does_not_go_together_is_refused(tmp_path):
    for changes, words in (
        ({"distillation": 0.5}, "above 0 with teachers and 0 without"),
        ({"teachers": ("snn_mlp4.digits",)}, "above 0 with teachers"),
        ({**TAUGHT, "distillation": 1.5}, "a share of the loss"),
        ({**TAUGHT, "temperature": 0.0}, "temperature is above 0"),
        ({**TAUGHT, "cutmix": 1.0}, "leave mixup and cutmix out"),
        ({**TAUGHT, "teachers": "snn_mlp4.digits"}, "a tuple of different names"),
        ({**TAUGHT, "teachers": ("snn_mlp4.digits",) * 2}, "a tuple of different names"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(TINY, **changes)
    recipe = dataclasses.replace(TINY, **TAUGHT)
    soft = np.full((100, 2), 0.5, "float32")
    with pytest.raises(ValueError, match=r"has the teachers .*; received answers of \[\]"):
        loop.fit(recipe, *rows(), 2, tmp_path)
    with pytest.raises(ValueError, match=r"has the teachers \[\]; received answers of .'snn_mlp4.digits'"):
        loop.fit(TINY, *rows(), 2, tmp_path, taught=taught(soft, recipe))
    with pytest.raises(ValueError, match=r"have the shape \(99, 2\), expected \(100, 2\)"):
        loop.fit(recipe, *rows(), 2, tmp_path, taught=taught(soft[1:], recipe))
    with pytest.raises(ValueError, match="know the classes of digits"):
        training.train(recipe, out=tmp_path, data=tmp_path / "mine.csv")
    digits = zoo.load_dataset("digits")
    with pytest.raises(
        ValueError, match="the teacher snn_mlp2.wine was trained on wine; give teachers trained on digi"
    ):
        distillation.ask_teachers(recipe, digits, tmp_path)
    recipe = dataclasses.replace(TINY, **{**TAUGHT, "teachers": ("snn_mlp4.digits",)})
    with pytest.raises(ValueError, match="digits is not split as it was for snn_mlp4.digits"):
        distillation.ask_teachers(recipe, dataclasses.replace(digits, sha256="0" * 64), tmp_path)
    with pytest.raises(ValueError, match="knows 10 classes that are not the 10 of digits here"):
        names = digits.class_names[::-1]
        distillation.ask_teachers(recipe, dataclasses.replace(digits, class_names=names), tmp_path)
    unknown = dataclasses.replace(recipe, teachers=("snn_mlp4.digit",))
    with pytest.raises(ValueError, match=r"unknown snn_mlp2.digits: teacher .*snn_mlp4\.digits"):
        distillation.ask_teachers(unknown, digits, tmp_path)
    assert not [*tmp_path.rglob("step-*"), *tmp_path.rglob("teacher-*")]
