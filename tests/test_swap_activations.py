"""swap_activations: the same function before training, MPELUs that learn after, and a name for what stays."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from keras_mpelu import MPELU
from keras_mpelu import swap_activations
from keras_mpelu.deep_graphs import deep_graphs


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 2, shape).astype("float32")


def outputs(model, *inputs):
    return np.asarray(keras.ops.convert_to_numpy(model(inputs[0] if len(inputs) == 1 else list(inputs))))


def mpelus(model):
    """All MPELUs of a model by name, those of nested models too."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, MPELU):
            found[layer.name] = layer
        elif hasattr(layer, "layers"):
            found |= mpelus(layer)
    return found


def start(layer):
    weights = [keras.ops.convert_to_numpy(weight).tolist() for weight in (layer.alpha, layer.beta)]
    return [sorted({round(value, 5) for value in values}) for values in weights]


ACTIVATIONS = {
    "relu": (lambda: layers.Activation("relu"), [0.0], [1.0]),
    "relu_layer": (lambda: layers.ReLU(), [0.0], [1.0]),
    "elu": (lambda: layers.Activation("elu"), [1.0], [1.0]),
    "elu_layer": (lambda: layers.ELU(0.3), [0.3], [1.0]),
    "relu_operation": (lambda: keras.ops.relu, [0.0], [1.0]),
    "elu_function": (lambda: lambda x: keras.activations.elu(x, alpha=0.5), [0.5], [1.0]),
    "relu6_layer": (lambda: layers.ReLU(6.0), [0.0], [1.0]),
    "relu6_operation": (lambda: keras.ops.relu6, [0.0], [1.0]),
    "relu6": (lambda: layers.Activation("relu6"), [0.0], [1.0]),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_relu_and_elu_start_exactly(kind):
    make, alpha, beta = ACTIVATIONS[kind]
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, make()(inputs))
    swapped = swap_activations(model)
    (layer,) = mpelus(swapped).values()
    assert start(layer) == [alpha, beta]
    assert tuple(layer.alpha.shape) == (4,)
    x = images(50, 5, 4) * 4
    np.testing.assert_allclose(outputs(swapped, x), outputs(model, x), atol=1e-6)


LEAKY = {
    "leaky_relu": (lambda: layers.LeakyReLU(0.3), 0.3),
    "activation": (lambda: layers.Activation("leaky_relu"), 0.2),
    "relu_with_slope": (lambda: layers.ReLU(negative_slope=0.1), 0.1),
    "prelu": (lambda: layers.PReLU(keras.initializers.Constant(0.25), shared_axes=[1]), 0.25),
    "prelu_of_equal_pixels": (lambda: layers.PReLU(keras.initializers.Constant(0.25)), 0.25),
}


@pytest.mark.parametrize("beta", [0.01, 0.001])
@pytest.mark.parametrize("kind", LEAKY)
def test_leaky_ones_start_within_the_stated_bound(kind, beta):
    make, slope = LEAKY[kind]
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, make()(inputs))
    swapped = swap_activations(model, leaky_beta=beta)
    x = images(50, 5, 4) * 4
    difference = np.abs(outputs(swapped, x) - outputs(model, x))
    bound = np.where(x < 0, slope * beta * x**2 / 2, 0)
    assert (difference <= bound + 1e-5).all()
    assert difference.max() > bound.max() / 2  # the bound is not loose


def test_prelu_keeps_its_slope_of_each_channel():
    model = keras.Sequential([keras.Input((6, 3)), layers.PReLU(shared_axes=[1], name="act")])
    model.layers[0].alpha.assign([[0.1, 0.2, 0.4]])
    layer = swap_activations(model).get_layer("act")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.alpha), [10, 20, 40], rtol=1e-5)


def everything():
    """Arguments and layers, an activation layer as argument, nested and shared models, a shared activation layer."""
    keras.utils.set_random_seed(0)
    block = keras.Sequential(
        [
            keras.Input((8, 8, 6)),
            layers.Conv2D(6, 3, padding="same", activation="elu", name="c"),
            layers.ReLU(name="r"),
        ],
        name="block",
    )
    deep = keras.Input((8, 8, 6))
    nested = keras.Model(deep, layers.Add()([deep, block(deep)]), name="nested")
    act = layers.ReLU(name="act")  # met with 6 and with 8 channels, and twice with 6
    inputs, second = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="vector")
    stem = layers.Conv2D(6, 3, padding="same", name="stem")
    x = act(layers.BatchNormalization(name="bn")(stem(inputs)))
    x = act(nested(nested(x)))
    x = act(layers.SeparableConv2D(8, 3, name="separable")(x))
    x = layers.Conv2D(5, 1, activation=layers.ELU(0.5), name="pointwise")(x)
    x = layers.Lambda(lambda x: 2 * x, name="double")(x)
    v = layers.Dense(5, "relu", name="dense")(layers.Dropout(0.5)(second))
    x = keras.ops.relu(layers.GlobalAveragePooling2D()(x) - v) + v
    model = keras.Model([inputs, second], layers.Dense(3, "softmax", name="classifier")(x), name="everything")
    model.get_layer("bn").set_weights([images(6, seed=i) ** 2 for i in range(4)])
    stem.trainable = False
    return model


def test_any_graph_keeps_its_function_its_names_and_its_weights():
    keras.utils.clear_session()  # Keras numbers the layers that have no name
    model = everything()
    x, v = images(4, 8, 8, 3), images(4, 4)
    before = outputs(model, x, v)
    with pytest.warns(UserWarning, match="left in 'everything': double \\(Lambda, not looked into\\)$"):
        swapped = swap_activations(model)
    np.testing.assert_allclose(outputs(swapped, x, v), before, atol=1e-5)
    np.testing.assert_allclose(outputs(model, x, v), before, atol=1e-6)  # the given model is left as it is
    assert sorted(mpelus(swapped)) == sorted(["act", "act_8", "c_mpelu", "r", "pointwise_mpelu", "dense_mpelu", "relu"])
    old = {layer.name for layer in model.layers}
    assert old <= {layer.name for layer in swapped.layers}
    # Shared stays shared: 7 MPELUs, two weights each, though `nested` is called twice.
    assert len(swapped.weights) == len(model.weights) + 2 * 7
    assert not swapped.get_layer("stem").trainable
    assert swapped.get_layer("act").trainable
    for name in ("stem", "bn", "separable", "classifier"):
        for ours, theirs in zip(swapped.get_layer(name).weights, model.get_layer(name).weights, strict=True):
            assert ours is not theirs
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs))


def test_alpha_and_beta_are_learned_also_from_alpha_zero(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(2, "softmax")]
    )
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    swapped = swap_activations(model)  # compiled likewise
    x, y = images(32, 8, 8, 3), np.arange(32) % 2
    first = swapped.train_on_batch(x, y)
    (layer,) = mpelus(swapped).values()
    assert (keras.ops.convert_to_numpy(layer.alpha) != 0).all()
    assert swapped.train_on_batch(x, y) < first
    assert (keras.ops.convert_to_numpy(layer.beta) != 1).all()
    swapped.save(tmp_path / "swapped.keras")
    again = keras.models.load_model(tmp_path / "swapped.keras")
    np.testing.assert_allclose(outputs(again, x), outputs(swapped, x), atol=1e-6)


def test_what_stays_is_named_and_the_rest_is_swapped():
    inputs = keras.Input((6, 4))
    x = layers.ReLU(threshold=1.0, name="above_one")(inputs)
    x = layers.TimeDistributed(layers.Dense(4, "relu"), name="each")(x)
    x = layers.PReLU("uniform", name="pixels")(x)
    x = layers.Activation("swish", name="swish")(layers.ReLU(name="plain")(x))
    model = keras.Model(inputs, layers.LSTM(3, activation="relu", name="memory")(x))
    with pytest.warns(UserWarning) as caught:
        swapped = swap_activations(model)
    (text,) = {str(warning.message) for warning in caught if "swap_activations" in str(warning.message)}
    for name in ("above_one (ReLU with threshold 1.0)", "each (activation='relu')", "pixels (PReLU", "memory (activ"):
        assert name in text
    assert "swish" not in text and "plain" not in text
    assert list(mpelus(swapped)) == ["plain"]
    x = images(3, 6, 4)
    np.testing.assert_allclose(outputs(swapped, x), outputs(model, x), atol=1e-5)


def doubled_relu(x):
    return 2 * keras.ops.relu(x)


class Callable:
    def __call__(self, x):
        return keras.ops.relu(x)


def test_functions_of_ones_own_stay_and_are_named():
    inputs = keras.Input((4,))
    x = layers.Dense(5, lambda x: keras.ops.relu(x), name="a_lambda")(inputs)
    x = layers.Dense(5, doubled_relu, name="a_function")(x)
    x = layers.Dense(5, functools.partial(keras.ops.leaky_relu, negative_slope=0.1), name="a_partial")(x)
    x = layers.Activation(Callable(), name="an_object")(x - 1)
    x = layers.Lambda(lambda x: keras.ops.relu(x), name="a_layer")(x - 1)
    x = keras.ops.maximum(layers.Dense(5, "relu", name="plain")(x), 0.1)
    model = keras.Model(inputs, keras.ops.maximum(x, layers.Dense(5)(x)))
    clipped, _ = (operation for operation in model.operations if type(operation).__name__ == "Maximum")
    kept = {layer.name: getattr(layer, "activation", None) for layer in model.layers}
    with pytest.warns(UserWarning, match="swap_activations left") as caught:
        swapped = swap_activations(model)
    # One only: Keras's own of serialising a lambda would mislead.
    (text,) = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    reasons = {
        "a_lambda": "activation <lambda>",
        "a_function": "activation doubled_relu",
        "a_partial": "activation partial",
        "an_object": "activation Callable",
        "a_layer": "Lambda",
        clipped.name: "maximum with a number",
    }
    assert text.partition(": ")[2] == ", ".join(f"{name} ({why}, not looked into)" for name, why in reasons.items())
    assert list(mpelus(swapped)) == ["plain_mpelu"]
    assert {layer.name: getattr(layer, "activation", None) for layer in model.layers} == kept
    x = images(30, 4)
    np.testing.assert_allclose(outputs(swapped, x), outputs(model, x), atol=1e-5)
    for name in ("a_lambda", "a_function"):
        assert swapped.get_layer(name).kernel is not model.get_layer(name).kernel


def test_an_activity_regularizer_stays_behind_the_activation():
    inputs = keras.Input((4,))
    l1, l2 = keras.regularizers.L1(1.0), keras.regularizers.L2(0.5)
    x = layers.Dense(5, "relu", activity_regularizer=l1)(inputs)
    x = layers.ReLU(max_value=0.5, activity_regularizer=l2)(layers.Activation("elu", activity_regularizer=l2)(x - 0.5))
    model = keras.Model(inputs, layers.Dense(5, "relu6", activity_regularizer=l1)(x))
    swapped = swap_activations(model)
    x = images(20, 4)
    losses = []
    for each in (model, swapped):
        each(x)
        losses.append([float(keras.ops.convert_to_numpy(loss)) for loss in each.losses])
    assert len(losses[0]) == 4 and min(losses[0]) > 0
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_names_that_the_model_has_are_not_taken():
    names = ["a", "a_mpelu", "a_mpelu_2", "b", "b_cap"]
    kinds = [layers.Dense(3, "relu"), layers.Identity(), layers.Identity(), layers.ReLU(6.0), layers.Identity()]
    inputs = x = keras.Input((3,))
    for name, layer in zip(names, kinds, strict=True):
        x = type(layer).from_config({**layer.get_config(), "name": name})(x)
    found = [layer.name for layer in swap_activations(keras.Model(inputs, x)).layers[1:]]
    assert found == ["a", "a_mpelu_3", "a_mpelu", "a_mpelu_2", "b", "b_cap_2", "b_cap"]


class Fragile(layers.Layer):
    def __init__(self, size):
        super().__init__(name="fragile")
        self.size = size

    def get_config(self):
        return {"name": self.name}

    def call(self, inputs):
        return inputs * self.size


def one_relu(**options):
    return swap_activations(keras.Sequential([keras.Input((3,)), layers.ReLU(name="act")]), **options)


def test_adapted_and_learned_state_comes_along():
    normalization = layers.Normalization(name="normalization")
    x = images(60, 5) * 3 + 7
    normalization.adapt(x)
    act = layers.PReLU(keras.initializers.Constant(0.3))
    model = keras.Sequential([keras.Input((5,)), normalization, layers.Dense(4, act, name="dense")])
    with pytest.raises(ValueError, match="dense \\(PReLU that is not built"):
        swap_activations(model)
    model(x)
    swapped = swap_activations(model, leaky_beta=1e-3)
    np.testing.assert_allclose(outputs(swapped, x), outputs(model, x), atol=0.02)
    assert start(swapped.get_layer("dense_mpelu")) == [[300.0], [0.001]]


def test_a_graph_deeper_than_the_recursion_limit():
    inputs = x = keras.Input((2,))
    for _ in range(1100):
        x = layers.Identity()(x)
    with deep_graphs():
        model = keras.Model(inputs, layers.ReLU(name="act")(x))
    swapped = swap_activations(model)
    assert len(swapped.layers) == 1102 and list(mpelus(swapped)) == ["act"]


def test_swapping_again_finds_nothing_more():
    once = swap_activations(keras.Sequential([keras.Input((4,)), layers.ReLU(6.0, name="act")]))
    assert [layer.name for layer in once.layers] == ["act", "act_cap"]
    with pytest.raises(ValueError, match="has no ReLU"):
        swap_activations(once)


def test_channels_first():
    inputs = keras.Input((3, 9))
    model = keras.Model(inputs, layers.ReLU()(inputs))
    (layer,) = mpelus(swap_activations(model, axis=1)).values()
    assert tuple(layer.alpha.shape) == (3,)
    unknown = keras.Input((None, None))
    with pytest.raises(ValueError, match="act \\(unknown number of channels"):
        swap_activations(keras.Model(unknown, layers.ReLU(name="act")(unknown)))


def test_the_slopes_of_an_argument_follow_the_axis_of_its_layer():
    """Axis 1 of the model is the rows of a map that has its channels last, as many as these."""
    inputs = keras.Input((3, 5, 2))
    prelu = layers.PReLU(shared_axes=[1, 2])
    x = layers.Conv2D(3, 1, activation=prelu, data_format="channels_last", name="conv")(inputs)
    model = keras.Model(inputs, x)
    model(np.zeros((1, 3, 5, 2)))  # before it an argument has no weights
    prelu.set_weights([np.array([[[0.1, 0.2, 0.3]]])])
    (layer,) = mpelus(swap_activations(model, axis=1)).values()
    assert layer.axis == -1
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.alpha), [10.0, 20.0, 30.0], rtol=1e-6)


def quantized():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu", name="dense")])
    model.layers[0].quantize("int8")
    return model


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: swap_activations(Subclassed()), "functional or Sequential"),
        (lambda: swap_activations(layers.ReLU()), "functional or Sequential"),
        (lambda: swap_activations(quantized()), "quantized layer 'dense'; swap the model that it was made from"),
        (lambda: swap_activations(keras.Sequential([layers.ReLU()])), "not built"),
        (lambda: swap_activations(keras.Sequential([keras.Input((3,)), layers.Dense(2, "swish")])), "has no ReLU"),
        (
            lambda: swap_activations(keras.Sequential([keras.Input((3,)), layers.ReLU(), Fragile(2)])),
            "cannot copy layer 'fragile', a Fragile.*register_keras_serializable",
        ),
        (
            lambda: swap_activations(
                keras.Sequential(
                    [keras.Input((2, 3)), layers.TimeDistributed(layers.Dense(2, doubled_relu), name="each")]
                )
            ),
            "cannot copy layer 'each', a TimeDistributed",
        ),
        *((lambda beta=beta: one_relu(leaky_beta=beta), "small positive") for beta in (0, "0.1", np.inf, np.nan, None)),
        *((lambda axis=axis: one_relu(axis=axis), "integer of a channel axis") for axis in (0, 1.0, None, "1")),
        *((lambda axis=axis: one_relu(axis=axis), "'act' gets .*no channel axis") for axis in (5, 2, -2, -3)),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


APPLICATIONS = {
    "MobileNet": ({"alpha": 0.25, "dropout": 0}, 27),
    "ResNet50": ({}, 49),
    "VGG16": ({}, 15),
    "DenseNet121": ({}, 121),
}
# None of them has ELU: here it takes the place of every ReLU, as layer (ResNet50) and as argument (VGG16).
CASES = [*((name, "relu") for name in APPLICATIONS), ("ResNet50", "elu"), ("VGG16", "elu")]
QUICKEST = [("MobileNet", "relu"), ("VGG16", "elu")]


@pytest.fixture
def compute(quick_compilation):
    """Outputs of a model. JAX compiles the whole of it: eagerly it would compile each layer."""
    return outputs if keras.backend.backend() != "jax" else lambda model, x: model.predict(x, verbose=0)


@pytest.mark.parametrize(
    ("name", "activation"),
    [pytest.param(*case, marks=[] if case in QUICKEST else pytest.mark.slow, id="-".join(case)) for case in CASES],
)
def test_keras_applications(name, activation, tmp_path, compute):
    keras.utils.set_random_seed(0)
    options, count = APPLICATIONS[name]
    # Logits: a softmax of random weights may be 0 or 1 whatever the network computes.
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None, **options
    )
    if activation == "elu":
        model = keras.models.model_from_json(model.to_json().replace('"activation": "relu"', '"activation": "elu"'))
    swapped = swap_activations(model)  # without a warning, which would be an error here: nothing is kept
    assert len(mpelus(swapped)) == count
    alphas = {start(layer)[0][0] for layer in mpelus(swapped).values()}
    assert alphas == {1.0 if activation == "elu" else 0.0}
    x, y = images(8, 32, 32, 3), np.arange(8)
    before = compute(model, x)
    assert before.std() > 0
    # Relative to the largest output: those of random weights are of any size.
    np.testing.assert_allclose(compute(swapped, x), before, atol=1e-5 * np.abs(before).max())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    swapped.compile(keras.optimizers.SGD(1e-2), loss, run_eagerly=keras.backend.backend() != "jax")
    first = swapped.train_on_batch(x, y)
    assert swapped.train_on_batch(x, y) < first
    swapped.save(tmp_path / "swapped.keras")
    again = keras.models.load_model(tmp_path / "swapped.keras")
    after = compute(swapped, x)
    np.testing.assert_allclose(compute(again, x), after, atol=1e-5 * np.abs(after).max())
