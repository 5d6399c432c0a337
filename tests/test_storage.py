"""Kernels in float16 where that loses nothing, and folders that are rounded to it."""

import io
import json
import pathlib
import shutil

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import zoo
from keras_mpelu import MPELU
from training.__main__ import main
from training.card import rewrite
from training.compact import compact
from training.compact import round_kernels
from training.folder_files import logits_npz
from training.folder_files import npz_bytes
from training.publishing import check_publishable
from zoo.evaluation import log_probabilities
from zoo.folders import sha256
from zoo.folders import write_sums
from zoo.hub import SUMS
from zoo.pretrained import load_folder
from zoo.registry import BUNDLED

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = "snn_mlp2.wine"


def network(variance=1e6):
    """Convolution, batch norm with variances that float16 does not hold, MPELU, classifier."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(MPELU(name="mpelu")(x))
    model = keras.Model(inputs, keras.layers.Dense(4, "softmax", name="classifier")(x))
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.1, 1, weight.shape).astype("float32") for weight in model.weights])
    model.get_layer("norm").gamma.assign(np.full(5, 0.5, "float32"))  # a vector that float16 holds
    model.get_layer("norm").moving_variance.assign(np.full(5, variance, "float32"))
    return model


def halved(model):
    """NumPy's own rounding, of kernels only."""
    model.set_weights([v.astype("float16").astype("float32") if v.ndim > 1 else v for v in model.get_weights()])
    return model


def arrays(folder):
    """What h5py itself finds in the weights file, by shape and value."""
    found = []
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize("load", [lambda folder: zoo.load_model(folder, compile=False), keras.saving.load_model])
@pytest.mark.parametrize("exact", [True, False])
def test_kernels_that_float16_holds_are_stored_so_and_read_as_they_were(tmp_path, load, exact):
    model = halved(network()) if exact else network()
    folder = zoo.save_model(model, tmp_path / "model")
    stored = arrays(folder)
    assert len(stored) == len(model.weights)
    assert {array.dtype for array in stored if array.ndim > 1} == {np.dtype("float16" if exact else "float32")}
    assert {array.dtype for array in stored if array.ndim == 1} == {np.dtype("float32")}
    again = load(folder)
    for weight, value in zip(again.weights, model.get_weights(), strict=True):
        assert keras.backend.standardize_dtype(weight.dtype) == "float32"
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    with np.load(folder / "golden.npz") as golden:
        np.testing.assert_allclose(again.predict(golden["inputs"], verbose=0), golden["outputs"], atol=1e-6)


def test_a_loaded_model_is_saved_as_compactly_and_a_fine_tuned_one_in_float32(tmp_path):
    first = zoo.save_model(halved(network()), tmp_path / "first")
    model = zoo.load_model(first)
    again = zoo.save_model(model, tmp_path / "again")
    assert [array.dtype for array in arrays(again)] == [array.dtype for array in arrays(first)]
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 8), verbose=0)
    tuned = zoo.save_model(model, tmp_path / "tuned")
    assert {array.dtype for array in arrays(tuned)} == {np.dtype("float32")}
    for weight, value in zip(zoo.load_model(tuned).weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_other_types_stay_what_they_are(tmp_path, dtype):
    keras.config.set_dtype_policy(dtype)
    model = halved(network(variance=2))
    folder = zoo.save_model(model, tmp_path / "model")
    keras.config.set_dtype_policy("float32")
    for weight, wanted in zip(zoo.load_model(folder, compile=False).weights, model.weights, strict=True):
        assert keras.backend.standardize_dtype(weight.dtype) == keras.backend.standardize_dtype(wanted.dtype)
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32")),
            keras.ops.convert_to_numpy(keras.ops.cast(wanted, "float32")),
        )


def names(folder):
    """The groups of the weights file with their attributes, and the paths of its arrays."""
    found = {}
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: dict(item.attrs)}))
    return found


def test_the_file_is_built_as_that_of_keras(tmp_path):
    model = halved(network())
    (tmp_path / "keras").mkdir()
    model.save(tmp_path / "keras", zipped=False)
    wanted = names(tmp_path / "keras")
    assert {"name": "conv"} in wanted.values()
    assert names(zoo.save_model(model, tmp_path / "ours")) == wanted


@pytest.fixture
def folder(tmp_path):
    folder = pathlib.Path(shutil.copytree(BUNDLED / SMALL, tmp_path / SMALL))
    rewrite(folder)  # with model.safetensors, which the package leaves out
    return folder


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sizes(folder):
    return {name: (folder / name).stat().st_size for name in ("model.weights.h5", "model.safetensors")}


def change(folder, alter):
    """The folder with other weights, its sums made anew."""
    model = load_folder(folder, compile=False)
    alter(model)
    details = json.loads((folder / "recipe.json").read_text())
    kept = {name: (folder / name).read_bytes() for name in ("history.csv", "curves.png", "model.safetensors")}
    zoo.save_model(model, folder, details, (folder / "README.md").read_text(), kept, overwrite=True)


def test_a_compact_folder_has_half_the_weights_is_as_good_and_may_be_published(folder, capsys):
    before, weights = sizes(folder), zoo.load_model(folder, compile=False).get_weights()
    main(["compact", str(folder)])
    pin = sha256(folder / SUMS)
    assert f'pin: "{SMALL}": "{pin}",' in capsys.readouterr().out
    after = sizes(folder)
    assert after["model.weights.h5"] < 0.65 * before["model.weights.h5"]
    assert after["model.safetensors"] < 0.65 * before["model.safetensors"]
    rounded = zoo.load_model(folder, compile=False)
    tensors = load_file(folder / "model.safetensors")
    for weight, value in zip(rounded.weights, weights, strict=True):
        wanted = value.astype("float16") if value.ndim > 1 else value
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), wanted)
        np.testing.assert_array_equal(tensors[weight.path], wanted)
        assert tensors[weight.path].dtype == wanted.dtype
    results = json.loads((folder / "recipe.json").read_text())["results"]
    figures = zoo.evaluate(rounded, "wine")
    assert results["top1_in_float32"] == results["top1"] == figures["top1"]
    assert results["loss"] == pytest.approx(figures["loss"], abs=1e-6)
    assert any("measured again" in line for line in check_publishable(SMALL, folder, None))
    card = (folder / "README.md").read_text()
    assert "read before and after rounding" in card and f"top-1 was {100 * figures['top1']:.2f} % before" in card


def test_what_is_compact_stays_as_it_is(folder):
    compact(folder)
    before, stored = bytes_of(folder), arrays(folder)
    compact(folder)
    after = bytes_of(folder)
    for name in ("README.md", "recipe.json", "model.safetensors", "history.csv", "curves.png"):
        assert after[name] == before[name], name  # the others hold times and numbers of objects
    for array, wanted in zip(arrays(folder), stored, strict=True):
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)


def tiny(model):
    """A classifier that is as right as before in float32, and whose kernel is 0 in float16."""
    for weight in model.get_layer("classifier").weights:
        weight.assign(weight * 1e-12)


def test_a_folder_that_would_lose_accuracy_stays_whole(folder):
    change(folder, tiny)
    before = bytes_of(folder)
    with pytest.raises(ValueError, match="would have .* in place of .*; it stays in float32, .* its pin is") as error:
        compact(folder)
    after = bytes_of(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert set(before) <= set(after) and changed <= {"README.md", "recipe.json", "model.safetensors", SUMS}
    assert str(error.value).endswith(sha256(folder / SUMS))
    # The test rows were read to see it, and the card says so.
    results = json.loads((folder / "recipe.json").read_text())["results"]
    loaded = zoo.load_model(folder, compile=False)
    round_kernels(loaded)
    assert results["top1_if_rounded"] == zoo.evaluate(loaded, "wine")["top1"] < results["top1"] - 0.1
    card = (folder / "README.md").read_text()
    assert f"top-1 would be {100 * results['top1_if_rounded']:.2f} %" in card and "before and after rounding" in card


def test_figures_are_those_of_the_rounded_weights_and_the_ones_before_are_kept(folder, monkeypatch):
    monkeypatch.setattr("training.compact.TOLERANCE", 2)
    change(folder, tiny)
    (folder / "notes.txt").write_text("kept")
    before = json.loads((folder / "recipe.json").read_text())["results"]["top1"]
    compact(folder)
    results = json.loads((folder / "recipe.json").read_text())["results"]
    after = zoo.evaluate(folder, "wine")["top1"]
    assert results["top1"] == results["top1_by_seed"][0] == after < before == results["top1_in_float32"]
    wanted = zoo.load_model(folder, compile=False).predict(zoo.load_dataset("wine").x_test, verbose=0)
    with np.load(folder / "test_logits.npz") as stored:
        np.testing.assert_allclose(np.exp(stored["logits"].astype("float32")), wanted, atol=1e-3)
    with np.load(BUNDLED / SMALL / "test_logits.npz") as old:
        assert np.abs(np.exp(log_probabilities(old["logits"], are_probabilities=False)) - wanted).max() > 0.1
    assert f"top-1 was {100 * before:.2f} % before" in (folder / "README.md").read_text()
    assert (folder / "notes.txt").read_text() == "kept"


def test_stored_logits_give_the_probabilities_in_less_room():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (200, 100)).astype("float32")
    logits[0] = [50] + 99 * [-1e4]  # of which the exponential is 0 in float64
    with np.load(io.BytesIO(logits_npz(logits))) as file:
        stored = file["logits"]
    assert stored.dtype == "float16" and np.isfinite(stored).all()
    exact = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    found = np.exp(stored.astype("float64"))
    np.testing.assert_allclose(found, exact, rtol=5e-3, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=2e-3)
    np.testing.assert_array_equal(found.argmax(axis=1), exact.argmax(axis=1))
    assert len(logits_npz(logits)) < 0.6 * len(npz_bytes(logits=logits.astype("float16")))


def test_values_beyond_float16_are_refused():
    model = network()
    model.get_layer("conv").kernel.assign(np.full((3, 3, 3, 5), 1e5, "float32"))
    with pytest.raises(ValueError, match="conv/kernel has values beyond 65,504"):
        round_kernels(model)


def test_a_card_that_is_not_true_is_refused(folder):
    details = json.loads((folder / "recipe.json").read_text())
    details["results"]["top1"] -= 0.1
    (folder / "recipe.json").write_text(json.dumps(details))
    write_sums(folder)
    with pytest.raises(ValueError, match="its card says"):
        compact(folder)


def test_a_folder_of_ones_own_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        compact(tmp_path / "none")
    own = zoo.save_model(network(), tmp_path / "own")
    with pytest.raises(ValueError, match="is not of `python -m training train`"):
        compact(own)
