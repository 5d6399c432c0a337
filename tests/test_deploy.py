"""Deployed models compute what the given ones do, in fewer operations."""

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from keras_mpelu import MPELU
from zoo.deploy import LARGEST_INPUT
from zoo.deploy import Pointwise
from zoo.deploy import deploy

# One network of each family, small.
SMALL = {"input_shape": (8, 8, 3)}
FAMILIES = [
    ("mpelu_b_resnet20", {"depth": 8, "stochastic_depth": 0.5, **SMALL}),
    ("mpelu_preact_resnet164", {"depth": 11, "stochastic_depth": 0.5, **SMALL}),
    ("mpelu_nopre_endbn_resnet164", {"depth": 11, **SMALL}),
    ("shah_elu_final_resnet20", {"depth": 8, **SMALL}),
    ("mpelu_nin", SMALL),
    ("snn_mlp4", {"width": 8, "mean": 2.0, "variance": 9.0}),
    ("batchnorm_mlp", {"depth": 3, "width": 8, "dropout": 0.5}),
    ("residual_mlp", {"depth": 2, "width": 8}),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("relu_resnet20", {"depth": 8, "shortcut": "B"}),
            ("mpelu_nonbottleneck_resnet20", {"depth": 8}),
            ("relu_preact_resnet164", {"depth": 11}),
            ("mpelu_small_plain15", {}),
            ("elu_net11", {}),
            ("weightnorm_mlp", {"depth": 2, "width": 8}),
            ("mpelu_resnet110", {}),
            ("mpelu_nopre_resnet164", {}),
        )
    ),
]


def give_statistics(model, seed=0):
    """Weights and moving statistics as after a training; kernels stay."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if "moving_variance" in weight.path:
            weight.assign(rng.uniform(0.5, 2.0, value.shape))
        elif not weight.path.endswith(("kernel", "seed_generator_state")) and not weight.path.startswith("preprocess"):
            noise = 0.2 * rng.normal(size=value.shape).clip(-2, 2)
            weight.assign(value + noise * (value if "act" in weight.path else 1.0))  # an MPELU keeps its signs
    return model


def example_inputs(model, seed=1):
    rng, shape = np.random.default_rng(seed), (3, *model.input_shape[1:])
    return (rng.uniform(0, 255, shape) if len(shape) == 4 else rng.normal(size=shape)).astype("float32")


def outputs_of(model, inputs):
    if keras.backend.backend() == "jax":  # which compiles every operation by itself otherwise
        return np.asarray(model.predict_on_batch(inputs))
    return np.asarray(keras.ops.convert_to_numpy(model(inputs, training=False)))


def assert_same(deployed, model, inputs=None):
    inputs = example_inputs(model) if inputs is None else inputs
    expected, found = outputs_of(model, inputs), outputs_of(deployed, inputs)
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # it says something of the inputs
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def kinds(model):
    return [type(layer).__name__ for layer in model.layers if not isinstance(layer, layers.InputLayer)]


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_every_family_computes_the_same(name, options):
    model = give_statistics(zoo.create_model(name, classifier_activation=None, **options))
    deployed = deploy(model)
    assert_same(deployed, model)
    assert not {"BatchNormalization", "Dropout", "AlphaDropout", "Identity"} & set(kinds(deployed))
    assert deployed.trainable_weights == [] and model.trainable_weights
    assert deployed.name == f"{model.name}_inference_only"


def test_conv_and_batch_norm_by_hand():
    inputs = keras.Input((1, 1, 2))
    x = layers.Conv2D(2, 1, name="conv")(inputs)
    model = keras.Model(inputs, layers.BatchNormalization(epsilon=0.0, name="bn")(x))
    model.get_layer("conv").set_weights([np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), np.array([5.0, 6.0])])
    # gamma, beta, mean, variance: scale 2 / 2 = 1 and 9 / 3 = 3, shift 1 - 3 and -1 - 4 * 3
    model.get_layer("bn").set_weights([np.array(v) for v in ([2.0, 9.0], [1.0, -1.0], [3.0, 4.0], [4.0, 9.0])])
    deployed = deploy(model)
    assert kinds(deployed) == ["Conv2D"]
    kernel, bias = deployed.get_layer("conv").get_weights()
    np.testing.assert_array_equal(kernel, [[[[1.0, 6.0], [3.0, 12.0]]]])
    np.testing.assert_array_equal(bias, [5.0 - 2.0, 18.0 - 13.0])


def two_users_of_the_conv(x):
    x = layers.Conv2D(4, 3)(x)
    return layers.Multiply()([layers.BatchNormalization()(x), x])


def two_users_of_the_norm(x):
    x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
    return layers.Multiply()([layers.Conv2D(3, 1)(x), x])


def behind_lora(x):
    conv = layers.Conv2D(4, 3)
    conv.build(x.shape)
    conv.enable_lora(2)
    conv.lora_kernel_b.assign(np.ones(conv.lora_kernel_b.shape))
    return layers.BatchNormalization()(conv(x))


def norm_before(filters=4, **options):
    def build(x):
        return layers.Conv2D(filters, **options)(layers.BatchNormalization()(layers.MaxPooling2D()(x)))

    return build


def shared_conv(x):
    conv = layers.Conv2D(3, 1)
    return conv(layers.BatchNormalization()(conv(x)))


def two_norms(x):
    return layers.BatchNormalization()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x)))


def sum_norm_relu(x):
    return layers.ReLU()(layers.BatchNormalization()(layers.Add()([x, layers.Conv2D(3, 1)(x)])))


def broadcast_sum(x):
    return layers.Add()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])


CASES = {
    "conv with two users": (two_users_of_the_conv, ["Conv2D", "Pointwise", "Multiply"]),
    "norm with two users": (two_users_of_the_norm, ["MaxPooling2D", "Pointwise", "Conv2D", "Multiply"]),
    "before a padded conv": (norm_before(kernel_size=3, padding="same"), ["MaxPooling2D", "Pointwise", "Conv2D"]),
    "before an unpadded conv": (norm_before(kernel_size=3, strides=2), ["MaxPooling2D", "Conv2D"]),
    "before a 1x1 conv": (norm_before(kernel_size=1, padding="same", strides=2), ["MaxPooling2D", "Conv2D"]),
    "behind an activation": (
        lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3, activation="tanh")(x)),
        ["Conv2D", "Pointwise"],
    ),
    "of another axis": (
        lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(x)),
        ["Conv2D", "BatchNormalization"],
    ),
    "before a conv in groups": (
        norm_before(kernel_size=1, filters=6, groups=3),
        ["MaxPooling2D", "Pointwise", "Conv2D"],
    ),
    "behind a conv in groups": (
        lambda x: layers.BatchNormalization()(layers.Conv2D(6, 3, groups=3)(x)),
        ["Conv2D"],
    ),
    "behind a conv with LoRA": (behind_lora, ["Conv2D", "Pointwise"]),
    "inverted normalization": (
        lambda x: layers.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6], invert=True)(layers.Conv2D(3, 1)(x)),
        ["Conv2D", "Normalization"],
    ),
    "shared conv": (shared_conv, ["Conv2D", "Pointwise"]),
    "two norms": (two_norms, ["Conv2D"]),
    "before a layer whose activation has weights": (
        norm_before(kernel_size=1, activation=layers.PReLU("ones", shared_axes=[1, 2])),
        ["MaxPooling2D", "Conv2D"],
    ),
    "of a higher precision": (
        lambda x: layers.Conv2D(4, 1, dtype="mixed_bfloat16")(layers.Normalization(mean=9.0, variance=1.0)(x)),
        ["Conv2D", "Pointwise"],
    ),
    "behind a conv of a lower precision": (
        lambda x: layers.BatchNormalization(dtype="float32")(layers.Conv2D(4, 1, dtype="mixed_bfloat16")(x)),
        ["Conv2D", "Pointwise"],
    ),
    "MPELU close to the identity": (
        lambda x: MPELU(keras.initializers.Constant(98.0), keras.initializers.Constant(0.01))(x),
        ["Pointwise"],
    ),
    "sum, norm and ReLU": (sum_norm_relu, ["Conv2D", "Pointwise"]),
    "sum of two shapes": (
        lambda x: layers.ReLU()(broadcast_sum(x)),
        ["GlobalAveragePooling2D", "Add", "ReLU"],
    ),
    "growing MPELU": (lambda x: MPELU(beta_initializer=keras.initializers.Constant(-0.5))(x), ["Pointwise"]),
    "shared MPELU": (lambda x: MPELU(axis=None)(x), ["Pointwise"]),
    "MPELU of another axis": (lambda x: MPELU(axis=1)(x), ["MPELU"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_norm_is_folded_only_where_that_is_exact(case):
    build, expected = CASES[case]
    inputs = keras.Input((8, 8, 3))
    model, x = keras.Model(inputs, build(inputs)), np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype("float32")
    outputs_of(model, x)  # before it an activation that is an argument has no weights
    deployed = deploy(give_statistics(model))
    assert sorted(kinds(deployed)) == sorted(expected)
    assert_same(deployed, model, x)


def test_large_means_stay_where_the_inputs_are():
    """Columns of mean 1e6 and deviation 1: folded into the dense layer in float32, little would be left of them."""
    inputs = keras.Input((3,))
    x = layers.Normalization(mean=[1e6] * 3, variance=[1.0] * 3)(inputs)
    model = keras.Model(inputs, layers.Dense(4)(x))
    deployed = deploy(model)
    assert kinds(deployed) == ["Normalization", "Dense"]
    assert_same(deployed, model, (1e6 + np.random.default_rng(0).normal(size=(5, 3))).astype("float32"))


def test_dropout_that_is_asked_for_at_inference_stays():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, layers.Dropout(0.5)(layers.Dropout(0.5)(inputs), training=True))
    deployed = deploy(model)
    assert kinds(deployed) == ["Dropout"]
    assert (keras.ops.convert_to_numpy(deployed(np.ones((1, 64), "float32"))) == 0).any()


@pytest.mark.parametrize("calls", [1, 2])
def test_a_model_that_is_called_as_in_training_stays(calls):
    part = keras.Sequential([keras.Input((64,)), layers.Dropout(0.5)], name="part")
    inputs = keras.Input((64,))
    # Monte Carlo dropout, of one draw or of the mean of two.
    outputs = (
        layers.Average()([part(inputs, training=True) for _ in range(calls)])
        if calls > 1
        else part(inputs, training=True)
    )
    model = keras.Model(inputs, outputs)
    outputs = keras.ops.convert_to_numpy(deploy(model)(np.ones((1, 64), "float32")))
    assert 0 < (outputs == 0).sum() < 64


def test_the_exponential_is_that_of_float64():
    x = np.concatenate([np.linspace(-40, 3, 100_000), [-1e6, 0.0, 1e6]]).astype("float32")[:, None]
    layer = Pointwise(norm=False, activation="decaying_mpelu")
    layer.build((None, 1))
    layer.set_weights([np.array([1.0]), np.array([1.0])])
    exact = np.where(x > 0, x, np.expm1(np.minimum(x, 0).astype("float64")))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(98.0, 0.01), (2000.0, 1e-4), (1000.0, -1e-3)])
def test_a_large_alpha_beside_a_small_beta_keeps_its_digits(alpha, beta):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, MPELU()(inputs))
    model.layers[-1].set_weights([np.array([alpha]), np.array([beta])])
    x = -np.geomspace(1e-6, 100, 1000).astype("float32")[:, None]
    found = outputs_of(deploy(model), x)
    np.testing.assert_allclose(found, alpha * np.expm1(beta * x.astype("float64")), rtol=2e-6)


def test_integers_are_standardised_before_a_convolution():
    norm = layers.Normalization(mean=[9.0] * 3, variance=[4.0] * 3)
    norm(keras.Input((8, 8, 3)))  # of another model, which takes floats
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(inputs, layers.Conv2D(4, 3)(norm(inputs)))
    assert_same(deploy(model), model, np.random.default_rng(0).integers(0, 20, (2, 8, 8, 3), "uint8"))


def test_an_mpelu_that_decayed_to_relu_is_one():
    inputs = keras.Input((2,))
    for alpha, beta, expected in (
        ([1e-20, -1e-9], [-1e-20, 1e-9], "ReLU"),
        ([1e-20, 0.5], [-1e-20, 0.5], "Pointwise"),
        ([1e-20, 1e-20], [-0.5, 0.5], "Pointwise"),  # it grows beyond any bound
    ):
        model = keras.Model(inputs, MPELU()(inputs))
        model.layers[-1].set_weights([np.array(alpha), np.array(beta)])
        deployed = deploy(model)
        assert kinds(deployed) == [expected]
        x = np.array([[-100.0, -LARGEST_INPUT], [-1.0, -0.5], [0.0, 0.0], [2.0, 1.0]], "float32")
        assert_same(deployed, model, x)


def test_a_fine_tuned_model_on_a_nested_base():
    base = zoo.create_model("mpelu_resnet20", depth=8, input_shape=(8, 8, 3), num_classes=5)
    inputs = keras.Input((8, 8, 3))
    x = layers.Dropout(0.5)(base(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.BatchNormalization()(x)))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.uniform(0, 255, (8, 8, 8, 3)), rng.normal(size=(8, 3)), batch_size=4, verbose=0)
    weights = model.get_weights()
    deployed = deploy(model)
    assert kinds(deployed) == ["Functional", "Dense"]
    assert "BatchNormalization" not in kinds(deployed.layers[1])
    assert_same(deployed, model)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional or built Sequential"):
        deploy(Subclassed())


def test_a_sequential_model_in_half_precision():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()])
    assert kinds(deploy(give_statistics(model))) == ["Conv2D", "ReLU"]
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((4,))
    half = give_statistics(keras.Model(inputs, MPELU()(layers.BatchNormalization()(inputs))))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    outputs = deploy(half)(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    exact = keras.ops.convert_to_numpy(keras.ops.cast(half(x), "float32"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")), exact, atol=0.03)


def test_load_model_deploys(tmp_path):
    name = "snn_mlp4.digits"
    model = zoo.load_model(name, classifier_activation=None)
    deployed = zoo.load_model(name, classifier_activation=None, deploy=True)
    x = np.random.default_rng(0).integers(0, 17, (3, 64)).astype("float32")
    assert not deployed.compiled and len(deployed.layers) < len(model.layers)
    assert_same(deployed, model, x)
    assert_same(zoo.load_model(name, features=True, deploy=True), zoo.load_model(name, features=True), x)
    with pytest.raises(ValueError, match="fine-tune without deploy=True"):
        zoo.load_model(name, num_classes=4, deploy=True)
    bn = deploy(give_statistics(zoo.create_model("mpelu_preact_resnet164", depth=11, input_shape=(8, 8, 3))))
    again = zoo.load_model(zoo.save_model(bn, tmp_path / "deployed"))
    assert again.trainable_weights == [] and "Pointwise" in kinds(again)
    assert_same(again, bn)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow alone")
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")  # 2026-11, in favour of another package
def test_tensorflow_lite_computes_the_same(tmp_path):
    """Its converter once gave all layers that share a kernel the constants of one of them."""
    import tensorflow as tf

    model = give_statistics(zoo.create_model("mpelu_nopre_resnet29", depth=11, input_shape=(8, 8, 3)))
    deployed = deploy(model)
    assert sum(isinstance(layer, Pointwise) for layer in deployed.layers) > 2
    deployed.export(tmp_path, verbose=False)
    interpreter = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert())
    (given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()
    x = example_inputs(model)
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(returned["index"]), outputs_of(model, x), rtol=0, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch alone")
@pytest.mark.filterwarnings("ignore")  # of PyTorch's exporter
@pytest.mark.parametrize("deployed", [False, True])
def test_onnx_computes_the_same(deployed, tmp_path, run_onnx):
    model = give_statistics(zoo.create_model("mpelu_nopre_resnet29", depth=11, input_shape=(8, 8, 3)))
    x = example_inputs(model)
    expected = outputs_of(model, x)
    exported = deploy(model) if deployed else model
    exported(x)  # else Keras refuses
    exported.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    np.testing.assert_allclose(run_onnx(tmp_path / "model.onnx", x), expected, rtol=0, atol=1e-5)
