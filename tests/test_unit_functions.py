"""Units that share a function against the network layer by layer."""

import dataclasses
import signal

import keras
import numpy as np
import pytest

from zoo.registry import create_model

if keras.backend.backend() != "tensorflow":
    pytest.skip("training.unit_functions is for the TensorFlow backend", allow_module_level=True)

import tensorflow as tf

from training import get_recipe
from training import loop
from training import unit_functions
from training.fast_tensorflow import accelerate
from training.unit_functions import one_function_for_all_calls
from training.unit_functions import with_shared_units

function = unit_functions._function


def step(network, forward, x, upstream):
    """Outputs, gradients and moving statistics of a step that is compiled."""

    @tf.function
    def compiled():
        with tf.GradientTape() as tape:
            outputs = forward(x)
        return outputs, tape.gradient(outputs, [w.value for w in network.trainable_variables], upstream)

    outputs, gradients = compiled()
    others = {weight.path: weight.numpy() for weight in network.non_trainable_variables if weight.dtype == "float32"}
    gradients = dict(zip((w.path for w in network.trainable_variables), gradients, strict=True))
    return outputs.numpy(), gradients, others, compiled.get_concrete_function()


@pytest.mark.parametrize(
    "arch, depth, kinds", [("mpelu_nopre_resnet164", 38, 6), ("elu_resnet110", 26, 5), ("relu_preact_resnet164", 38, 6)]
)
def test_the_same_step(arch, depth, kinds):
    rng = np.random.default_rng(0)
    options = {"depth": depth, "num_classes": 5, "classifier_activation": None, "input_shape": (8, 8, 3)}
    networks = [accelerate(create_model(arch, **options)) for _ in range(2)]
    values = [w + rng.uniform(0.01, 0.1, w.shape).astype(w.dtype) for w in networks[0].get_weights()]
    for network in networks:
        network.set_weights(values)
    plain, shared = networks
    x = rng.integers(0, 256, (8, 8, 8, 3)).astype("float32")
    upstream = rng.standard_normal((8, 5)).astype("float32")
    expected = step(plain, lambda x: plain(x, training=True), x, upstream)
    with one_function_for_all_calls():
        actual = step(shared, with_shared_units(shared), x, upstream)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4, atol=1e-4)
    for name, (found, wanted) in {"gradient": (actual[1], expected[1]), "other": (actual[2], expected[2])}.items():
        assert found.keys() == wanted.keys()
        for path, value in wanted.items():
            scale = np.abs(value).max() + 1e-6
            np.testing.assert_allclose(found[path] / scale, value / scale, rtol=0, atol=1e-3, err_msg=f"{name} {path}")
    moved = [path for path in actual[2] if path.endswith("moving_mean")]
    start = dict(zip((w.path for w in shared.weights), values, strict=True))
    assert moved and not any(np.array_equal(actual[2][path], start[path]) for path in moved)
    # In each of the three stages the first unit is of its own kind if it has a shortcut, and the others are alike.
    calls = [node.attr["f"].func.name for node in actual[3].graph.as_graph_def().node if "Partitioned" in node.op]
    forward = [name for name in calls if "forward_function" in name]
    assert (len(forward), len(set(forward))) == (12, kinds)


def test_units_with_little_in_common_are_left_alone():
    """Stochastic depth drops each unit at another rate; a function each would be no gain."""
    options = {"depth": 38, "num_classes": 5, "input_shape": (8, 8, 3)}
    assert with_shared_units(create_model("mpelu_nopre_resnet164", **options))
    assert with_shared_units(create_model("mpelu_nopre_resnet164", stochastic_depth=0.1, **options)) is None


def test_units_that_are_no_chain_are_left_alone():
    inputs = keras.Input((4, 4, 2))
    x = inputs
    for number in range(1, 7):
        branch = keras.layers.Conv2D(2, 1, name=f"stage1_unit{number}_conv1")(x)
        x = keras.layers.Add(name=f"stage1_unit{number}_add")([branch, inputs])  # reaches past the unit before
    assert with_shared_units(keras.Model(inputs, x)) is None


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        self.step -= 1
        if self.step == 0:
            signal.raise_signal(signal.SIGINT)


def test_in_the_training_loop(tmp_path, monkeypatch):
    """The same weights as layer by layer, and exact resume."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (24, 32, 32, 3), "uint8"), rng.integers(0, 10, 24)
    recipe = dataclasses.replace(
        get_recipe("mpelu_nopre_resnet164"), epochs=2, batch_size=8, dtype="float32", overrides={"depth": 38}
    )
    plain = loop.fit(recipe, x, y, 10, tmp_path / "plain")
    monkeypatch.setattr(loop, "DEEP_UNITS", 12)
    made = []
    monkeypatch.setattr(unit_functions, "_function", lambda unit: made.append(unit) or function(unit))
    shared = loop.fit(recipe, x, y, 10, tmp_path / "shared")
    assert len(made) == 6
    for actual, expected in zip(shared.model.get_weights(), plain.model.get_weights(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
    with pytest.raises(loop.Interrupted):
        loop.fit(recipe, x, y, 10, tmp_path / "stopped", callbacks=[StopAt(3)])
    resumed = loop.fit(recipe, x, y, 10, tmp_path / "stopped")
    for actual, expected in zip(resumed.model.get_weights(), shared.model.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
