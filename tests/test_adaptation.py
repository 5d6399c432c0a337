"""Models for images of another size, or in another precision, against networks that were built so."""

import keras
import numpy as np
import pytest

import zoo
from keras_mpelu import WeightNormalization

IMAGES, TABLE = "relu_resnet20.cifar100", "snn_mlp2.wine"
NETWORKS = {  # one of each family for images, as small as it can be
    "mpelu_resnet20": {"depth": 8},
    "mpelu_preact_resnet164": {"depth": 11},
    "mpelu_nopre_resnet29": {"depth": 11},
    "shah_elu_resnet20": {"depth": 8},
    "elu_net11": {},
    "relu_nin": {},
    "elu_small_plain15": {},
}


def images(shape, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), "uint8")


def built(arch, shape, policy="float32"):
    keras.config.set_dtype_policy(policy)
    try:
        return zoo.create_model(arch, input_shape=shape, num_classes=5, **NETWORKS.get(arch, {}))
    finally:
        keras.config.set_dtype_policy("float32")


def policies(model):
    return {layer.name: layer.dtype_policy.name for layer in model.layers[1:]}  # the first is the input


def probabilities(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize("arch", NETWORKS)
def test_a_network_for_another_size_is_that_which_is_built_for_it(arch, tmp_path):
    model, expected = built(arch, (32, 32, 3)), built(arch, (40, 48, 3))
    folder = zoo.save_model(model, tmp_path / arch)
    if "nin" in arch:
        with pytest.raises(ValueError, match="pool_edges' is for images of one size; zoo.create_model builds"):
            zoo.load_model(folder, input_shape=(40, 48, 3))
        return
    larger = zoo.load_model(folder, input_shape=(40, 48, 3))
    assert larger.input_shape == (None, 40, 48, 3)
    expected.set_weights(model.get_weights())
    x = images((40, 48, 3))
    np.testing.assert_allclose(probabilities(larger, x), probabilities(expected, x), atol=1e-6)


@pytest.mark.parametrize("arch", NETWORKS)
def test_a_network_in_another_precision_is_that_which_is_built_in_it(arch, tmp_path):
    model, expected = built(arch, (32, 32, 3)), built(arch, (32, 32, 3), "mixed_bfloat16")
    mixed = zoo.load_model(zoo.save_model(model, tmp_path / arch), dtype="mixed_bfloat16")
    found, wanted = policies(mixed), policies(expected)
    of_head = {name for name in wanted if name.startswith("classifier")}
    assert {name: found[name] for name in wanted if name not in of_head} == {
        name: wanted[name] for name in wanted if name not in of_head
    }
    assert {found[name] for name in of_head} == {"float32"}  # of Network in Network, all that it classifies with
    assert found["preprocess"] == "float32"
    assert mixed.dtype_policy.name == expected.dtype_policy.name == "mixed_bfloat16"
    for one, other in zip(mixed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    expected.set_weights(model.get_weights())
    x = images((32, 32, 3))
    exact, rounded = probabilities(model, x), probabilities(mixed, x)
    assert 0 < np.abs(rounded - exact).max() < 0.05
    if found == wanted:
        np.testing.assert_allclose(rounded, probabilities(expected, x), atol=1e-2)


def test_published_weights_at_any_size_with_another_head_and_deployed():
    exact = zoo.load_model(IMAGES, input_shape=(48, 48, 3))
    x = images((48, 48, 3))
    assert zoo.load_model(IMAGES, input_shape=(None, None, 3)).predict(x, verbose=0) == pytest.approx(
        exact.predict(x, verbose=0), abs=1e-5
    )
    assert zoo.load_model(IMAGES, input_shape=(48, 48, 3), deploy=True).predict(x, verbose=0) == pytest.approx(
        exact.predict(x, verbose=0), abs=1e-4
    )
    features = zoo.load_model(IMAGES, input_shape=[48, 48, 3], features=True, dtype="bfloat16")
    assert (features.input_shape, features.output_shape) == ((None, 48, 48, 3), (None, 64))
    assert features.dtype_policy.name == "bfloat16"
    model = zoo.load_model(IMAGES, num_classes=4, dtype="mixed_float16")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)  # else small gradients are 0 in float16
    before = model.get_weights()
    model.fit(images((32, 32, 3), 8), np.arange(8) % 4, verbose=0)
    assert all(np.isfinite(value).all() for value in model.get_weights())
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_a_table_keeps_its_scaling_and_its_head_in_float32():
    x = zoo.load_dataset("wine").x_test
    found = policies(zoo.load_model(TABLE, dtype="mixed_bfloat16"))
    assert {name for name, policy in found.items() if policy == "float32"} == {"preprocess", "classifier"}
    exact = zoo.load_model(TABLE).predict(x, verbose=0)
    assert np.abs(zoo.load_model(TABLE, dtype="mixed_bfloat16").predict(x, verbose=0) - exact).max() < 0.05
    saved = zoo.load_model(TABLE, dtype="float32")
    assert policies(saved) == policies(zoo.load_model(TABLE))
    np.testing.assert_array_equal(saved.predict(x, verbose=0), exact)


def test_models_within_models(tmp_path):
    """Keras reads these, and not `zoo.restoring`."""
    part = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3, name="conv")], name="part")
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(part(inputs))
    x = WeightNormalization(keras.layers.Dense(6, name="inner"), name="outer")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classifier")(x))
    folder = zoo.save_model(model, tmp_path / "model")
    mixed = zoo.load_model(folder, dtype="mixed_bfloat16")
    assert mixed.get_layer("part").get_layer("conv").dtype_policy.name == "mixed_bfloat16"
    assert mixed.get_layer("outer").layer.dtype_policy.name == "mixed_bfloat16"
    for one, other in zip(mixed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x = images((10, 12, 3))
    larger = zoo.load_model(folder, input_shape=(10, 12, 3))
    again = keras.Model(other_inputs := keras.Input((10, 12, 3)), _through(model, other_inputs))
    np.testing.assert_allclose(probabilities(larger, x), probabilities(again, x), atol=1e-6)


def _through(model, x):
    for layer in model.layers[1:]:
        x = layer(x)
    return x


def test_what_scales_inputs_keeps_its_digits_wherever_it_is(tmp_path):
    """Behind augmentation, and in a model within the model; in bfloat16 a mean of 129.3 would be 129."""
    part = zoo.load_model(IMAGES, features=True)
    inputs = keras.Input((32, 32, 3))
    x = part(keras.layers.Rescaling(1.001, name="scale")(keras.layers.RandomFlip(name="flip")(inputs)))
    outputs = keras.layers.Dense(4, name="last")(keras.layers.Dense(5, name="hidden")(x))
    model = zoo.load_model(zoo.save_model(keras.Model(inputs, outputs), tmp_path / "model"), dtype="mixed_bfloat16")
    found = policies(model) | policies(model.get_layer(part.name))
    assert {found[name] for name in ("flip", "scale", "preprocess", "last")} == {"float32"}
    assert {found[name] for name in ("hidden", "stem_conv", "features")} == {"mixed_bfloat16"}


def test_a_number_to_predict_keeps_its_digits(tmp_path):
    inputs = keras.Input((3,))
    x = keras.layers.Dense(1, name="classifier")(keras.layers.Dense(4, name="hidden")(inputs))
    model = keras.Model(inputs, keras.layers.Rescaling(1000.0, offset=250_001.0, name="target")(x))
    mixed = zoo.load_model(zoo.save_model(model, tmp_path / "prices"), dtype="mixed_bfloat16")
    assert policies(mixed) == {"hidden": "mixed_bfloat16", "classifier": "float32", "target": "float32"}
    assert probabilities(mixed, np.zeros((1, 3), "float32"))[0, 0] == 250_001  # in bfloat16 249,856


def test_a_model_in_mixed_float16_scales_its_loss_wherever_it_is_from(tmp_path):
    for name in (
        "snn_mlp2.wine",
        zoo.save_model(zoo.load_model("snn_mlp2.wine", dtype="mixed_float16"), tmp_path / "m"),
    ):
        model = zoo.load_model(name, dtype="mixed_float16" if name == "snn_mlp2.wine" else None)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer), name
    assert not isinstance(zoo.load_model("snn_mlp2.wine").optimizer, keras.optimizers.LossScaleOptimizer)


def test_operations_have_no_policy_of_their_own(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x * keras.ops.relu(x + 3.0))
    model = keras.Model(inputs, keras.layers.Dense(3, name="classifier")(x))
    mixed = zoo.load_model(zoo.save_model(model, tmp_path / "model"), dtype="mixed_bfloat16")
    assert mixed.get_layer("conv").dtype_policy.name == "mixed_bfloat16"
    x = images((8, 8, 3)) / np.float32(255)
    assert 0 < np.abs(probabilities(mixed, x) - probabilities(model, x)).max() < 0.1


def test_a_vocabulary_is_not_lost(tmp_path):
    """It is beside the weights, where `load_weights` does not look."""
    lookup = keras.layers.IntegerLookup()
    lookup.adapt(np.array([[5], [7], [7]]))
    inputs = keras.Input((1,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(lookup.vocabulary_size(), 3)(lookup(inputs)))
    keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / "codes", zipped=False)
    zoo.load_model(tmp_path / "codes")
    with pytest.raises(ValueError, match="has vocabularies beside its weights; load it without input_shape and dtype"):
        zoo.load_model(tmp_path / "codes", dtype="mixed_bfloat16")


def test_foreign_folders_are_held_to_their_weights(tmp_path):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(3, name="classifier")(keras.layers.Flatten()(inputs))
    folder = zoo.save_model(keras.Model(inputs, outputs), tmp_path / "flat")
    with pytest.raises(
        ValueError, match=r"can load for images of shape \(9, 9, 3\): .* to have value 192, but received"
    ):
        zoo.load_model(folder, input_shape=(9, 9, 3))
    config = (folder / "config.json").read_text()
    (folder / "SHA256SUMS").unlink()
    (folder / "config.json").write_text(config.replace('"Flatten"', '"Lambda"'))
    for options in ({"input_shape": (9, 9, 3)}, {"dtype": "bfloat16"}):
        with pytest.raises(ValueError, match="holds a Lambda, which would run code"):
            zoo.load_model(folder, **options)


@pytest.mark.parametrize(
    "name, options, words",
    [
        (
            IMAGES,
            {"input_shape": (64, 64)},
            r"height, width and 3 channels, such as \(64, 64, 3\); received \(64, 64\)",
        ),
        (IMAGES, {"input_shape": 64}, "received 64"),
        (IMAGES, {"input_shape": (64, 64, 1)}, "height, width and 3 channels"),
        (IMAGES, {"input_shape": (64, 0, 3)}, "height, width and 3 channels"),
        (IMAGES, {"input_shape": (64, 64.0, 3)}, "height, width and 3 channels"),
        (TABLE, {"input_shape": (4, 4, 3)}, r"input_shape is for images; the model takes inputs of shape \(13,\)"),
        (
            IMAGES,
            {"dtype": "bfloat"},
            "dtype is a floating-point policy of Keras, such as .* received 'bfloat'",
        ),
        (IMAGES, {"dtype": 16}, "received 16"),
        (IMAGES, {"dtype": "int32"}, "dtype is a floating-point policy of Keras"),
        (IMAGES, {"dtype": "int8_from_float32"}, "dtype is a floating-point policy of Keras"),
    ],
)
def test_what_a_model_cannot_have(name, options, words):
    with pytest.raises(ValueError, match=words):
        zoo.load_model(name, **options)
