"""WeightNormalization: equation 2 of Salimans and Kingma (2016), and its gradients."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mpelu import WeightNormalization

LAYERS = {
    "dense": (lambda: layers.Dense(5, "relu", bias_initializer="ones"), (7, 6)),
    "conv1d": (lambda: layers.Conv1D(4, 3, bias_initializer="ones"), (2, 9, 3)),
    "conv2d": (lambda: layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False), (2, 8, 8, 3)),
    "conv3d": (lambda: layers.Conv3D(2, 2), (1, 4, 4, 4, 3)),
}


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def build(kind):
    make, shape = LAYERS[kind]
    keras.utils.set_random_seed(0)
    wrapped = WeightNormalization(make())
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    wrapped(x)
    return wrapped, make(), x


@pytest.mark.parametrize("kind", LAYERS)
def test_starts_as_the_layer_alone_and_then_scales_each_unit(kind):
    wrapped, plain, x = build(kind)
    plain.build(x.shape)
    plain.set_weights(wrapped.layer.get_weights())
    np.testing.assert_allclose(values(wrapped(x)), values(plain(x)), rtol=1e-5, atol=1e-6)
    # Any g and any length of v: equation 2 in NumPy, given to the plain layer.
    v = 3 * keras.ops.convert_to_numpy(wrapped.layer.kernel)
    g = np.arange(1.0, v.shape[-1] + 1)
    wrapped.layer.kernel.assign(v)
    wrapped.g.assign(g)
    kernel = g * v / np.sqrt((v**2).sum(axis=tuple(range(v.ndim - 1))))
    plain.kernel.assign(kernel)
    np.testing.assert_allclose(values(wrapped(x)), values(plain(x)), rtol=1e-4, atol=1e-5)


def test_one_step_of_training_follows_the_papers_gradients():
    """Equation 3: grad g = (grad w . v)/||v||; grad v = g/||v|| grad w - g grad g / ||v||**2 v; loss y**2 / 2."""
    wrapped = WeightNormalization(layers.Dense(1, use_bias=False))
    model = keras.Sequential([keras.Input((3,)), wrapped])
    v, g, x = np.array([1.0, 2.0, -2.0]), 1.5, np.array([[0.5, -1.0, 2.0]])
    wrapped.layer.kernel.assign(v[:, None])
    wrapped.g.assign([g])
    model.compile(keras.optimizers.SGD(0.1), loss=lambda target, y: y**2 / 2)
    model.train_on_batch(x.astype("float32"), np.zeros((1, 1), "float32"))
    length = 3.0
    gradient = g / length * (v @ x[0]) * x[0]
    by_g = gradient @ v / length
    by_v = g / length * gradient - g * by_g / length**2 * v
    np.testing.assert_allclose(keras.ops.convert_to_numpy(wrapped.g), [g - 0.1 * by_g], rtol=1e-5)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(wrapped.layer.kernel)[:, 0], v - 0.1 * by_v, rtol=1e-5)
    assert by_v @ v == pytest.approx(0)  # the direction's gradient is orthogonal to it


@pytest.mark.parametrize("kind", ["dense", "conv2d"])
def test_saves_and_loads(kind, tmp_path):
    wrapped, _, x = build(kind)
    model = keras.Sequential([keras.Input(x.shape[1:]), wrapped])
    wrapped.g.assign(2 * wrapped.g)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(values(model(x)), values(again(x)), rtol=1e-5, atol=1e-6)
    assert again.layers[-1].layer.get_config() == wrapped.layer.get_config()


def test_frozen_and_in_half_precision():
    wrapped, _, x = build("dense")
    wrapped.layer.trainable = False
    assert np.isfinite(keras.ops.convert_to_numpy(wrapped(x))).all()
    assert [weight.name for weight in wrapped.trainable_weights] == ["g"]
    mixed = WeightNormalization(layers.Dense(5, dtype="mixed_bfloat16"), dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(mixed(x).dtype) == "bfloat16"


def test_keeps_what_the_layer_does_beside_its_kernel():
    """The loss of its activity, and a mask on its way."""
    x = np.array([[[1.0, 2.0], [0.0, 0.0]]], "float32")
    losses, outputs = [], []
    for wrap in (lambda layer: layer, WeightNormalization):
        keras.utils.set_random_seed(0)
        dense = wrap(layers.Dense(3, activity_regularizer="l2"))
        inputs = keras.Input((2, 2))
        masked = dense(layers.Masking()(inputs))
        model = keras.Model(inputs, layers.GlobalAveragePooling1D()(masked))  # without the masked step
        outputs.append(values(model(x)))
        losses.append(float(values(sum(model.losses))))
        again = type(dense).from_config(dense.get_config())
        again(x)
        assert len(again.losses) == 1
    np.testing.assert_allclose(*outputs, rtol=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and losses[0] > 0


def test_lengths_are_taken_in_float32():
    """300 squared is beyond float16."""
    wrapped = WeightNormalization(
        layers.Dense(2, kernel_initializer=keras.initializers.Constant(300.0)), dtype="float16"
    )
    wrapped.layer.dtype_policy = "float16"
    np.testing.assert_allclose(values(wrapped(np.ones((1, 2), "float16"))), 600.0, rtol=1e-3)


def test_refuses_other_layers():
    with pytest.raises(ValueError, match="starts with kernel_initializer='zeros'"):
        WeightNormalization(layers.Dense(3, kernel_initializer="zeros"))
    with pytest.raises(ValueError, match="wraps a Dense, Conv1D"):
        WeightNormalization(layers.LSTM(3))
