"""Teachers: what they are asked, what a network learns from them, and what is refused."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import safetensors.numpy
from test_loop import IMAGES
from test_loop import TINY
from test_loop import StopAt
from test_loop import assert_same_run
from test_loop import images
from test_loop import rows

import training
import zoo
from training import distillation
from training import get_recipe
from training import loop
from training.training_model import TrainingModel
from zoo.datasets import Dataset

pytestmark = pytest.mark.usefixtures("quick_compilation")
TAUGHT = {"teachers": ("snn_mlp4.digits", "snn_mlp2.wine"), "distillation": 0.75, "temperature": 2.0}


def softmax(logits):
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def cifar_like(count, seed=0):
    """Made-up images under CIFAR-100's names."""
    x = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), "uint8")
    names = json.loads((zoo.pretrained.find_folder("relu_resnet20.cifar100")[0] / "recipe.json").read_text())
    y = np.arange(count) % 100
    return Dataset("cifar100", x, y, x[:0], y[:0], tuple(names["class_names"]), (), "made up")


def test_soft_targets_are_the_mean_of_the_teachers_softened_outputs(tmp_path):
    """Against probabilities of the loaded models by their default softmax, in float64."""
    names = ("relu_resnet20.cifar100", "elu_resnet20.cifar100")
    recipe = dataclasses.replace(IMAGES, mixup=0.0, cutmix=0.0, teachers=names, distillation=0.5, temperature=3.0)
    data = cifar_like(6)
    found = distillation.soft_targets(recipe, data, tmp_path)
    parts = []
    for name in names:
        model = zoo.load_model(name)
        for x in (data.x_train, data.x_train[:, :, ::-1]):
            probabilities = np.asarray(model.predict_on_batch(np.ascontiguousarray(x)), "float64")
            parts.append(softmax(np.log(probabilities) / 3.0))
    assert found.dtype == "float32" and found.shape == (6, 100)
    np.testing.assert_allclose(found, np.mean(parts, axis=0), rtol=2e-3, atol=1e-7)
    assert np.abs(parts[0] - parts[1]).max() > 0.01  # the mirror image is another question


def test_each_teacher_is_asked_once(tmp_path, monkeypatch):
    recipe = dataclasses.replace(TINY, **{**TAUGHT, "teachers": ("snn_mlp4.digits",)})
    asked, load = [], distillation.load_model
    monkeypatch.setattr(distillation, "load_model", lambda name, **options: asked.append(name) or load(name, **options))
    digits = zoo.load_dataset("digits")
    first = distillation.soft_targets(recipe, digits, tmp_path)
    np.testing.assert_array_equal(distillation.soft_targets(recipe, digits, tmp_path), first)
    assert asked == ["snn_mlp4.digits"]
    fewer = dataclasses.replace(digits, x_train=digits.x_train[::-1])
    np.testing.assert_allclose(distillation.soft_targets(recipe, fewer, tmp_path), first[::-1], atol=1e-6)
    warmer = distillation.soft_targets(dataclasses.replace(recipe, temperature=5.0), digits, tmp_path)
    assert warmer.max() < first.max() and len(asked) == 3  # of other rows, or otherwise softened


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_loss(dtype):
    """(1 - share) * cross-entropy + share * T^2 * cross-entropy with the soft targets at T, in float64."""
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
    distance = -(soft[chosen] * np.log(softmax(logits / 2.0))).sum(axis=1).mean()
    assert found == pytest.approx(0.25 * hard + 0.75 * 4 * distance, rel=1e-5 if dtype == "float32" else 1e-2)


def test_it_learns_what_the_teachers_say(tmp_path):
    """Teachers that contradict every label: with the whole loss theirs, the network says what they say."""
    x, y = rows(400)
    soft = np.where(np.arange(2) == y[:, None], 0.2, 0.8).astype("float32")
    recipe = dataclasses.replace(TINY, epochs=20, learning_rate=0.1, **{**TAUGHT, "distillation": 1.0})
    fitted = loop.fit(recipe, x, y, 2, tmp_path, soft_targets=soft)
    assert fitted.history[-1]["accuracy"] < 0.1  # by the labels
    held_x, held_y = rows(500, seed=1)
    assert (np.asarray(fitted.model.predict_on_batch(held_x)).argmax(axis=1) != held_y).mean() > 0.9


@pytest.mark.parametrize("make, base", [(rows, TINY), (images, dataclasses.replace(IMAGES, mixup=0.0, cutmix=0.0))])
def test_stopped_and_gone_on_with_it_ends_as_it_would_have(tmp_path, make, base):
    x, y = make()
    classes = y.max() + 1
    soft = softmax(np.random.default_rng(0).normal(size=(len(x), classes))).astype("float32")
    recipe = dataclasses.replace(base, **TAUGHT)
    whole = loop.fit(recipe, x, y, classes, tmp_path / "whole", soft_targets=soft)
    with pytest.raises(loop.Interrupted):
        loop.fit(recipe, x, y, classes, tmp_path / "parts", callbacks=[StopAt(4)], soft_targets=soft)
    (newest,) = sorted((tmp_path / "parts").glob("step-*.json"))[-1:]
    assert not any("soft" in name for name in json.loads(newest.read_text())["names"])
    assert_same_run(whole, loop.fit(recipe, x, y, classes, tmp_path / "parts", soft_targets=soft))
    untaught = loop.fit(base, x, y, classes, tmp_path / "untaught")
    assert any((a != b).any() for a, b in zip(whole.model.get_weights(), untaught.model.get_weights(), strict=True))


def test_other_weights_of_a_teacher_are_another_run(tmp_path):
    x, y = rows()
    recipe = dataclasses.replace(TINY, **TAUGHT)
    soft = np.full((len(x), 2), 0.5, "float32")
    with pytest.raises(loop.Interrupted):
        loop.fit(recipe, x, y, 2, tmp_path, callbacks=[StopAt(4)], soft_targets=soft)
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    run["teachers"]["snn_mlp4.digits"] = "0" * 64
    path.write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"another run \(it differs in teachers\)"):
        loop.fit(recipe, x, y, 2, tmp_path, soft_targets=soft)


def test_a_network_with_a_teacher_through_to_its_card(tmp_path):
    """A small network of digits in a whole run, with the time taken first, on held-out rows and then for its card."""
    recipe = get_recipe("snn_mlp2.digits")
    options = {"overrides": {**recipe.overrides, "width": 8}, "teachers": ("snn_mlp4.digits",)}
    recipe = dataclasses.replace(recipe, **options, epochs=5, distillation=0.9, temperature=2.0)
    validated = training.train(recipe, out=tmp_path, validation=0.2)
    assert json.loads(validated.read_text())["runs"][0]["last"]["top1"] > 0.5
    weights = training.train(recipe, out=tmp_path)
    rows_of = {path: np.load(path).shape for path in tmp_path.rglob("teacher-snn_mlp4.digits-*.npy")}
    assert sorted(shape for shape in rows_of.values())[-1] == zoo.load_dataset("digits").y_train.shape + (10,)
    assert len(rows_of) == 2  # the rows differ, so each has its own answers
    card = (weights / "README.md").read_text()
    assert "| teachers | ['snn_mlp4.digits'] |" in card and "| temperature | 2.0 |" in card
    assert zoo.evaluate(zoo.load_model(weights), "digits")["top1"] > 0.5
    timed = training.train(recipe, out=tmp_path / "timed", minutes=0.05)
    assert json.loads((timed / "recipe.json").read_text())["recipe"]["teachers"] == ["snn_mlp4.digits"]
    assert safetensors.numpy.load_file(timed / "model.safetensors")


def test_what_does_not_go_together_is_refused(tmp_path):
    for changes, words in (
        ({"distillation": 0.5}, "above 0 with teachers and 0 without"),
        ({"teachers": ("snn_mlp4.digits",)}, "above 0 with teachers"),
        ({**TAUGHT, "distillation": 1.5}, "a share of the loss"),
        ({**TAUGHT, "temperature": 0.0}, "temperature is above 0"),
        ({**TAUGHT, "cutmix": 1.0}, "leave mixup and cutmix out"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(TINY, **changes)
    taught = dataclasses.replace(TINY, **TAUGHT)
    with pytest.raises(ValueError, match="received no soft_targets"):
        loop.fit(taught, *rows(), 2, tmp_path)
    with pytest.raises(ValueError, match="received some soft_targets"):
        loop.fit(TINY, *rows(), 2, tmp_path, soft_targets=np.ones((100, 2)))
    with pytest.raises(ValueError, match="know the classes of digits"):
        training.train(taught, out=tmp_path, data=tmp_path / "mine.csv")
    with pytest.raises(ValueError, match="the teacher snn_mlp2.wine knows 3 classes, class_0, class_1, class_2"):
        distillation.soft_targets(taught, zoo.load_dataset("digits"), tmp_path)
    unknown = dataclasses.replace(taught, teachers=("snn_mlp4.digit",))
    with pytest.raises(ValueError, match=r"snn_mlp4\.digits"):
        distillation.soft_targets(unknown, zoo.load_dataset("digits"), tmp_path)
    assert not list(tmp_path.rglob("step-*"))
