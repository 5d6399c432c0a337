"""MPELUNormal: the standard deviation of equation 22, and Keras's conventions for seeds."""

import json

import keras
import numpy as np
import pytest

import zoo
from keras_mpelu import MPELUNormal

# std * sqrt(n), worked out by hand from sqrt(2 / (1 + alpha**2 * beta**2))
SCALES = {(1, 1): 1.0, (0.25, 1): 1.37199, (0, 1): 1.41421, (2, 1.5): 0.44721, (0.5, 2): 1.0, (-1, 3): 0.44721}
KERNELS = {
    (300, 700): {"fan_in": 300, "fan_out": 700, "fan_avg": 500},
    (3, 5, 32, 96): {"fan_in": 480, "fan_out": 1440, "fan_avg": 960},
}


def draw(initializer, shape=(8, 6)):
    return keras.ops.convert_to_numpy(initializer(shape))


def through_json(initializer):
    text = json.dumps(keras.saving.serialize_keras_object(initializer))
    return keras.saving.deserialize_keras_object(json.loads(text))


@pytest.mark.parametrize("shape", KERNELS)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("alpha, beta", SCALES)
def test_standard_deviation(alpha, beta, mode, shape):
    values = draw(MPELUNormal(alpha, beta, mode, seed=1), shape).astype("float64")
    std = SCALES[alpha, beta] / KERNELS[shape][mode] ** 0.5
    assert values.shape == shape
    # Five standard errors of the sample's std and mean.
    assert values.std() == pytest.approx(std, rel=5 / (2 * values.size) ** 0.5)
    assert abs(values.mean()) < 5 * std / values.size**0.5


def test_not_truncated():
    values = draw(MPELUNormal(seed=0), (500, 500)) * 500**0.5  # standard normal
    # Beyond 2 and 3: 4.55 % and 0.27 %. Keras's truncated normals end at 2.27.
    assert np.mean(np.abs(values) > 2) == pytest.approx(0.0455, rel=0.05)
    assert np.mean(np.abs(values) > 3) == pytest.approx(0.0027, rel=0.2)


def test_defaults_and_he_at_alpha_zero():
    """With one seed, the very numbers of Keras's untruncated LeCun and He initializers."""
    for options, scale in (({}, 1.0), ({"alpha": 0}, 2.0), ({"alpha": 0, "beta": 7}, 2.0)):
        theirs = keras.initializers.VarianceScaling(scale, "fan_in", "untruncated_normal", seed=5)
        np.testing.assert_allclose(draw(MPELUNormal(**options, seed=5)), draw(theirs), rtol=1e-6)


def test_unseeded_draws_are_fresh():
    shared = MPELUNormal()
    layers = [keras.layers.Dense(6, kernel_initializer=shared) for _ in range(2)]
    for layer in layers:
        layer.build((None, 8))
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
    draws = [*kernels, draw(shared), draw(shared), draw(MPELUNormal()), draw(shared.clone())]
    assert len({values.tobytes() for values in draws}) == len(draws)


def test_unseeded_draws_repeat_under_set_random_seed():
    def draws(seed):
        keras.utils.set_random_seed(seed)
        shared = MPELUNormal()
        return np.stack([draw(shared), draw(shared), draw(MPELUNormal())])

    np.testing.assert_array_equal(draws(3), draws(3))
    assert not np.any(draws(3) == draws(4))


def test_the_first_draw_is_that_of_keras_generator():
    """As it was when the published networks began."""
    keras.utils.set_random_seed(3)
    expected = keras.random.normal((4, 3), stddev=0.5, seed=keras.random.SeedGenerator())
    keras.utils.set_random_seed(3)
    np.testing.assert_allclose(MPELUNormal()((4, 3)), expected, rtol=1e-6)


def test_it_draws_in_a_model_that_was_restored_from_shapes_alone(tmp_path):
    """As Keras's own do: layers that are to start anew draw by it."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=MPELUNormal())])
    layer = zoo.load_model(zoo.save_model(model, tmp_path / "model")).layers[-1]
    first, second = (draw(layer.kernel_initializer) for _ in range(2))
    assert np.all(first != second)


def test_integer_seed_is_that_of_keras():
    ours, theirs = MPELUNormal(seed=7), keras.initializers.RandomNormal(stddev=8**-0.5, seed=7)
    first = draw(ours)
    np.testing.assert_array_equal(draw(ours), first)
    np.testing.assert_array_equal(draw(MPELUNormal(seed=7)), first)
    np.testing.assert_allclose(first, draw(theirs), rtol=1e-6)
    assert not np.any(draw(MPELUNormal(seed=8)) == first)


def test_seed_generator_is_that_of_keras():
    ours = MPELUNormal(seed=keras.random.SeedGenerator(7))
    theirs = keras.initializers.RandomNormal(stddev=8**-0.5, seed=keras.random.SeedGenerator(7))
    draws = [draw(ours), draw(ours)]
    assert not np.any(draws[0] == draws[1])
    np.testing.assert_allclose(draws, [draw(theirs), draw(theirs)], rtol=1e-6)


@pytest.mark.parametrize("copy", [through_json, MPELUNormal.clone], ids=["json", "clone"])
@pytest.mark.parametrize("seed", [None, 7, "generator"])
def test_copies(copy, seed):
    seed = keras.random.SeedGenerator(7) if seed == "generator" else seed
    initializer = MPELUNormal(0.25, 2.0, "fan_avg", seed)
    first = draw(initializer)
    restored = copy(initializer)
    assert type(restored) is MPELUNormal
    assert restored.get_config() == initializer.get_config()
    assert {**restored.get_config(), "seed": None} == {"alpha": 0.25, "beta": 2.0, "mode": "fan_avg", "seed": None}
    if seed is not None:  # a copied generator starts anew, as in Keras
        np.testing.assert_array_equal(draw(restored), first)


def test_by_its_registered_name():
    """As Keras's own are given, `"he_normal"`: with every argument at its default."""
    layer = keras.layers.Dense(3, kernel_initializer="keras_mpelu>MPELUNormal")
    layer.build((None, 4))
    assert np.ptp(keras.ops.convert_to_numpy(layer.kernel)) > 0
    assert layer.kernel_initializer.get_config() == {"alpha": 1.0, "beta": 1.0, "mode": "fan_in", "seed": None}
    assert MPELUNormal.from_config({"alpha": 0.25}).get_config() == MPELUNormal(0.25).get_config()


def test_dtype():
    assert keras.backend.standardize_dtype(MPELUNormal()((2, 3), dtype="bfloat16").dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(MPELUNormal()((2, 3)).dtype) == "float32"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "fan"}, "mode is 'fan_in', 'fan_out' or 'fan_avg'"),
        ({"seed": "x"}, "seed is None, an integer or a keras.random.SeedGenerator; received 'x'"),
        ({"alpha": float("nan")}, "alpha and beta are finite"),
        ({"alpha": float("inf"), "beta": 0.0}, "alpha and beta are finite"),
        ({"beta": float("-inf")}, "alpha and beta are finite"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MPELUNormal(**options)


@pytest.mark.parametrize("shape", [(), (5,)])
def test_bias_shape(shape):
    with pytest.raises(ValueError, match="two or more dimensions"):
        MPELUNormal()(shape)
