"""Every bundled model loads, agrees with its golden outputs and its card, and a damaged one is refused."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import zoo
from training.folder_files import safetensors_bytes
from zoo import datasets
from zoo.evaluation import log_probabilities
from zoo.folders import check_folder
from zoo.folders import find_folder
from zoo.folders import sha256
from zoo.hub import SUMS
from zoo.hub import read_sums
from zoo.inference import predict
from zoo.prediction import predict_files
from zoo.registry import BUNDLED
from zoo.registry import published_weights

BUNDLED_MODELS = zoo.list_models(pretrained=True)
# The folders of the UCI tasks were made in one way: what costs seconds is done for one of them.
SAMPLE = [name for name in BUNDLED_MODELS if ".uci-" not in name] + [n for n in BUNDLED_MODELS if ".uci-" in n][:1]
SMALL = "snn_mlp2.wine"
IMAGES = "mpelu_resnet20.cifar100"
FILES = {
    "README.md",
    "SHA256SUMS",
    "config.json",
    "curves.png",
    "golden.npz",
    "history.csv",
    "metadata.json",
    "model.weights.h5",
    "recipe.json",
    "test_logits.npz",
}


def test_there_are_bundled_models():
    assert {IMAGES, SMALL, "snn_mlp4.digits", "snn_mlp4.breast_cancer"} <= set(BUNDLED_MODELS)


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_the_folder_is_complete_and_its_sums_are_pinned(name):
    folder, pin = find_folder(name)
    present = {path.name for path in folder.iterdir()}
    assert present == FILES
    assert sha256(folder / SUMS) == pin == published_weights()[name]
    listed = {line.split("  ")[1] for line in (folder / SUMS).read_text().splitlines()}
    assert listed == present - {SUMS} | {"model.safetensors"}  # which is made when the folder is published
    check_folder(folder, pin)


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_golden_outputs(name):
    golden = np.load(find_folder(name)[0] / "golden.npz")
    model = zoo.load_model(name)
    outputs = model.predict(golden["inputs"], verbose=0)
    np.testing.assert_allclose(outputs, golden["outputs"], atol=1e-4)
    # What publishing makes of them is the file that was there when the sums were made.
    made = hashlib.sha256(safetensors_bytes(model)).hexdigest()
    assert made == read_sums(find_folder(name)[0] / SUMS)["model.safetensors"].digest
    if ".uci-" in name:  # a network that may be all but certain of one class: in logarithms
        golden = {"outputs": np.log(golden["outputs"] + 1e-30)}
    assert np.ptp(golden["outputs"], axis=0).max() > 0.01  # they depend on the input


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_the_card_gives_what_evaluate_measures(name, request):
    details = json.loads((find_folder(name)[0] / "recipe.json").read_text())
    results = details["results"]
    if keras.backend.backend() != "tensorflow" and name not in SAMPLE:
        pytest.skip("the golden outputs stand for the other backends")
    given = [] if results["dataset"] in datasets.SCIKIT_LEARN else [request.getfixturevalue("data_dir")]
    dataset = zoo.load_dataset(results["dataset"], *given)
    assert dataset.sha256 == details["data"]["sha256"]
    if given and keras.backend.backend() != "tensorflow":
        # All test rows on one backend, the one that is fastest here; the logits of some on the others.
        logits = np.load(find_folder(name)[0] / "test_logits.npz")["logits"][:500].astype("float32")
        # In batches of one size, so that one is compiled.
        probabilities = predict(zoo.load_model(name), dataset.x_test[:500], batch_size=100)
        np.testing.assert_allclose(probabilities, np.exp(log_probabilities(logits, are_probabilities=False)), atol=5e-3)
        return
    figures = zoo.evaluate(name, dataset)
    assert abs(figures["top1"] - results["top1"]) * 100 <= 0.01
    assert figures["loss"] == pytest.approx(results["loss"], abs=1e-3)
    assert figures["top5"] == pytest.approx(results["top5"], abs=5e-4)
    assert figures["ece"] == pytest.approx(results["ece"], abs=2e-3)
    if "top1_by_superclass" in results:
        assert np.mean(list(results["top1_by_superclass"].values())) == pytest.approx(results["top1"], abs=1e-9)
    assert f"{100 * results['top1']:.2f} %" in (find_folder(name)[0] / "README.md").read_text()


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_the_card_has_a_model_index_that_reads_back(name):
    from huggingface_hub import ModelCard

    card = ModelCard.load(find_folder(name)[0] / "README.md")
    result = card.data.eval_results[0]
    assert result.metric_value == zoo.model_info(name)["top1"]
    assert card.data.license == "apache-2.0"
    assert f'zoo.load_model("{name}")' in card.text


@pytest.mark.parametrize("name", SAMPLE)
def test_plain_keras_loads_the_folder(name):
    model = keras.saving.load_model(find_folder(name)[0])
    assert model.count_params() == zoo.load_model(name).count_params()


@pytest.mark.parametrize("name", [SMALL, IMAGES])
def test_a_loaded_model_is_ready_for_fit_and_evaluate(name):
    model = zoo.load_model(name)
    x = np.zeros((8, *model.input_shape[1:]), "float32")
    history = model.fit(x, np.zeros(8), epochs=1, verbose=0).history
    assert set(history) == {"accuracy", "loss"}
    assert not zoo.load_model(name, compile=False).compiled


@pytest.mark.parametrize("name", [SMALL, IMAGES])
def test_another_number_of_classes_swaps_the_head_and_says_so(name, capsys):
    own = zoo.load_model(name)
    model = zoo.load_model(name, num_classes=7)
    said = capsys.readouterr().err
    assert model.output_shape == (None, 7)
    assert "classifier/kernel" in said and "classifier/bias" in said and "7 classes" in said
    kept = {weight.path: np.asarray(value) for weight, value in zip(own.weights, own.get_weights(), strict=True)}
    for weight, value in zip(model.weights, model.get_weights(), strict=True):
        if not weight.path.startswith("classifier"):
            np.testing.assert_array_equal(value, kept[weight.path])


def test_the_same_number_of_classes_keeps_the_head(capsys):
    own = zoo.load_model(SMALL)
    again = zoo.load_model(SMALL, num_classes=3)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(again.get_weights()[-2], own.get_weights()[-2])


@pytest.mark.parametrize("name", [SMALL, IMAGES])
def test_features_feed_the_classifier(name):
    model = zoo.load_model(name, classifier_activation=None)
    features = zoo.load_model(name, features=True)
    x = np.load(find_folder(name)[0] / "golden.npz")["inputs"]
    kernel, bias = (np.asarray(weight) for weight in model.get_layer("classifier").get_weights())
    expected = features.predict(x, verbose=0) @ kernel + bias
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)


def test_a_folder_of_ones_own_keeps_its_head(tmp_path):
    features = zoo.load_model(SMALL, features=True)
    sigmoid = keras.Model(features.input, keras.layers.Dense(1, "sigmoid")(features.output))
    x = np.load(find_folder(SMALL)[0] / "golden.npz")["inputs"]
    for number, model in enumerate((sigmoid, features)):  # the second does not end in a classifier at all
        folder = zoo.save_model(model, tmp_path / str(number))
        again = zoo.load_model(folder, compile=False)
        np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    with pytest.raises(ValueError, match="not in a Dense classifier"):
        zoo.load_model(tmp_path / "1", num_classes=3)


def test_softmax_is_the_default_and_logits_are_one_argument_away():
    x = np.load(find_folder(SMALL)[0] / "golden.npz")["inputs"]
    logits = zoo.load_model(SMALL, classifier_activation=None).predict(x, verbose=0)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(zoo.load_model(SMALL).predict(x, verbose=0), probabilities, atol=1e-5)


def test_depth_1001_saves_and_loads(tmp_path):
    model = zoo.create_model("mpelu_nopre_resnet164", depth=344)  # over Keras's own limit of some 1,000 calls
    folder = zoo.save_model(model, tmp_path / "deep")
    again = zoo.load_model(folder, num_classes=3)
    assert len(again.weights) == len(model.weights)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The package's weights in a folder that a test may spoil."""
    shutil.copytree(BUNDLED / SMALL, tmp_path / "weights" / SMALL)
    monkeypatch.setattr("zoo.folders.BUNDLED", tmp_path / "weights")
    return tmp_path / "weights" / SMALL


@pytest.mark.parametrize("file", ["model.weights.h5", "config.json", "recipe.json", SUMS])
def test_an_altered_file_is_refused(copy, file):
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(ValueError, match="expected .*reinstall keras-mpelu"):
        zoo.load_model(SMALL)


@pytest.mark.parametrize("file", ["model.weights.h5", "config.json"])
def test_a_truncated_or_missing_file_is_refused(copy, file):
    path = copy / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{file} is damaged or altered"):
        zoo.load_model(SMALL)
    path.unlink()
    with pytest.raises(ValueError, match=f"has no {file}"):
        zoo.load_model(SMALL)


def test_sums_rewritten_for_altered_weights_are_refused(copy):
    (copy / "model.weights.h5").write_bytes(b"other weights")
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(copy.iterdir()) if path.name != SUMS]
    (copy / SUMS).write_text("".join(lines))
    with pytest.raises(ValueError, match="not the published one"):
        zoo.load_model(SMALL)


def test_a_folder_of_ones_own_with_a_broken_h5_is_one_clear_error(tmp_path):
    folder = zoo.save_model(zoo.create_model("snn_mlp2", width=4), tmp_path / "mine")
    (folder / SUMS).unlink()
    (folder / "model.weights.h5").write_bytes(b"not an h5 file")
    with pytest.raises(ValueError, match="is not a model that Keras") as error:
        zoo.load_model(folder)
    assert "\n" not in str(error.value)


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    model = zoo.create_model("snn_mlp2", width=4)
    monkeypatch.setattr("zoo.saving.write_sums", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        zoo.save_model(model, tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(tmp_path):
    model = zoo.create_model("snn_mlp2", width=4)
    zoo.save_model(model, tmp_path / "mine")
    with pytest.raises(FileExistsError, match="give another folder"):
        zoo.save_model(model, tmp_path / "mine")
    zoo.save_model(model, tmp_path / "mine", overwrite=True)


def test_a_custom_optimizer_does_not_travel_with_the_folder(tmp_path):
    from training import CoupledSGD

    model = zoo.create_model("snn_mlp2", width=4)
    model.compile(CoupledSGD(), "sparse_categorical_crossentropy")
    folder = zoo.save_model(model, tmp_path / "mine")
    assert "CoupledSGD" not in (folder / "config.json").read_text()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("mpelu_resnet20.cifar10", ValueError, "close: mpelu_resnet20.cifar100"),
        ("mpelu_resnet20", ValueError, "is an architecture; with pretrained weights: mpelu_resnet20.cifar100, "),
        ("/no/such/folder", FileNotFoundError, "no folder '/no/such/folder'"),
        ("", ValueError, "the name is empty"),
        ("x" * 5000, ValueError, "unknown pretrained model 'xxxx"),
        ("x/" * 2500, FileNotFoundError, "no folder 'x/x/"),
        ("hf://" + "x" * 5000, ValueError, "'hf://xxx.* is no address on the Hub"),
    ],
)
def test_unknown_names(name, error, words):
    with pytest.raises(error, match=words) as raised:
        zoo.load_model(name)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("options", [{"num_classes": 3}, {"classifier_activation": None}])
def test_features_have_no_classifier(options):
    with pytest.raises(ValueError, match="features=True leaves the classifier out"):
        zoo.load_model(SMALL, features=True, **options)


def test_a_folder_has_no_revision():
    with pytest.raises(ValueError, match="revision 'v1' is of a repository on the Hub"):
        zoo.load_model(BUNDLED / SMALL, revision="v1")


def test_a_path_is_evaluated_as_its_text_is():
    assert zoo.evaluate(BUNDLED / SMALL, "wine") == zoo.evaluate(str(BUNDLED / SMALL), "wine")


def test_a_path_is_a_folder_also_where_it_is_called_like_a_published_model(tmp_path, monkeypatch):
    """pathlib makes of "./name" a "name", and `save_model` returns such a path."""
    monkeypatch.chdir(tmp_path)
    own = zoo.load_model(SMALL, num_classes=5)
    x = np.load(find_folder(SMALL)[0] / "golden.npz")["inputs"]
    again = zoo.load_model(zoo.save_model(own, SMALL))
    np.testing.assert_allclose(again.predict(x, verbose=0), own.predict(x, verbose=0), atol=1e-6)
    assert zoo.load_model(SMALL).output_shape == (None, 3)
    with pytest.raises(FileNotFoundError, match="no folder 'snn_mlp4.digits'; give an existing folder"):
        zoo.load_model(pathlib.Path("snn_mlp4.digits"))


@pytest.mark.parametrize("num_classes", [0, -1, 2.5, "ten", True])
def test_a_senseless_number_of_classes_is_refused(num_classes):
    with pytest.raises(ValueError, match="num_classes is an integer, 1 or more"):
        zoo.load_model(SMALL, num_classes=num_classes)


@pytest.mark.parametrize("very_deep", [1, 1000])
def test_outputs_of_no_rows_are_refused(very_deep, monkeypatch):
    monkeypatch.setattr("zoo.inference.VERY_DEEP", very_deep)
    with pytest.raises(ValueError, match=r"of shape \(0, 13\), expected one row or more"):
        predict(zoo.load_model(SMALL, compile=False), np.zeros((0, 13), "float32"))


def test_no_files_have_no_predictions():
    assert predict_files(SMALL, []) == []


def test_no_network_is_one_clear_error(tmp_path):
    code = (
        "import zoo, sys\ntry: zoo.load_model('snn_mlp2.wine', revision='main')\nexcept OSError as error: print(error)"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    message = "cannot fetch SHA256SUMS of keras-mpelu/snn_mlp2.wine from the Hub at http://127.0.0.1:9: "
    assert result.stdout.startswith(message) and result.stdout.count("cannot fetch") == 1, result.stderr
    assert len(result.stdout.strip().splitlines()) == 1


def test_all_tracked_files_stay_under_40_mb():
    root = pathlib.Path(__file__).parent.parent
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert sum((root / file).stat().st_size for file in listed.stdout.split("\0") if file) < 40e6
