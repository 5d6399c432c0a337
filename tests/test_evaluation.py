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
from zoo.pretrained import compile_for_finetuning


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
    for no_pair in (x, (x,), (x, np.zeros(5, int), None)):
        with pytest.raises(ValueError, match=r"or a pair of arrays \(x, y\); received (ndarray|tuple)"):
            zoo.evaluate(model, no_pair)
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
    if activation == "sigmoid":  # whose loss is known
        assert loaded.loss == "binary_crossentropy"
    else:
        assert "not compiled" in capsys.readouterr().err and not loaded.compiled
    header = ",".join(f"column {number}" for number in range(6))
    np.savetxt(tmp_path / "rows.csv", np.ones((2, 6)), delimiter=",", header=header, comments="")
    if units == 1:
        assert set(predict_files(str(folder), [tmp_path / "rows.csv"])[0]) == {"input", "value"}
        return
    with pytest.raises(ValueError, match="expected softmax or logits"):
        predict_files(str(folder), [tmp_path / "rows.csv"])


def test_heads_of_other_activations(capsys, tmp_path):
    wine = zoo.load_dataset("wine")
    logits = zoo.load_model("snn_mlp2.wine", classifier_activation=None).predict(wine.x_test, verbose=0)
    several = zoo.load_model("snn_mlp2.wine", classifier_activation="sigmoid")
    np.testing.assert_allclose(several.predict(wine.x_test, verbose=0), 1 / (1 + np.exp(-logits)), atol=1e-6)
    one = zoo.load_model("snn_mlp2.wine", num_classes=1, classifier_activation="sigmoid")
    assert one.loss == "binary_crossentropy" and one.output_shape == (None, 1)
    is_first = (wine.y_train == 0).astype("float32")[:, None]
    one.fit(wine.x_train, is_first, epochs=3, verbose=0)
    assert one.evaluate(wine.x_test, (wine.y_test == 0).astype("float32")[:, None], verbose=0)[1] > 0.9
    number = zoo.load_model("snn_mlp2.wine", num_classes=1, classifier_activation=None)
    assert number.layers[-1].activation is keras.activations.linear and number.loss == "mean_squared_error"
    assert number.fit(wine.x_train, is_first, epochs=2, verbose=0).history["mean_absolute_error"][-1] < 1
    again = zoo.load_model(zoo.save_model(number, tmp_path / "number"), num_classes=3)  # it has a head like any other
    assert again.output_shape == (None, 3) and again.loss is not None
    with pytest.raises(ValueError, match="num_classes=1 with a softmax has the output 1 for everything"):
        zoo.load_model("snn_mlp2.wine", num_classes=1)
    with pytest.raises(ValueError, match="another activation of Keras, such as 'sigmoid'; received 'sigmid'"):
        zoo.load_model("snn_mlp2.wine", classifier_activation="sigmid")


@pytest.mark.parametrize("arch", ["mpelu_nin", "snn_mlp2", "relu_resnet20"])
def test_untrained_networks_have_kerass_loss(arch):
    """Also Network in Network, which ends in a map of logits, their mean and a softmax layer."""
    keras.utils.set_random_seed(0)
    model = zoo.create_model(arch, num_classes=7)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(6, 16)) if arch == "snn_mlp2" else rng.integers(0, 256, (6, 32, 32, 3))).astype("float32")
    y = rng.integers(0, 7, 6)
    found = keras.losses.sparse_categorical_crossentropy(y, model.predict(x, verbose=0))
    expected = float(keras.ops.convert_to_numpy(found).mean())
    figures = zoo.evaluate(model, (x, y[:, None]))  # labels as keras.datasets.cifar100 has them
    assert figures["loss"] == pytest.approx(expected, abs=1e-4) and figures["rows"] == 6
    logits = zoo.create_model(arch, num_classes=7, classifier_activation=None)
    compile_for_finetuning(logits)
    assert logits.loss.from_logits


def probabilities_and_logits():
    return (zoo.load_model("snn_mlp4.digits", classifier_activation=activation) for activation in ("softmax", None))


WRAPPED = {
    "noise in front": lambda model, logits, x: model(keras.layers.GaussianNoise(0.1)(x)),
    "sequential in sequential": lambda model, logits, x: keras.Sequential([x, keras.Sequential([x, model])]).outputs[0],
    "an operation": lambda model, logits, x: keras.ops.softmax(logits(x)),
    "a function": lambda model, logits, x: keras.activations.softmax(logits(x)),
    "an ensemble": lambda model, logits, x: keras.layers.Average()([model(x), model(x)]),
    "another shape": lambda model, logits, x: keras.layers.Reshape((10,))(keras.layers.Reshape((2, 5))(model(x))),
    "logits in front": lambda model, logits, x: logits(x),
    "logits and dropout": lambda model, logits, x: keras.layers.Dropout(0.5)(logits(x)),
    "an ensemble of logits": lambda model, logits, x: keras.layers.Average()([logits(x), logits(x)]),
    # Its last layer is the classifier, behind which two operations follow.
    "flat": lambda model, logits, x: keras.ops.softmax(2 * keras.Model(x, head(logits, x, 0.5)).outputs[0]),
    "a softmax in a model": lambda model, logits, x: keras.Sequential(
        [keras.Input((10,)), keras.layers.Activation("softmax")]
    )(head(logits, x, 1, "classifier")),
}
UNKNOWN = {"an ensemble": "Average", "another shape": "Reshape", "an ensemble of logits": "Average"}


def head(logits, x, factor, name=None):
    """The classifier on the network's features, its logits larger by a factor."""
    classifier = logits.get_layer("classifier")
    scaled = keras.layers.Dense(10, name=name)
    outputs = scaled(keras.Model(logits.input, classifier.input)(x))
    scaled.set_weights([factor * weight for weight in classifier.get_weights()])
    return outputs


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_model_in_a_model_has_its_figures(wrap, tmp_path, capsys):
    """A softmax that is not the last layer itself; taken for logits, its figures are those of near-uniform outputs."""
    model, logits = probabilities_and_logits()
    inputs = keras.Input((64,))
    wrapped = keras.Model(inputs, WRAPPED[wrap](model, logits, inputs))
    expected = zoo.evaluate(model, "digits")
    assert expected["loss"] < 0.2  # of uniform outputs: 2.3
    assert zoo.evaluate(wrapped, "digits") == pytest.approx(expected, abs=1e-5)
    folder = zoo.save_model(wrapped, tmp_path / "folder")
    loaded = zoo.load_model(folder)
    assert loaded.compiled == (wrap not in UNKNOWN)  # of which loss cannot be told
    if loaded.compiled:
        digits = zoo.load_dataset("digits")
        assert loaded.evaluate(digits.x_test, digits.y_test, verbose=0)[0] == pytest.approx(expected["loss"], abs=1e-4)
    else:
        assert f"ends in {UNKNOWN[wrap]} '" in capsys.readouterr().err
    header = ",".join(f"column {number}" for number in range(64))
    rows = zoo.load_dataset("digits").x_test[:2]
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", header=header, comments="")
    found = predict_files(folder, [tmp_path / "rows.csv"])
    for row, outputs in zip(found, model.predict(rows, verbose=0), strict=True):
        assert row["top5"][0][1] == pytest.approx(outputs.max(), abs=1e-5)


def test_a_sigmoid_of_several_outputs_has_no_loss_here(capsys):
    inputs = keras.Input((6,))
    outputs = [keras.layers.Dense(1, "sigmoid")(inputs), keras.layers.Dense(3, "softmax")(inputs)]
    for order in (outputs, outputs[::-1]):
        with pytest.raises(ValueError, match="has outputs of shape"):
            compile_for_finetuning(keras.Model(inputs, order))


def test_arrays_of_ones_own_are_a_data_set():
    digits, model = zoo.load_dataset("digits"), zoo.load_model("snn_mlp4.digits")
    x, y = digits.x_test, digits.y_test
    expected = zoo.evaluate(model, digits)
    assert zoo.evaluate(model, (x, y.tolist())) == expected
    assert zoo.evaluate(model, [keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)]) == expected
    with pytest.raises(ValueError, match="your data has label 11"):
        zoo.evaluate(model, (x, y + 2))
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"batch_size is an integer, 1 or more; received {size}"):
            zoo.evaluate(model, digits, batch_size=size)


def test_predictions_are_named():
    wine = zoo.load_dataset("wine")
    predictions = zoo.load_model("snn_mlp2.wine").predict(wine.x_test, verbose=0)
    named = zoo.decode_predictions(predictions, "snn_mlp2.wine", top=2)
    assert [row[0][0] for row in named] == [wine.class_names[label] for label in wine.y_test]  # its top-1 is 100 %
    assert all(len(row) == 2 and row[0][1] >= row[1][1] for row in named)
    assert [row[0][1] for row in named] == pytest.approx(predictions.max(axis=1).tolist(), abs=1e-6)
    for outputs, words in (
        (predictions / 2, "received rows of sums 0.5 to 0.5, numbers from"),
        (predictions[0], r"expected predictions of shape \(rows, classes\); received shape \(3,\)"),
        (np.full((2, 4), 0.25), "snn_mlp2.wine has 3 classes; received predictions of 4"),
    ):
        with pytest.raises(ValueError, match=words):
            zoo.decode_predictions(outputs, "snn_mlp2.wine")


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


def test_a_model_by_name_is_not_evaluated_on_another_split(tmp_path):
    folder = zoo.save_model(
        zoo.load_model("snn_mlp2.wine"), tmp_path / "mine", details={"data": {"name": "wine", "sha256": "0" * 64}}
    )
    with pytest.raises(ValueError, match="wine is not split as it was for mine"):
        zoo.evaluate(folder, "wine")
    assert zoo.evaluate(zoo.load_model(folder), "wine")["rows"] == 36  # of a model alone nothing is known
