"""LSUV: unit variance at every layer (Mishkin and Matas, 2016, algorithm 1), or a refusal that names the layer."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mpelu import MPELU
from keras_mpelu import lsuv


def rows(*shape, mean=2.0, std=3.0):
    return np.random.default_rng(0).normal(mean, std, shape).astype("float32")


def branched():
    """Activations as arguments and as layers, an addition, a nested model, batch norm, MPELU."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((12, 12, 6))
    x = layers.Conv2D(6, 3, padding="same", activation=layers.LeakyReLU(0.3), name="inner_conv")(inner)
    inner = keras.Model(inner, x, name="inner")
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.Add()([x, inner(x)])
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, activation="elu", name="depthwise")(x)
    x = MPELU()(layers.Conv2DTranspose(8, 2, strides=2, name="transpose")(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, "softmax", name="classifier")(x))


def test_every_output_before_its_activation_has_variance_one():
    model, x = branched(), rows(64, 12, 12, 3)
    others = ("batch_normalization", "mpelu")
    before = [model.get_layer(name).get_weights() for name in others]
    assert lsuv(model, x, tolerance=0.01, seed=1) is model
    for name in ("conv1", "depthwise", "transpose", "classifier"):
        layer = model.get_layer(name)
        inputs = keras.Model(model.input, layer.input)(x, training=False)
        linear = type(layer).from_config({**layer.get_config(), "activation": None})
        linear.build(layer.input.shape)
        linear.set_weights(layer.get_weights())
        assert np.var(keras.ops.convert_to_numpy(linear(inputs)).astype("float64")) == pytest.approx(1, abs=0.0101)
    inner = model.get_layer("inner").get_layer("inner_conv")
    inputs = keras.Model(model.input, model.get_layer("conv1").output)(x)
    y = keras.ops.conv(inputs, inner.kernel, padding="same")
    assert np.var(keras.ops.convert_to_numpy(y)) == pytest.approx(1, abs=0.0101)
    # The layers call themselves again, not the hook; what is no kernel is as before.
    assert "call" not in vars(inner)
    for name, weights in zip(others, before, strict=True):
        np.testing.assert_array_equal(model.get_layer(name).get_weights(), weights)


def test_kernels_stay_orthogonal_with_one_length():
    model = keras.Sequential([keras.Input((40,)), layers.Dense(24, "relu"), layers.Dense(24)])
    lsuv(model, rows(500, 40), seed=3)
    for layer in model.layers:
        gram = keras.ops.convert_to_numpy(layer.kernel).T @ keras.ops.convert_to_numpy(layer.kernel)
        np.testing.assert_allclose(gram / gram[0, 0], np.eye(24), atol=1e-5)


def test_the_seed_gives_the_same_kernels_and_each_layer_its_own():
    def kernels(seed):
        model = keras.Sequential([keras.Input((8,)), *(layers.Dense(8) for _ in range(3))])
        return [w for w in lsuv(model, rows(64, 8), seed=seed).get_weights() if w.ndim == 2]

    first = kernels(5)
    np.testing.assert_allclose(first, kernels(5), rtol=1e-5)
    assert not np.allclose(first[0], kernels(6)[0])
    assert not np.allclose(first[1] / first[1][0, 0], first[2] / first[2][0, 0])


def shared(constant):
    inputs = keras.Input((8,))
    dense = layers.Dense(8, name="twice")
    return keras.Model(inputs, dense(layers.Rescaling(constant)(dense(inputs))))


def test_a_shared_layer_is_fine_where_one_kernel_serves_both_calls():
    # An orthogonal square kernel of length 1/3 divides any variance by 9; the rescaling multiplies it by 9.
    model = shared(3.0)
    lsuv(model, rows(2000, 8, mean=0.0, std=3.0), tolerance=0.2)
    outputs = keras.ops.convert_to_numpy(model(rows(2000, 8, mean=0.0, std=3.0)))
    assert np.var(outputs) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (lambda: shared(30.0), rows(200, 8), "'twice'.*second call"),
        (lambda: shared(0.0), rows(200, 8), "'twice'.*variance of its output is 0"),
        (lambda: shared(1.0), np.full((4, 8), np.nan, "float32"), "'twice'.*nan"),
        (
            lambda: keras.Sequential([keras.Input((4, 8)), layers.Dense(4), layers.LSTM(3, name="memory")]),
            rows(4, 4, 8),
            "'memory', a LSTM: .*kernel",
        ),
        (lambda: keras.Sequential([keras.Input((8,)), layers.Dropout(0.1)]), rows(4, 8), "no dense or convolution"),
        (
            lambda: keras.Sequential(
                [keras.Input((8,)), layers.Dense(4), layers.ReLU(threshold=1e9), layers.Dense(2, name="dead")]
            ),
            rows(4, 8),
            "'dead'",
        ),
    ],
)
def test_what_cannot_be_normalised_is_named_and_left_as_it_was(model, batch, message):
    model = model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"^lsuv cannot normalise .*{message}") as caught:
        lsuv(model, batch)
    assert "\n" not in str(caught.value)  # as Keras has it where it adds the arguments of each call
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_activation_with_weights_keeps_them():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, activation=MPELU(), name="d"), layers.Dense(4)])
    layer, x = model.get_layer("d"), rows(500, 8)
    model(x[:1])  # an activation that is an argument has no weights before
    layer.activation.alpha.assign([0.1 * channel for channel in range(6)])
    lsuv(model, x, seed=0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.activation.alpha), 0.1 * np.arange(6), rtol=1e-6)
    before_mpelu = x @ keras.ops.convert_to_numpy(layer.kernel)
    assert before_mpelu.var() == pytest.approx(1, abs=0.1)


def test_namesakes_in_nested_models_are_layers_of_their_own():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu", name="d")], name="inner")
    model = keras.Sequential([keras.Input((8,)), inner, layers.Dense(4, name="d")])
    x = rows(500, 8)
    lsuv(model, x, seed=0)
    assert keras.ops.convert_to_numpy(model(x)).var() == pytest.approx(1, abs=0.1)
    before_relu = x @ keras.ops.convert_to_numpy(inner.layers[0].kernel)
    assert before_relu.var() == pytest.approx(1, abs=0.1)


class CallsTheNested(keras.Model):
    """Has two layers called "d", one of them in a nested model, and does not call its own."""

    def __init__(self):
        super().__init__()
        self.nested = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="d")], name="nested")
        self.own = layers.Dense(8, name="d")
        self.own.build((None, 8))

    def call(self, inputs):
        return self.nested(inputs)


def test_an_uncalled_namesake_is_missed():
    model = CallsTheNested()
    model(rows(4, 8))
    with pytest.raises(ValueError, match="'d': the model does not call it"):
        lsuv(model, rows(200, 8))


def test_a_layer_shared_with_a_nested_model_is_normalised_once():
    shared = layers.Dense(8, name="shared")
    inner = keras.Sequential([keras.Input((8,)), shared], name="inner")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(4, name="last")(shared(inner(inputs))))
    x = rows(2000, 8, mean=0.0, std=1.0)  # an orthogonal square kernel keeps variance 1: it serves both calls
    lsuv(model, x, tolerance=0.2, seed=0)
    for layer in (shared, model.get_layer("last")):
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        np.testing.assert_allclose(kernel.T @ kernel / (kernel**2).sum(0), np.eye(kernel.shape[1]), atol=1e-5)
        assert "call" not in vars(layer)
    assert keras.ops.convert_to_numpy(model(x)).var() == pytest.approx(1, abs=0.2)


class Stops(layers.Layer):
    error = None

    def call(self, inputs):
        if self.error:
            raise self.error
        return inputs


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError, ValueError])
def test_whatever_stops_it_the_weights_are_as_before(error):
    stops = Stops()
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="first"), stops, layers.Dense(4)])
    before = model.get_weights()
    stops.error = error("stopped from outside")
    with pytest.raises(error, match="stopped from outside"):
        lsuv(model, rows(50, 8))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "call" not in vars(model.get_layer("first"))


def test_wrong_options():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    for options in ({"tolerance": 0}, {"max_iterations": 0}):
        with pytest.raises(ValueError, match="tolerance is above 0"):
            lsuv(model, rows(4, 8), **options)
    model.layers[0].bias.assign([0.0, 10.0, 20.0, 30.0])  # their variance alone is 125
    with pytest.raises(ValueError, match="after 3 iterations"):
        lsuv(model, rows(400, 8), max_iterations=3)
