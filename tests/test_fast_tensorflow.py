"""The fast layers for TensorFlow against the stock ones, and against float64 NumPy."""

import types

import keras
import numpy as np
import pytest

from keras_mpelu import MPELU
from zoo.registry import create_model

if keras.backend.backend() != "tensorflow":
    pytest.skip("training.fast_tensorflow is for the TensorFlow backend", allow_module_level=True)

import tensorflow as tf

from keras_mpelu.kernels.tensorflow import expm1
from training import loop
from training.fast_tensorflow import FusedBatchNormalization
from training.fast_tensorflow import FusedCoupledSGD
from training.fast_tensorflow import FusedMPELU
from training.fast_tensorflow import accelerate
from training.normalized_mpelu_tensorflow import normalized_mpelu
from training.optimizer import CoupledSGD


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    """As on a machine without a GPU: with one nothing is joined."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [])


@pytest.fixture
def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def example_model(arch="mpelu_resnet20", depth=8):
    """A small network whose weights are all away from their defaults, and a batch for it."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = create_model(arch, depth=depth, num_classes=5, classifier_activation=None, input_shape=(16, 16, 3))
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance", "alpha") or "_act" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean"):
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model, rng.integers(0, 256, (8, 16, 16, 3)).astype("float32"), rng.standard_normal((8, 5)).astype("float32")


def training_step(model, x, upstream):
    """Outputs, gradients by path and moving statistics by path of one step, as the training loop makes it."""

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
        variables = [weight.value for weight in model.trainable_weights]
        return outputs, tape.gradient(outputs, variables, upstream)

    outputs, gradients = step()
    paths = [weight.path for weight in model.trainable_weights]
    statistics = {weight.path: weight.numpy() for weight in model.non_trainable_weights}
    return outputs.numpy(), dict(zip(paths, gradients, strict=True)), statistics


def assert_close(actual, expected, tolerance, message=""):
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=message)


@pytest.mark.parametrize("arch, depth, count", [("mpelu_resnet20", 8, 7), ("mpelu_preact_resnet164", 11, 10)])
def test_same_training_step(arch, depth, count):
    model, x, upstream = example_model(arch, depth)
    fast = accelerate(model)
    assert sum(isinstance(layer, FusedMPELU) for layer in fast.layers) == count
    assert sum(isinstance(layer, FusedBatchNormalization) for layer in fast.layers) == count
    before = {weight.path: weight.numpy() for weight in model.non_trainable_weights}
    outputs, gradients, statistics = training_step(model, x, upstream)
    fast_outputs, fast_gradients, fast_statistics = training_step(fast, x, upstream)
    assert_close(fast_outputs, outputs, 1e-5)
    for path, expected in gradients.items():
        assert_close(fast_gradients[path], expected, 1e-4, path)
    for path, expected in statistics.items():
        # The change counts: the unbiased variance would be 0.8 % more at 128 values a channel.
        assert_close(fast_statistics[path] - before[path], expected - before[path], 1e-4, path)


def pairs(model):
    """Names of the batch norms that are left to the MPELU behind them."""
    return [layer.name for layer in model.layers if isinstance(layer, FusedBatchNormalization) and layer.left_to_next]


def test_which_networks_have_their_pairs_joined(bfloat16):
    options = {"depth": 11, "num_classes": 5, "classifier_activation": None, "input_shape": (16, 16, 3)}
    assert pairs(accelerate(create_model("mpelu_preact_resnet164", **options))) == []
    keras.config.set_dtype_policy("float32")
    model = create_model("mpelu_preact_resnet164", **options)
    assert len(pairs(accelerate(model))) == sum(isinstance(layer, MPELU) for layer in model.layers) == 10
    assert pairs(accelerate(model, join_pairs=False)) == []
    assert len(pairs(accelerate(create_model("mpelu_nopre_resnet164", **options)))) == 8
    assert pairs(accelerate(create_model("mpelu_onlypreact_resnet164", **options))) == []  # no norm before the first
    assert pairs(accelerate(example_model()[0])) == []  # half of its MPELUs are behind additions


def test_pairs_that_others_use_are_not_joined():
    inputs, more = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    norm, act = keras.layers.BatchNormalization, MPELU
    normalized = norm(name="bn")(inputs)
    assert pairs(accelerate(keras.Model(inputs, act()(normalized)))) == ["bn"]
    nested = keras.Model(more, keras.layers.ReLU()(more))
    twice, shared = norm(), act()
    for outputs in (
        keras.layers.Add()([act()(normalized), normalized]),
        [act()(normalized), normalized],
        [act()(normalized), nested(normalized)],
        [act()(twice(inputs)), twice(more)],
        [shared(norm()(inputs)), shared(more)],
        act()(norm()(inputs, training=False)),
        act(dtype="mixed_bfloat16")(norm()(inputs)),
        act()(norm()(keras.layers.Conv2D(3, 3)(keras.Input((None, None, 3))))),
    ):
        ends = keras.tree.flatten(outputs)
        sources = {id(tensor): tensor for end in ends for tensor in keras.utils.get_source_inputs(end)}
        assert pairs(accelerate(keras.Model(list(sources.values()), outputs))) == []


@pytest.mark.parametrize("mean, first", [(0.0, None), (1000.0, None), (0.0, 1000.0)])
def test_batch_norm_and_mpelu_as_one(mean, first):
    """Against the formulas in float64; a large mean or pixel would hide the variance of squares in float32."""
    rng = np.random.default_rng(0)
    shape = (16, 6, 6, 3)  # 36 pixels: in four parts
    x = (mean + rng.standard_normal(shape)).astype("float32")
    if first:
        x[0, 0, 0] = first
    upstream = rng.standard_normal(shape).astype("float32")
    gamma, alpha, beta = (rng.uniform(0.5, 1.5, 3).astype("float32") for _ in range(3))
    alpha[0] = 0
    offset = rng.normal(0, 0.3, 3).astype("float32")
    with tf.GradientTape() as tape:
        given = [tf.constant(array) for array in (x, gamma, offset, alpha, beta)]
        tape.watch(given)
        outputs, found_mean, found_variance = normalized_mpelu(*given, 1e-3)
    gradients = tape.gradient(outputs, given, upstream)

    x = x.astype("float64")
    axes = 0, 1, 2
    centered = x - x.mean(axes)
    whitened = centered / np.sqrt(x.var(axes) + 1e-3)
    normalized = gamma * whitened + offset
    growth = np.exp(beta * np.minimum(normalized, 0))
    tolerance = 1e-5 if mean == 0 else 1e-4  # the inputs have as many digits
    assert_close(found_mean, x.mean(axes), 1e-6)
    assert_close(found_variance, x.var(axes), tolerance)
    assert_close(outputs, np.where(normalized > 0, normalized, alpha * (growth - 1)), tolerance)
    by_normalized = upstream * np.where(normalized > 0, 1, alpha * beta * growth)
    by_whitened = gamma * by_normalized
    by_x = by_whitened - by_whitened.mean(axes) - whitened * (by_whitened * whitened).mean(axes)
    expected = [
        by_x / np.sqrt(x.var(axes) + 1e-3),
        (by_normalized * whitened).sum(axes),
        by_normalized.sum(axes),
        (upstream * (growth - 1)).sum(axes),
        (upstream * alpha * np.minimum(normalized, 0) * growth).sum(axes),
    ]
    for found, exact in zip(gradients, expected, strict=True):
        assert_close(found, exact, tolerance)


def test_a_frozen_batch_norm_is_not_taken_over():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, MPELU()(keras.layers.BatchNormalization()(inputs)))
    fast = accelerate(model)
    assert len(pairs(fast)) == 1
    fast.layers[1].trainable = False
    x = np.random.default_rng(0).standard_normal((4, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(fast(x, training=True), model(x, training=False), atol=1e-6)
    np.testing.assert_array_equal(fast.layers[1].moving_mean.numpy(), 0)


def test_both_of_a_pair_are_named_where_a_loss_is_not_finite():
    inputs = keras.Input((4, 4, 3))
    fast = accelerate(keras.Model(inputs, MPELU(name="act")(keras.layers.BatchNormalization(name="bn")(inputs))))
    fast.get_layer("bn").gamma.assign([3e38] * 3)
    x = np.random.default_rng(0).standard_normal((4, 4, 4, 3)).astype("float32")
    model = types.SimpleNamespace(network=fast, inputs_on_device=x)
    assert loop._first_bad_layer(model, np.arange(4)) == "first in the output of layer act or of bn"


def test_same_weights_paths_and_inference(tmp_path):
    model, x, _ = example_model()
    fast = accelerate(model)
    assert [(weight.path, weight.shape) for weight in fast.weights] == [(w.path, w.shape) for w in model.weights]
    assert_close(fast.predict(x, verbose=0), model.predict(x, verbose=0), 1e-5)
    # Keras files weights under the layer's class name: a checkpoint is for another fast clone, not for the stock model.
    fast.save_weights(tmp_path / "checkpoint.weights.h5")
    other = accelerate(model)
    other.set_weights([0 * weight for weight in fast.get_weights()])
    other.load_weights(tmp_path / "checkpoint.weights.h5")
    for weight, expected in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_clone_has_its_own_weights():
    model, x, upstream = example_model()
    before = model.get_weights()
    training_step(accelerate(model), x, upstream)
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_mpelu_gradients_in_bfloat16():
    """Sums over a batch in float32: stock layers, which sum in bfloat16, are off by percents."""
    rng = np.random.default_rng(0)
    x, upstream = (tf.cast(rng.standard_normal((64, 16, 16, 4)), "bfloat16") for _ in range(2))
    alpha, beta = (rng.uniform(0.5, 1.5, 4).astype("float32") for _ in range(2))
    layer = FusedMPELU(dtype="mixed_bfloat16")
    layer.build(x.shape)
    layer.set_weights([alpha, beta])
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x)
    assert outputs.dtype == "bfloat16"
    gradients = tape.gradient(outputs, [x, layer.alpha.value, layer.beta.value], upstream)
    assert [gradient.dtype for gradient in gradients] == ["bfloat16", "float32", "float32"]
    # The formulas of the paper in float64, on the bfloat16 inputs.
    x64, upstream64 = x.numpy().astype("float64"), upstream.numpy().astype("float64")
    growth = np.exp(beta.astype("float64") * np.minimum(x64, 0))
    assert_close(outputs, np.where(x64 > 0, x64, alpha * (growth - 1)), 2**-8)
    assert_close(gradients[0], upstream64 * np.where(x64 > 0, 1, alpha * beta * growth), 2**-8)
    assert_close(gradients[1], np.sum(upstream64 * (growth - 1), (0, 1, 2)), 1e-5)
    assert_close(gradients[2], np.sum(upstream64 * np.minimum(x64, 0) * alpha * growth, (0, 1, 2)), 1e-5)


def test_the_short_exponential():
    rng = np.random.default_rng(0)
    z = (-(10 ** rng.uniform(-9, 2.2, 20000))).astype("float32")
    z = np.concatenate([z, -z[-z < 88], np.linspace(-1, 1, 10001), [-np.inf, 0.0]]).astype("float32")
    large = np.linspace(88, 88.7, 1001).astype("float32")
    for function in (expm1, tf.function(expm1, jit_compile=True)):
        np.testing.assert_allclose(function(tf.constant(z)), np.expm1(z.astype("float64")), rtol=3e-7)
        np.testing.assert_allclose(function(tf.constant(large)), np.exp(large.astype("float64")), rtol=1e-4)
        assert np.isnan(function(tf.constant([np.nan], "float32"))[0])
        assert function(tf.constant([89.0]))[0] == np.inf


@pytest.mark.parametrize("policy", ["float64", "bfloat16", "float16"])
def test_mpelu_of_other_precisions(policy):
    layer = FusedMPELU(dtype=policy)
    x = tf.constant(np.linspace(-2, 2, 48).reshape(2, 2, 4, 3), policy)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x)
    gradients = tape.gradient(outputs, [x, *(weight.value for weight in layer.trainable_weights)])
    tolerance = {"float64": 1e-12, "bfloat16": 2**-7, "float16": 2**-10}[policy]
    wide = tf.cast(x, "float64").numpy()
    negative = np.minimum(wide, 0)
    assert_close(outputs, np.where(wide > 0, wide, np.expm1(negative)), tolerance)
    assert_close(gradients[0], np.exp(negative), tolerance)
    assert_close(gradients[1], np.expm1(negative).sum((0, 1, 2)), 2 * tolerance)
    assert_close(gradients[2], (negative * np.exp(negative)).sum((0, 1, 2)), 2 * tolerance)


def test_batch_norm_in_bfloat16():
    """Statistics and parameters in float32: only the outputs are rounded."""
    rng = np.random.default_rng(0)
    x = tf.cast(3 + rng.standard_normal((16, 8, 8, 4)), "bfloat16")
    gamma, beta, mean, variance = (rng.uniform(0.5, 1.5, 4).astype("float32") for _ in range(4))
    layer = FusedBatchNormalization(momentum=0.9, epsilon=1e-5, dtype="mixed_bfloat16")
    layer.build(x.shape)
    layer.set_weights([gamma, beta, mean, variance])
    outputs = layer(x, training=True)
    assert outputs.dtype == "bfloat16"
    x64 = x.numpy().astype("float64")
    batch_mean, batch_variance = x64.mean((0, 1, 2)), x64.var((0, 1, 2))
    assert_close(outputs, gamma * (x64 - batch_mean) / np.sqrt(batch_variance + 1e-5) + beta, 2**-8)
    assert_close(layer.moving_mean, 0.9 * mean + 0.1 * batch_mean, 1e-6)
    assert_close(layer.moving_variance, 0.9 * variance + 0.1 * batch_variance, 1e-6)


def test_model_in_bfloat16(bfloat16):
    model, x, upstream = example_model()
    outputs, gradients, _ = training_step(accelerate(model), x, upstream)
    keras.config.set_dtype_policy("float32")
    exact_model = example_model()[0]
    exact_model.set_weights(model.get_weights())
    exact_outputs, exact_gradients, _ = training_step(exact_model, x, upstream)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert_close(outputs, exact_outputs, 0.05)
    for path, expected in exact_gradients.items():
        assert gradients[path].dtype == "float32", path
        assert_close(gradients[path], expected, 0.15, path)


def test_frozen_batch_norm_stays_frozen():
    x = np.random.default_rng(0).standard_normal((4, 5, 5, 3)).astype("float32")
    layer = FusedBatchNormalization()
    layer.trainable = False
    layer.build(x.shape)
    np.testing.assert_allclose(layer(x, training=True), layer(x, training=False))
    np.testing.assert_array_equal(layer.moving_mean.numpy(), 0)


def test_other_axes_keep_the_stock_layer():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, MPELU(axis=None)(MPELU(axis=1)(inputs)))
    assert not any(isinstance(layer, FusedMPELU) for layer in accelerate(model).layers)


@pytest.mark.parametrize(
    "momentum, nesterov, l2", [(0.9, True, 0.02), (0.5, False, 0.02), (0.9, True, 0.0), (0.0, False, 0.1)]
)
def test_the_same_optimizer(momentum, nesterov, l2):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype("float32") for shape in ((3, 4), (4,), (4,))]
    gradients = [[tf.constant(np.sin(step + 3 * value)) for value in start] for step in range(5)]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.03, 0.01])
    found = []
    for kind in (CoupledSGD, FusedCoupledSGD):
        layer = keras.layers.Layer(name="layer")
        variables = [
            layer.add_weight(name=name, shape=value.shape, initializer=lambda shape, dtype, value=value: value)
            for name, value in zip(("kernel", "alpha", "bias"), start, strict=True)
        ]
        multipliers = ((r"/alpha$", 5.0, 10.0), (r"/bias$", 2.0, 0.0))
        optimizer = kind(schedule, momentum, nesterov, l2=l2, multipliers=multipliers)
        optimizer.build(variables)
        step = _compiled(optimizer, variables)
        for given in gradients:
            step(given)
        found.append([variable.numpy() for variable in variables])
    for stock, fused, before in zip(*found, start, strict=True):
        assert np.abs(stock - before).max() > 0.1
        np.testing.assert_allclose(fused, stock, rtol=1e-5, atol=1e-6)


def _compiled(optimizer, variables):  # a default or bound argument would become an input of the graph
    return tf.function(lambda gradients: optimizer.apply(gradients, variables))
