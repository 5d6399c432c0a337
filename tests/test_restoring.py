"""Models read from folders by the short way are those that Keras reads."""

import concurrent.futures
import json
import pathlib
import re
import sys
import threading

import keras
import numpy as np
import pytest

import zoo
from keras_mpelu.deep_graphs import DEEPEST
from keras_mpelu.deep_graphs import deep_graphs
from zoo import inference
from zoo import safety
from zoo.registry import BUNDLED
from zoo.restoring import read_model

pytestmark = pytest.mark.usefixtures("quick_compilation")


def nopre():
    return zoo.create_model("mpelu_nopre_resnet164", depth=20, branch_end_norm=True)


def mixed():
    """Layers whose state Keras reads by methods of their own, and layers that share one's weights."""
    inputs = keras.Input((8, 8, 3))
    normalization = keras.layers.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (50, 8, 8, 3)))
    conv = keras.layers.SeparableConv2D(3, 3, padding="same")
    x = conv(conv(normalization(inputs)))
    x = keras.layers.PReLU(shared_axes=[1, 2])(keras.layers.LayerNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(4, "softmax")(keras.layers.Flatten()(x)))


def nested():
    inputs = keras.Input((5,))
    inner = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)], name="inner")
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(inner(inputs)))


def random_seeds():
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.Dropout(0.5, seed=3)(inputs)))


def with_trained_looks(model):
    """The model with weights that no initialiser draws."""
    rng = np.random.default_rng(7)
    model.set_weights([value + rng.uniform(0.1, 0.2, value.shape).astype(value.dtype) for value in model.get_weights()])
    return model


def refuse(*args, **kwargs):
    raise AssertionError("read by Keras")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("make", "short"), [(nopre, True), (mixed, True), (nested, False), (random_seeds, True)])
def test_a_model_is_the_one_that_keras_reads(tmp_path, monkeypatch, make, short, known):
    folder = zoo.save_model(with_trained_looks(make()), tmp_path / "model")
    wanted = keras.saving.load_model(folder, compile=False)
    with monkeypatch.context() as patch:
        if short:
            patch.setattr(keras.saving, "load_model", refuse)
        model = read_model(pathlib.Path(folder), known)
    assert_same(model, wanted)
    if make is random_seeds:  # the state of its random numbers, which is not stored
        (state,) = (np.asarray(v).tolist() for v in model.variables if v.name == "seed_generator_state")
        assert state == [3, 0]
        again = keras.ops.convert_to_numpy(model(np.ones((2, 5), "float32"), training=True))
        np.testing.assert_array_equal(
            again, keras.ops.convert_to_numpy(wanted(np.ones((2, 5), "float32"), training=True))
        )
    with np.load(folder / "golden.npz") as golden:
        np.testing.assert_array_equal(
            model.predict(golden["inputs"], verbose=0), wanted.predict(golden["inputs"], verbose=0)
        )


def assert_same(model, wanted):
    assert [variable.path for variable in model.weights] == [variable.path for variable in wanted.weights]
    assert [variable.trainable for variable in model.weights] == [variable.trainable for variable in wanted.weights]
    for variable, value, expected in zip(model.weights, model.get_weights(), wanted.get_weights(), strict=True):
        assert value.dtype == expected.dtype and np.array_equal(value, expected), variable.path
    configs = [json.dumps(_without_ids(each.get_config()), sort_keys=True) for each in (model, wanted)]
    assert configs[0] == configs[1]
    if keras.backend.backend() == "torch":
        # Keras numbers seed generators through the process.
        states = [
            {re.sub(r"seed_generator_\d+", "seed_generator", name): value.shape for name, value in state.items()}
            for state in (model.state_dict(), wanted.state_dict())
        ]
        assert states[0] == states[1]
        assert len(list(model.parameters())) == len(list(wanted.parameters()))


def _without_ids(value):
    """A config without the numbers that say which parts are one object in memory."""
    if isinstance(value, dict):
        return {key: _without_ids(item) for key, item in value.items() if key != "shared_object_id"}
    return [_without_ids(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", ["elu_resnet20.cifar100", "mpelu_resnet20.cifar100", "snn_mlp8.uci-car"])
def test_a_bundled_model_is_the_one_that_keras_reads(name):
    assert_same(read_model(BUNDLED / name, known=True), keras.saving.load_model(BUNDLED / name, compile=False))


def test_the_last_who_needs_it_restores_the_recursion_limit():
    """Threads load side by side: who leaves first must not take the limit from the others, nor leave theirs behind."""
    before = sys.getrecursionlimit()
    first, second = deep_graphs(), deep_graphs()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.getrecursionlimit() == DEEPEST
    second.__exit__(None, None, None)
    assert sys.getrecursionlimit() == before < DEEPEST


def test_a_model_by_the_short_way_trains_and_saves(tmp_path):
    model = zoo.load_model(zoo.save_model(nopre(), tmp_path / "model"))
    before = model.get_weights()
    x, y = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32"), np.arange(8)
    model.fit(x, y, batch_size=4, verbose=0)
    assert all(np.any(old != new) for old, new in zip(before, model.get_weights(), strict=True))
    again = zoo.load_model(zoo.save_model(model, tmp_path / "again"))
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with keras.StatelessScope():  # whose end gives values to all variables that wait for one
        pass


def test_a_remat_scope_holds_for_what_is_loaded_in_it(tmp_path):
    folder = zoo.save_model(nopre(), tmp_path / "model")
    with keras.RematScope(mode="list_of_layers", layer_names=["stem_conv"]):
        model = zoo.load_model(folder)
    assert {layer._remat_mode.mode for layer in model.layers} == {"list_of_layers"}
    assert {layer._remat_mode for layer in zoo.load_model(folder).layers} == {None}


def test_the_stack_of_other_threads_keeps_its_size(monkeypatch):
    """Two load at once: who ends last must not leave the size behind that the other had set."""
    both, made = threading.Barrier(2, timeout=60), safety._in_this_thread

    def at_once(*args):
        both.wait()
        return made(*args)

    monkeypatch.setattr(safety, "_in_this_thread", at_once)
    before = threading.stack_size()
    config = json.loads((BUNDLED / "snn_mlp2.wine" / "config.json").read_text())
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        models = list(pool.map(safety.model_without_values, [config, config]))
    assert [model.name for model in models] == ["snn_mlp2", "snn_mlp2"] and threading.stack_size() == before


def test_weights_of_another_model_are_keras_to_refuse(tmp_path):
    folder = zoo.save_model(zoo.create_model("snn_mlp2", width=4), tmp_path / "model")
    other = zoo.save_model(zoo.create_model("snn_mlp4", width=4), tmp_path / "other")
    (folder / "SHA256SUMS").unlink()
    (folder / "model.weights.h5").write_bytes((other / "model.weights.h5").read_bytes())
    with pytest.raises(ValueError, match="is not a model that Keras"):
        zoo.load_model(folder)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_single_batch_of_a_very_deep_model_runs_layer_by_layer(monkeypatch, rows):
    model = with_trained_looks(nopre())
    x = np.random.default_rng(0).integers(0, 256, (rows, 32, 32, 3)).astype("uint8")
    wanted = model.predict(x, verbose=0)
    monkeypatch.setattr(inference, "VERY_DEEP", 10)
    monkeypatch.setattr(model, "predict_on_batch", refuse)
    outputs = inference.predict(model, x)
    assert isinstance(outputs, np.ndarray)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-6)
