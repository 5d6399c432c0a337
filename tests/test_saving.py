"""`zoo.save_model` and `python -m zoo predict` on ordinary Keras models that are not of this zoo."""

import json
import os
import pathlib

import keras
import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

import zoo
import zoo.__main__
from zoo.deploy import deploy
from zoo.prediction import predict_files
from zoo.saving import golden_inputs


def dense(inputs, *layers, name="net"):
    outputs = inputs
    for layer in (*layers, keras.layers.Dense(3, name="classifier")):
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def convolutional(size, channels):
    layers = (keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D(name="pool"))
    return dense(keras.Input((size, size, channels)), *layers)


def of_codes(dtype="int32", length=5):
    layers = (keras.layers.Embedding(7, 4, name="embedding"), keras.layers.GlobalAveragePooling1D(name="mean"))
    return dense(keras.Input((length,), dtype=dtype), *layers)


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def two_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], keras.layers.Add()([a, b]), name="net")


def two_outputs():
    inputs = keras.Input((2,))
    return keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)], name="net")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="net")
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 2), "float32"))
    return model


def image(folder, name, size, mode="RGB"):
    channels = 3 if mode == "RGB" else 1
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), "uint8")
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(folder / name)
    return folder / name


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: convolutional(None, 3), id="images of any size"),
        pytest.param(lambda: convolutional(28, 1), id="grey images"),
        pytest.param(of_codes, id="codes"),
        pytest.param(lambda: of_codes("float32"), id="codes as floats"),
        pytest.param(lambda: of_codes("uint8", None), id="codes of any length"),
        pytest.param(lambda: dense(keras.Input((4,), batch_size=8)), id="a fixed batch"),
        pytest.param(lambda: dense(keras.Input((4, 2)), keras.layers.Flatten()), id="rows of rows"),
        pytest.param(
            lambda: dense(keras.Input((4,)), keras.layers.Dense(6), keras.layers.Normalization()), id="inside"
        ),
        pytest.param(lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="net"), id="sequential"),
        pytest.param(lambda: dense({"x": keras.Input((4,), name="x")}["x"]), id="a name"),
    ],
)
def test_an_ordinary_model_is_saved_and_gives_its_golden_outputs_again(tmp_path, monkeypatch, capsys, model):
    model = model()
    folder = zoo.save_model(model, tmp_path / "net")
    again = zoo.load_model(folder, compile=False)
    golden = np.load(folder / "golden.npz")
    assert golden["inputs"].shape[1:] == tuple(size or 32 for size in model.inputs[0].shape[1:])
    expected = np.asarray(model.predict_on_batch(golden["inputs"]))
    assert np.ptp(expected, axis=0).max() > 1e-6  # the inputs differ, and are such as matter
    np.testing.assert_allclose(golden["outputs"], expected, atol=1e-5)
    np.testing.assert_allclose(np.asarray(again.predict_on_batch(golden["inputs"])), expected, atol=1e-5)
    monkeypatch.chdir(tmp_path)
    if model.inputs[0].shape[0] is None:  # the card's snippet takes two rows
        exec(ModelCard.load(folder / "README.md").text.split("```python\n")[1].split("```")[0], {})
        assert capsys.readouterr().out.splitlines()[-1] == "(2, 3)"


def test_golden_inputs_of_an_embedding_are_codes_that_it_knows():
    for model in (of_codes(), of_codes("float32"), of_codes("uint8", None)):
        inputs = golden_inputs(model)
        assert inputs.dtype == model.inputs[0].dtype
        assert set(np.unique(inputs)) == set(range(7))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (two_inputs, "has 2 inputs and 1 outputs, expected one of each"),
        (two_outputs, "has 1 inputs and 2 outputs, expected one of each"),
        (subclassed, "is a Subclassed without a graph"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), "is a Sequential without a graph"),
        (lambda: keras.layers.Dense(2), "expected a keras.Model to save, received Dense"),
        (lambda: dense(keras.Input((None, 2)), keras.layers.Reshape((5, 4))), "does not run on inputs of shape .32, 2"),
        (
            lambda: dense(keras.Input((2,)), keras.layers.Lambda(lambda x: 2 * x, output_shape=(2,))),
            "net could not be loaded again: config.json holds a Lambda",
        ),
        (
            lambda: dense(keras.Input((2,)), Unregistered()),
            "names the class 'Unregistered' of test_saving",
        ),
    ],
)
def test_what_cannot_be_saved_is_one_line_and_leaves_nothing(tmp_path, model, words):
    model = model()
    with pytest.raises(ValueError, match=words) as error:
        zoo.save_model(model, tmp_path / "deep" / "net")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_lora_is_saved_with_its_kernels_merged(tmp_path):
    model = zoo.load_model("snn_mlp4.digits")
    model.get_layer("classifier").enable_lora(2)
    digits = zoo.load_dataset("digits")
    model.fit(digits.x_train[:64], digits.y_train[:64], verbose=0)
    again = zoo.load_model(zoo.save_model(model, tmp_path / "net"))
    expected = model.predict(digits.x_test, verbose=0)
    np.testing.assert_allclose(again.predict(digits.x_test, verbose=0), expected, atol=1e-6)
    assert np.abs(zoo.load_model("snn_mlp4.digits").predict(digits.x_test, verbose=0) - expected).max() > 1e-4
    assert len(again.weights) == len(model.weights) - 2


def test_the_way_out_for_several_inputs_is_one(tmp_path):
    model = two_inputs()
    model.save(tmp_path / "net", zipped=False)
    again = zoo.load_model(tmp_path / "net", compile=False)
    x = np.ones((3, 2), "float32")
    np.testing.assert_array_equal(again.predict([x, x], verbose=0), 2 * x)


def test_details_that_do_not_fit_are_not_saved(tmp_path):
    model = dense(keras.Input((4,)))
    for details, words in (
        ({"class_names": ["a"]}, "details: class_names has 1 names, but net has 3 outputs"),
        ({"feature_names": ["a"]}, "details: feature_names has 1 columns"),
    ):
        with pytest.raises(ValueError, match=words):
            zoo.save_model(model, tmp_path / "net", details=details)
    assert list(tmp_path.iterdir()) == []


def test_details_of_numpy_are_kept_as_pythons(tmp_path):
    labels = np.array([3, 7, 11])
    details = {"class_names": np.unique(labels), "results": {"top1": np.float32(0.5), "rows": np.int64(4)}}
    folder = zoo.save_model(dense(keras.Input((4,))), tmp_path / "net", details=details)
    kept = json.loads((folder / "recipe.json").read_text())
    assert kept == {"class_names": [3, 7, 11], "results": {"top1": 0.5, "rows": 4}}
    assert "Top-1 accuracy 50.00 % on 4 held-out rows" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="what JSON cannot .a PosixPath.; give texts, numbers"):
        zoo.save_model(dense(keras.Input((4,))), tmp_path / "other", details={"results": {"from": tmp_path}})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("results", [{"top1": 0.93}, {"top1": 0.93, "top1_by_seed": [0.93, 0.91]}])
def test_figures_without_rows_and_seeds_go_to_the_card(tmp_path, results):
    details = {"results": results, "data": {"name": "mine"}, "recipe": {"rate": 0.1}}
    folder = zoo.save_model(dense(keras.Input((4,))), tmp_path / "net", details=details)
    card = ModelCard.load(folder / "README.md")
    assert "Top-1 accuracy 93.00 % on held-out rows" in card.text
    assert [(found.metric_name, found.metric_value) for found in card.data.eval_results] == [
        ("Top-1", 0.93),
        *([("Top-1, mean of 2 seeds", pytest.approx(0.92))] if "top1_by_seed" in results else ()),
    ]


def test_outputs_in_bfloat16_are_kept_in_a_file_that_numpy_reads(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = dense(keras.Input((4,)), keras.layers.Dense(6))
    folder = zoo.save_model(model, tmp_path / "net")
    golden = np.load(folder / "golden.npz")
    assert golden["outputs"].dtype == "float32"
    kernels = [np.asarray(value, "float64") for value in model.get_weights()]
    expected = (golden["inputs"] @ kernels[0] + kernels[1]) @ kernels[2] + kernels[3]
    np.testing.assert_allclose(golden["outputs"], expected, atol=0.05)


def test_a_file_is_never_replaced(tmp_path):
    model = dense(keras.Input((4,)))
    image(tmp_path, "a.png", (3, 3))
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(FileExistsError, match="is a file, which is never replaced"):
        zoo.save_model(model, tmp_path / "a.png", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == before


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    model, folder = dense(keras.Input((4,))), tmp_path / "photos"
    folder.mkdir()
    image(folder, "a.png", (3, 3))
    with pytest.raises(FileExistsError, match="holds something else than a model, which is never replaced"):
        zoo.save_model(model, folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    (folder / "config.json").write_text("{}")  # a common name
    with pytest.raises(FileExistsError, match="holds something else than a model, which is never replaced"):
        zoo.save_model(model, folder, overwrite=True)
    for path in folder.iterdir():
        path.unlink()
    for _ in range(2):  # into an empty one, and in place of a model
        assert zoo.load_model(zoo.save_model(model, folder, overwrite=True)).input_shape == (None, 4)


def test_images_of_any_size_are_predicted_in_their_own(tmp_path):
    model = convolutional(None, 3)
    folder = zoo.save_model(model, tmp_path / "net", details={"class_names": ["a", "b", "c"]})
    files = [image(tmp_path, "1.png", (20, 30)), image(tmp_path, "2.png", (9, 40)), image(tmp_path, "3.png", (9, 40))]
    rows = predict_files(folder, files)
    for file, row in zip(files, rows, strict=True):
        logits = np.asarray(model.predict_on_batch(np.asarray(Image.open(file))[None]))[0].astype("float64")
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        found = dict(row["top5"])
        np.testing.assert_allclose([found[name] for name in "abc"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="net does not run on inputs of shape .2, 2, 3.: ") as error:
        predict_files(folder, [image(tmp_path, "small.png", (2, 2))])
    assert "\n" not in str(error.value)


def test_grey_images_are_read_as_grey(tmp_path):
    model = convolutional(28, 1)
    folder = zoo.save_model(model, tmp_path / "net")
    grey = image(tmp_path, "grey.png", (28, 28), "L")
    row = predict_files(folder, [grey])[0]
    logits = np.asarray(model.predict_on_batch(np.asarray(Image.open(grey))[None, ..., None]))[0].astype("float64")
    assert row["top5"][0][0] == str(logits.argmax())
    colour = image(tmp_path, "colour.png", (50, 60))
    expected = Image.open(colour).convert("L").resize((28, 28), Image.Resampling.BICUBIC)
    expected.save(tmp_path / "same.png")
    assert predict_files(folder, [colour])[0]["top5"] == predict_files(folder, [tmp_path / "same.png"])[0]["top5"]


def test_one_output_is_a_number_or_the_probability_of_the_second_class(tmp_path):
    inputs = keras.Input((2,))
    sigmoid = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="classifier")(inputs), name="net")
    (tmp_path / "x.csv").write_text("a,b\n0.5,-2\n")
    p = float(np.asarray(sigmoid.predict_on_batch(np.array([[0.5, -2]], "float32")))[0, 0])
    names = ["a", "b"]
    two = zoo.save_model(sigmoid, tmp_path / "two", details={"class_names": ["no", "yes"], "feature_names": names})
    row = predict_files(two, [tmp_path / "x.csv"])[0]
    assert dict(row["top5"]) == pytest.approx({"yes": p, "no": 1 - p}, abs=1e-5)
    number = zoo.save_model(sigmoid, tmp_path / "number", details={"feature_names": names})
    assert predict_files(number, [tmp_path / "x.csv"])[0]["value"] == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (two_inputs, "has 2 inputs and 1 outputs, expected one of each"),
        (two_outputs, "has 1 inputs and 2 outputs, expected one of each"),
        (lambda: dense(keras.Input((4, 2)), keras.layers.Flatten()), "takes inputs of shape (4, 2) and dtype float32"),
        (lambda: dense(keras.Input((4, 2))), "gives outputs of shape (4, 3), expected one number a class"),
        (lambda: convolutional(8, 2), "takes inputs of shape (8, 8, 2) and dtype float32, expected images"),
        (lambda: of_codes(length=None), "takes inputs of shape (None,) and dtype int32"),
    ],
)
def test_what_files_cannot_be_for_is_one_line(tmp_path, capsys, model, words):
    model().save(tmp_path / "net", zipped=False)
    (tmp_path / "x.png").touch()
    assert zoo.__main__.main(["predict", str(tmp_path / "net"), str(tmp_path / "x.png")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]


def test_codes_are_read_from_a_csv(tmp_path, capsys):
    folder = zoo.save_model(of_codes(), tmp_path / "net", details={"feature_names": list("abcde")})
    (tmp_path / "x.csv").write_text("a,b,c,d,e\n0,1,2,3,6\n")
    assert zoo.__main__.main(["predict", str(folder), str(tmp_path / "x.csv"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["top5"]) == 3


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    folder = zoo.save_model(model, tmp_path / "mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    replace = os.replace

    def refused(source, target):
        if pathlib.Path(target) == folder and ".old." not in str(source):
            raise PermissionError(f"{target} may not be written")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        zoo.save_model(model, folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_the_card_says_what_reads_the_folder_and_what_it_knows(tmp_path):
    network = zoo.create_model("mpelu_resnet20", depth=8, input_shape=(8, 8, 3), num_classes=2)
    card = (zoo.save_model(network, tmp_path / "plain") / "README.md").read_text()
    assert "`import keras_mpelu`" in card and "the classes above" not in card  # it has none
    deployed = deploy(network)
    card = (zoo.save_model(deployed, tmp_path / "deployed", {"class_names": ["a", "b"]}) / "README.md").read_text()
    assert "`import zoo.deploy`" in card and "the classes above" in card


def test_a_rescaled_classifier_gets_a_new_head(tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Rescaling(0.5)(keras.layers.Dense(3, name="classifier")(inputs))  # by a temperature of 2
    folder = zoo.save_model(keras.Model(inputs, outputs, name="net"), tmp_path / "net")
    model = zoo.load_model(folder, num_classes=5)
    assert model.output_shape == (None, 5) and "sparse_categorical" in str(model.get_compile_config()).lower()


def test_an_activation_that_no_layer_has_is_not_replaced(tmp_path):
    inputs = keras.Input((2,))
    outputs = keras.layers.UnitNormalization(name="units")(keras.layers.Dense(1, name="classifier")(inputs))
    folder = zoo.save_model(keras.Model(inputs, outputs, name="of_numbers"), tmp_path / "net")
    with pytest.raises(
        ValueError, match="ends in a UnitNormalization layer 'units', which has no activation to replace"
    ):
        zoo.load_model(folder, classifier_activation=None)
