"""The figures of `zoo.evaluate`, against scikit-learn and values worked out by hand."""

import keras
import numpy as np
import pytest

import zoo
from zoo.datasets import CIFAR100_CLASSES
from zoo.datasets import CIFAR100_SUPERCLASSES
from zoo.datasets import Dataset
from zoo.evaluation import log_probabilities
from zoo.evaluation import metrics
from zoo.evaluation import top1_by_superclass
from zoo.prediction import predict_files


def data_set(x, y, classes):
    return Dataset("made", x, y, x, y, tuple(map(str, range(classes))), (), "")


def test_figures_agree_with_scikit_learn():
    from sklearn.metrics import log_loss
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 12)) * 3, rng.integers(0, 12, 500)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    figures = metrics(log_probabilities(logits, are_probabilities=False), labels)
    assert figures["loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert figures["top1"] == top_k_accuracy_score(labels, logits, k=1)
    assert figures["top5"] == top_k_accuracy_score(labels, logits, k=5)
    assert figures["rows"] == 500


def test_calibration_error_by_hand():
    # Four rows with confidence 0.9, two right: |0.5 - 0.9|. One with 0.6, right: |1 - 0.6|. Weights 4/5 and 1/5.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]])
    labels = np.array([0, 0, 1, 1, 0])
    figures = metrics(log_probabilities(probabilities, are_probabilities=True), labels)
    assert figures["ece"] == pytest.approx(0.8 * 0.4 + 0.2 * 0.4)


def test_top1_by_superclass_by_hand():
    labels = np.arange(100)
    bee, beetle = CIFAR100_CLASSES.index("bee"), CIFAR100_CLASSES.index("beetle")
    predicted = np.where(labels == bee, beetle, labels)  # right superclass, wrong class
    found = top1_by_superclass(predicted, labels, CIFAR100_CLASSES)
    assert list(found) == list(CIFAR100_SUPERCLASSES)
    assert found.pop("insects") == 0.8
    assert set(found.values()) == {1.0}


def test_constant_outputs_score_no_top5():
    assert metrics(np.full((10, 20), -np.log(20.0)), np.arange(10))["top5"] == 0


@pytest.mark.parametrize("activation", ["softmax", None])
def test_softmax_and_logits_models_give_the_same_figures(activation):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(300, 6)).astype("float32")
    y = np.arange(300) % 8
    softmax = zoo.create_model("snn_mlp2", width=12, num_features=6, num_classes=8)
    model = zoo.create_model("snn_mlp2", width=12, num_features=6, num_classes=8, classifier_activation=activation)
    model.set_weights(softmax.get_weights())
    figures = zoo.evaluate(model, data_set(x, y, 8), batch_size=128)
    softmax.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = softmax.evaluate(x, y, verbose=0)  # Keras's own
    assert figures["loss"] == pytest.approx(loss, abs=1e-5)
    assert figures["top1"] == pytest.approx(accuracy, abs=1e-6)


def test_data_that_do_not_fit_are_refused():
    model = zoo.create_model("snn_mlp2", width=4, num_features=6, num_classes=3)
    x = np.zeros((5, 6), "float32")
    with pytest.raises(ValueError, match="num_classes=8"):
        zoo.evaluate(model, data_set(x, np.full(5, 7), 8))
    with pytest.raises(ValueError, match=r"takes inputs of shape \(6,\); made has \(4,\)"):
        zoo.evaluate(model, data_set(x[:, :4], np.zeros(5, int), 3))
    with pytest.raises(ValueError, match="label -1; labels count from 0"):
        zoo.evaluate(model, data_set(x, np.array([0, 1, 2, -1, 0]), 3))
    with pytest.raises(ValueError, match="take the argmax"):
        zoo.evaluate(model, data_set(x, np.eye(5, 3, dtype=int), 3))
    with pytest.raises(ValueError, match="received tuple; on arrays of your own"):
        zoo.evaluate(model, (x, np.zeros(5, int)))
    with pytest.raises(ValueError, match="one label for each"):
        zoo.evaluate(model, data_set(x, np.zeros(4, int), 3))
    with pytest.raises(ValueError, match="of one or more rows"):
        zoo.evaluate(model, data_set(x[:0], np.zeros(0, int), 3))
    with pytest.raises(ValueError, match="not finite numbers"):
        zoo.evaluate(model, data_set(np.full((5, 6), np.nan, "float32"), np.zeros(5, int), 3))


def test_images_of_another_size_are_refused():
    """Keras's own `predict` takes them on JAX, where it does not look at the shape of the input."""
    model = zoo.create_model("relu_resnet20", depth=8)
    with pytest.raises(ValueError, match=r"takes inputs of shape \(32, 32, 3\); made has \(28, 28, 3\)"):
        zoo.evaluate(model, data_set(np.zeros((2, 28, 28, 3), "uint8"), np.zeros(2, int), 100))


@pytest.mark.parametrize("name", ["last", "classifier"])
def test_a_softmax_layer_gives_probabilities(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    logits = keras.layers.Dense(4, name=name)(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(logits))
    x, y = np.random.default_rng(0).normal(size=(50, 6)).astype("float32"), np.arange(50) % 4
    expected = zoo.evaluate(keras.Model(inputs, logits), data_set(x, y, 4))
    assert zoo.evaluate(model, data_set(x, y, 4)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("units, activation", [(1, "sigmoid"), (1, None), (3, "sigmoid"), (3, "relu")])
def test_what_is_no_classifier_is_refused(units, activation, tmp_path, capsys):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(units, activation)(inputs))
    with pytest.raises(ValueError, match="expected softmax or logits of two or more classes"):
        zoo.evaluate(model, data_set(np.zeros((5, 6), "float32"), np.zeros(5, int), 1))
    folder = zoo.save_model(model, tmp_path / "folder")
    loaded = zoo.load_model(str(folder))  # it is as usable
    assert "not compiled" in capsys.readouterr().err and not loaded.compiled
    header = ",".join(f"column {number}" for number in range(6))
    np.savetxt(tmp_path / "rows.csv", np.ones((2, 6)), delimiter=",", header=header, comments="")
    if units == 1:
        assert set(predict_files(str(folder), [tmp_path / "rows.csv"])[0]) == {"input", "value"}
        return
    with pytest.raises(ValueError, match="expected softmax or logits"):
        predict_files(str(folder), [tmp_path / "rows.csv"])


def test_another_activation_than_softmax_is_no_classifier():
    with pytest.raises(ValueError, match="'softmax', or None for logits; received 'sigmoid'"):
        zoo.load_model("snn_mlp2.wine", classifier_activation="sigmoid")


def test_numpys_integers_are_numbers_of_classes(capsys):
    assert zoo.load_model("snn_mlp2.wine", num_classes=np.arange(5).max() + 1).output_shape == (None, 5)


def test_top5_of_a_very_confident_model():
    """Softmax in float32 has no digits left for the second class; the logits have."""
    model = zoo.create_model("snn_mlp2", width=4, num_features=6, num_classes=20)
    head = model.get_layer("classifier")
    bias = np.full(20, -60.0)
    bias[[3, 7]] = 60, 1
    head.set_weights([np.zeros_like(head.get_weights()[0]), bias])
    figures = zoo.evaluate(model, data_set(np.zeros((4, 6), "float32"), np.array([3, 7, 7, 0]), 20))
    assert figures["top1"] == 0.25 and figures["top5"] == 0.75


def test_outputs_that_are_not_finite_are_named():
    with pytest.raises(FloatingPointError, match="not finite"):
        metrics(np.full((3, 4), np.nan), np.zeros(3, int))


def test_another_split_than_the_models_own_is_refused():
    from zoo.evaluation import check_same_data

    wine = zoo.load_dataset("wine")
    details = {"name": "snn_mlp2.wine", "data": {"name": "wine", "sha256": wine.sha256}}
    check_same_data(details, wine)
    details["data"]["sha256"] = "0" * 64
    with pytest.raises(ValueError, match="may hold training rows"):
        check_same_data(details, wine)
