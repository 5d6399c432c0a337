"""Units that share a function against the network layer by layer."""

import dataclasses

import keras
import numpy as np
import pytest
from test_loop import StopAt

from training import get_recipe
from training import loop
from training.unit_functions import pieces
from zoo.registry import create_model

if keras.backend.backend() == "tensorflow":
    from training import unit_functions_tensorflow as functions
    from training.fast_tensorflow import accelerate
    from training.unit_functions_tensorflow import one_function_for_all_calls

    MAKE = "_function"  # what makes the function of a kind
elif keras.backend.backend() == "jax":
    from training import unit_functions_jax as functions

    MAKE = "_with_pullback"
else:
    pytest.skip("units share functions on TensorFlow and JAX", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def step(network, forward, x, upstream):
    """Outputs, gradients, moving statistics and the functions that are called, of a step on TensorFlow."""
    import tensorflow as tf

    @tf.function
    def compiled():
        with tf.GradientTape() as tape:
            outputs = forward(x)
        return outputs, tape.gradient(outputs, [w.value for w in network.trainable_variables], upstream)

    graph = compiled.get_concrete_function().graph.as_graph_def()
    calls = [node.attr["f"].func.name for node in graph.node if "Partitioned" in node.op]
    outputs, gradients = compiled()
    others = {weight.path: weight.numpy() for weight in network.non_trainable_variables if weight.dtype == "float32"}
    gradients = dict(zip((w.path for w in network.trainable_variables), gradients, strict=True))
    return outputs.numpy(), gradients, others, [name for name in calls if "forward_function" in name]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on JAX the loop has the units' step, see below")
@pytest.mark.parametrize(
    "arch, depth, kinds", [("mpelu_nopre_resnet164", 38, 6), ("elu_resnet110", 26, 5), ("relu_preact_resnet164", 38, 6)]
)
def test_the_same_step(arch, depth, kinds):
    rng = np.random.default_rng(0)
    options = {"depth": depth, "num_classes": 5, "classifier_activation": None, "input_shape": (8, 8, 3)}
    networks = [accelerate(create_model(arch, **options), join_pairs=False) for _ in range(2)]
    values = [w + rng.uniform(0.01, 0.1, w.shape).astype(w.dtype) for w in networks[0].get_weights()]
    for network in networks:
        network.set_weights(values)
    plain, shared = networks
    x = rng.integers(0, 256, (8, 8, 8, 3)).astype("float32")
    upstream = rng.standard_normal((8, 5)).astype("float32")
    expected = step(plain, lambda x: plain(x, training=True), x, upstream)
    with one_function_for_all_calls():
        actual = step(shared, functions.forward_by_units(pieces(shared)), x, upstream)
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
    models = [id(piece.model) for piece in pieces(shared)[1:-1]]
    assert (len(models), len(set(models))) == (12, kinds)
    assert (len(actual[3]), len(set(actual[3]))) == (14, kinds + 2)  # with the stem and the head


def test_units_with_little_in_common_are_left_alone():
    """Stochastic depth drops each unit at another rate; a function each would be no gain."""
    options = {"depth": 38, "num_classes": 5, "input_shape": (8, 8, 3)}
    assert pieces(create_model("mpelu_nopre_resnet164", **options))
    assert pieces(create_model("mpelu_nopre_resnet164", stochastic_depth=0.1, **options)) is None


def test_units_that_are_no_chain_are_left_alone():
    inputs = keras.Input((4, 4, 2))
    x = inputs
    for number in range(1, 7):
        branch = keras.layers.Conv2D(2, 1, name=f"stage1_unit{number}_conv1")(x)
        x = keras.layers.Add(name=f"stage1_unit{number}_add")([branch, inputs])  # reaches past the unit before
    assert pieces(keras.Model(inputs, x)) is None


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
    make = getattr(functions, MAKE)
    monkeypatch.setattr(functions, MAKE, lambda model: made.append(model) or make(model))
    shared = loop.fit(recipe, x, y, 10, tmp_path / "shared")
    assert len(made) == 6 + 2  # the stem and the head
    for actual, expected in zip(shared.model.get_weights(), plain.model.get_weights(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
    with pytest.raises(loop.Interrupted):
        loop.fit(recipe, x, y, 10, tmp_path / "stopped", callbacks=[StopAt(3)])
    resumed = loop.fit(recipe, x, y, 10, tmp_path / "stopped")
    for actual, expected in zip(resumed.model.get_weights(), shared.model.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the optimizer of units is for JAX")
@pytest.mark.parametrize("momentum, nesterov", [(0.9, True), (0.9, False), (0.0, False)])
def test_updates_by_units(momentum, nesterov):
    """Against CoupledSGD for all variables at once; two kinds of units, one told apart by a multiplier only."""
    paths = [f"stage1_unit{unit}_{part}" for unit in (1, 2, 3) for part in ("conv/kernel", "act/alpha")]
    paths = ["stem/kernel", *paths, "head/kernel"]
    multipliers = ((r"unit2_act/alpha", 5.0, 10.0), (r"/alpha", 0.5, 3.0))
    rng = np.random.default_rng(0)
    shapes = [(2,) if path.endswith("alpha") else (3, 2) for path in paths]
    start = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.03, 0.01])
    found = []
    for kind in (functions.UnitwiseCoupledSGD, functions.CoupledSGD):
        optimizer = kind(schedule, momentum, nesterov, l2=0.02, multipliers=multipliers)
        variables = [keras.Variable(value, name="w") for value in start]
        for variable, path in zip(variables, paths, strict=True):
            variable._path = path
        optimizer.build(variables)
        weights, state = list(start), [variable.value for variable in optimizer.variables]
        for _ in range(5):
            gradients = [np.sin(3 * np.asarray(weight)) + 0.5 for weight in weights]
            weights, state = optimizer.stateless_apply(state, gradients, weights)
        found.append([*weights, *state])
    for actual, expected in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_moving_average_of_the_weights(monkeypatch):
    """On JAX the whole step is then one program, as Keras updates the average of all weights at once."""
    monkeypatch.setattr(loop, "DEEP_UNITS", 12)
    x, y = np.zeros((8, 32, 32, 3), "uint8"), np.zeros(8, "int64")
    passes = []
    for average in (0.0, 0.9):
        recipe = get_recipe("mpelu_nopre_resnet164")
        recipe = dataclasses.replace(recipe, batch_size=8, overrides={"depth": 38}, average=average)
        arguments = {"classifier_activation": None}
        model = loop.prepare(recipe, loop.build(recipe, 10, **arguments), x, y, 10, 0, 1, arguments)
        passes.append(model.training_pass or getattr(model, "pieces", None))
    assert passes[0]
    assert bool(passes[1]) == (keras.backend.backend() == "tensorflow")
