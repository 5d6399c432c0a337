"""Self-normalizing networks: the theorems of Klambauer et al. (2017) with figures, and the six rivals."""

import math

import keras
import numpy as np
import pytest

import zoo

# Equation 14: the constants of the fixed point (0, 1).
ERFC1, ERFC2 = math.erfc(1 / math.sqrt(2)), math.erfc(math.sqrt(2))
ALPHA = -math.sqrt(2 / math.pi) / (ERFC1 * math.sqrt(math.e) - 1)
LAMBDA = (
    (1 - ERFC1 * math.sqrt(math.e))
    * math.sqrt(2 * math.pi)
    * (
        2 * ERFC2 * math.e**2
        + math.pi * ERFC1**2 * math.e
        - 2 * (2 + math.pi) * ERFC1 * math.sqrt(math.e)
        + math.pi
        + 2
    )
    ** -0.5
)
erfc = np.vectorize(math.erfc, otypes=[float])


def moment_map(mu, omega, nu, tau):
    """Equations 4 and 5: mean and variance of selu(z), z normal of mean mu * omega and variance nu * tau."""
    m, v = mu * omega, nu * tau
    s = np.sqrt(v)
    below, above, twice = (erfc((m + k * v) / (math.sqrt(2) * s)) for k in (0, 1, 2))
    bell = math.sqrt(2 / math.pi) * s * np.exp(-(m**2) / (2 * v))
    mean = LAMBDA / 2 * (-(ALPHA + m) * below + ALPHA * np.exp(m + v / 2) * above + bell + 2 * m)
    second = (m**2 + v) * (2 - below) + m * bell
    second += ALPHA**2 * (-2 * np.exp(m + v / 2) * above + np.exp(2 * (m + v)) * twice + below)
    second *= LAMBDA**2 / 2
    return mean, second - mean**2


def grid(*intervals, points=11):
    return np.meshgrid(*(np.linspace(low, high, points) for low, high in intervals))


def jacobian(mu, omega, nu, tau, step=1e-5):
    """Derivatives of the map by (mu, nu), as arrays of 2 x 2 matrices."""
    by_mu = np.subtract(moment_map(mu + step, omega, nu, tau), moment_map(mu - step, omega, nu, tau)) / (2 * step)
    by_nu = np.subtract(moment_map(mu, omega, nu + step, tau), moment_map(mu, omega, nu - step, tau)) / (2 * step)
    return np.moveaxis(np.stack([by_mu, by_nu], axis=1), (0, 1), (-2, -1))


def test_selu_has_the_constants_of_the_fixed_point():
    assert (ALPHA, LAMBDA) == pytest.approx((1.6732632423543772, 1.0507009873554805), abs=1e-14)
    selu = keras.ops.convert_to_numpy(keras.ops.selu(np.array([1.0, -50.0], "float32")))
    np.testing.assert_allclose(selu, [LAMBDA, -LAMBDA * ALPHA], rtol=1e-6)


def test_the_map_is_the_integral_over_a_normal_input():
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    x = -0.01 + math.sqrt(1.65) * z
    values = LAMBDA * np.where(x > 0, x, ALPHA * np.expm1(x))
    mean, variance = moment_map(0.1, -0.1, 1.5, 1.1)
    assert mean == pytest.approx(weights @ values, abs=2e-3)  # the kink at 0 limits the quadrature
    assert variance == pytest.approx(weights @ values**2 - (weights @ values) ** 2, abs=2e-3)
    assert (mean, variance) == pytest.approx((0.0492363600, 1.4720812218), abs=1e-9)


def test_fixed_point_and_its_jacobian():
    np.testing.assert_allclose(moment_map(0.0, 0.0, 1.0, 1.0), (0, 1), atol=1e-14)
    matrix = jacobian(0.0, 0.0, 1.0, 1.0)
    np.testing.assert_allclose(matrix, [[0, 0.08883476], [0, 0.78264788]], atol=1e-7)
    assert np.linalg.norm(matrix, 2) == pytest.approx(0.7876733600, abs=1e-7)


@pytest.mark.parametrize(
    ("omega", "tau", "expected"),
    [(0, 1, (0, 1)), (0, 0.95, (-0.0186, 0.8288)), (0.1, 1.1, (0.0547, 1.4103)), (0, 1.25, (0.152, 2.179))],
)
def test_fixed_points_of_other_weights(omega, tau, expected):
    point = (0.1, 1.5)
    for _ in range(300):
        point = moment_map(point[0], omega, point[1], tau)
    np.testing.assert_allclose(point, expected, atol=6e-4)


@pytest.mark.parametrize(("layers", "distance"), [(8, 5.8e-2), (16, 7.9e-3), (32, 1.6e-4), (64, 6.1e-8)])
def test_the_distance_to_variance_one_shrinks_with_depth(layers, distance):
    point = (0.1, 1.5)
    for _ in range(layers):
        point = moment_map(point[0], 0.0, point[1], 1.0)
    assert abs(point[1] - 1) == pytest.approx(distance, rel=0.05)  # two digits are known


def test_theorem_1_the_map_contracts_into_its_domain():
    domain = grid((-0.1, 0.1), (-0.1, 0.1), (0.8, 1.5), (0.95, 1.1))
    mean, variance = moment_map(*domain)
    # Inside the paper's image, and the figures of a finer grid.
    assert -0.03106 - 1e-5 <= mean.min() and mean.max() <= 0.06773
    assert 0.80009 <= variance.min() and variance.max() <= 1.48617
    np.testing.assert_allclose([mean.min(), mean.max()], [-0.031061, 0.067725], atol=1e-6)
    np.testing.assert_allclose([variance.min(), variance.max()], [0.803712, 1.481575], atol=1e-6)
    assert np.linalg.norm(jacobian(*domain), 2, axis=(-2, -1)).max() == pytest.approx(0.8976, abs=1e-4)


def test_theorem_2_a_large_variance_shrinks():
    mu, omega, nu, tau = grid((-1, 1), (-0.1, 0.1), (3, 16), (0.8, 1.25))
    _, variance = moment_map(mu, omega, nu, tau)
    assert (variance - nu).max() == pytest.approx(-0.1197, abs=1e-4)
    assert (variance / nu).max() == pytest.approx(0.960, abs=1e-3)


@pytest.mark.parametrize(
    ("nu", "tau", "least"), [((0.02, 0.16), (0.8, 1.25), 1.159), ((0.02, 0.24), (0.9, 1.25), 1.208)]
)
def test_theorem_3_a_small_variance_grows(nu, tau, least):
    mu, omega, nu, tau = grid((-0.1, 0.1), (-0.1, 0.1), nu, tau)
    _, variance = moment_map(mu, omega, nu, tau)
    assert (variance / nu).min() == pytest.approx(least, abs=2e-3)


WIDTHS = [1024, 512] * 16


@pytest.mark.parametrize("initializer", ["lecun_normal", "he_normal", "glorot_normal"])
def test_moments_through_32_layers_that_are_not_square(initializer):
    """Dense layers of Keras against infinitely wide ones, whose units differ in omega: z has variance tau E[x**2]."""
    keras.utils.set_random_seed(0)
    x = keras.random.normal((600, 512), seed=0)
    z = np.linspace(-10, 10, 20001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    second, fan_in, measured, expected, expected_mean = 1.0, 512, [], [], []
    for units in WIDTHS:
        x = keras.layers.Dense(units, "selu", kernel_initializer=initializer)(x)
        tau = {"lecun_normal": 1, "he_normal": 2, "glorot_normal": 2 * fan_in / (fan_in + units)}[initializer]
        signal = math.sqrt(tau * second) * z
        selu = LAMBDA * np.where(signal > 0, signal, ALPHA * np.expm1(np.minimum(signal, 0)))
        second, fan_in = np.trapezoid(selu**2 * density, z), units
        expected_mean.append(np.trapezoid(selu * density, z))
        expected.append(second - expected_mean[-1] ** 2)
        values = keras.ops.convert_to_numpy(x).astype("float64")
        measured.append((values.mean(), values.var()))
    mean, variance = np.array(measured).T
    if initializer == "lecun_normal":
        assert np.abs(mean).max() < 0.05
        assert 0.9 < variance.min() and variance.max() < 1.1
    else:  # theory tells what goes wrong, too
        assert np.abs(variance[-2:] - 1).max() > {"he_normal": 50, "glorot_normal": 0.2}[initializer]
    # A layer of n units has a second moment that is off by sqrt(2 / n) or so; where nothing pulls it back, as with He,
    # the logarithms of these errors add up like a random walk. Three standard deviations, at the narrowest width.
    reach = 3 * np.sqrt(2 / min(WIDTHS) * np.arange(1, len(WIDTHS) + 1))
    np.testing.assert_array_less(np.abs(np.log(variance / expected)), reach)
    # Means in units of the root mean square: of n units they are off by sqrt(1 / n) or so, at every layer anew.
    expected_mean = expected_mean / np.sqrt(np.square(expected_mean) + expected)
    np.testing.assert_allclose(mean / np.sqrt(mean**2 + variance), expected_mean, atol=3 / min(WIDTHS) ** 0.5)


# Trainable parameters by hand: 16 columns, 5 layers (3 blocks) of 32 units, 4 classes.
PLAIN = 16 * 32 + 32 + 4 * (32 * 32 + 32) + 32 * 4 + 4
COUNTS = {
    "snn_mlp2": ({"depth": 5}, PLAIN),
    "relu_mlp": ({"depth": 5}, PLAIN),
    "batchnorm_mlp": ({"depth": 5}, PLAIN + 5 * 2 * 32),
    "layernorm_mlp": ({"depth": 5}, PLAIN + 5 * 2 * 32),
    "weightnorm_mlp": ({"depth": 5}, PLAIN + 5 * 32),
    "highway_mlp": ({"depth": 5}, PLAIN + 4 * (32 * 32 + 32)),
    "residual_mlp": ({"depth": 3}, 2 * 16 * 32 + 32 + 5 * 32 * 32 + 3 * 4 * 32 + 32 * 4 + 4),
}
DIAVOLO = {"depth": 2, "form": "diavolo", "block_layers": 3, "bottleneck": 0.25}
# Each block: in -> 8 -> 8 -> 32, with batch norm after each.
COUNTS_DIAVOLO = (16 * 32 + 32) + (16 * 8 + 64 + 256) + (32 * 8 + 64 + 256) + 2 * 2 * (8 + 8 + 32) + 32 * 4 + 4


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name):
    options, count = COUNTS[name]
    assert trainable(zoo.create_model(name, width=32, num_classes=4, **options)) == count


def test_parameters_of_diavolo_blocks():
    assert trainable(zoo.create_model("residual_mlp", width=32, num_classes=4, **DIAVOLO)) == COUNTS_DIAVOLO


def by_hand(model, x, method):
    """The forward pass in NumPy, at inference, from the weights by name."""

    def dense(x, name):
        layer = model.get_layer(name)
        weights = [keras.ops.convert_to_numpy(w).astype("float64") for w in layer.weights]
        if method == "weightnorm" and name.startswith("hidden"):
            by_name = dict(zip((w.name for w in layer.weights), weights, strict=True))
            kernel = by_name["kernel"] * by_name["g"] / np.linalg.norm(by_name["kernel"], axis=0)
            return x @ kernel + by_name["bias"]
        return x @ weights[0] + (weights[1] if len(weights) > 1 else 0)

    def norm(x, name):
        layer = model.get_layer(name)
        if method == "layernorm":
            mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        else:
            mean, variance = (keras.ops.convert_to_numpy(w) for w in (layer.moving_mean, layer.moving_variance))
        gamma, beta = (keras.ops.convert_to_numpy(w) for w in (layer.gamma, layer.beta))
        return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta

    def relu(x):
        return np.maximum(x, 0)

    for n in (f"hidden{number}" for number in (1, 2, 3)):
        if method == "highway" and n != "hidden1":
            gate = 1 / (1 + np.exp(-dense(x, f"{n}_gate")))
            x = relu(dense(x, n)) * gate + x * (1 - gate)
        elif method == "residual":
            shortcut = dense(x, f"{n}_shortcut") if n == "hidden1" else x
            x = relu(norm(dense(x, f"{n}_dense1"), f"{n}_bn1"))
            x = relu(norm(dense(x, f"{n}_dense2"), f"{n}_bn2") + shortcut)
        elif method == "batchnorm":
            x = norm(relu(dense(x, n)), f"{n}_bn")
        elif method == "layernorm":
            x = relu(norm(dense(x, n), f"{n}_ln"))
        else:
            x = relu(dense(x, n))
    return dense(x, "classifier")


@pytest.mark.parametrize("method", ["relu", "batchnorm", "layernorm", "weightnorm", "highway", "residual"])
def test_rivals_compute_what_their_papers_say(method):
    keras.utils.set_random_seed(0)
    model = zoo.create_model(f"{method}_mlp", depth=3, width=24, dropout=0.5, classifier_activation=None)
    rng = np.random.default_rng(0)
    for weight in model.weights:  # nothing left at 0 or 1, where a mistake would not show
        if "preprocess" not in weight.path and weight.name not in ("kernel", "seed_generator_state"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    x = rng.normal(size=(10, 16)).astype("float32")
    given = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(given, by_hand(model, x, method), rtol=1e-4, atol=1e-4)


def test_every_variable_of_a_rival_gets_a_gradient():
    """One step of SGD at a rate of 1 moves every weight; the gates start mostly closed."""
    for method in ("weightnorm", "highway", "residual"):
        keras.utils.set_random_seed(1)
        model = zoo.create_model(f"{method}_mlp", depth=3, width=16, num_classes=3)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        before = [keras.ops.convert_to_numpy(w).copy() for w in model.trainable_weights]
        model.train_on_batch(np.random.default_rng(0).normal(size=(60, 16)).astype("float32"), np.arange(60) % 3)
        for weight, old in zip(model.trainable_weights, before, strict=True):
            new = keras.ops.convert_to_numpy(weight)
            assert np.isfinite(new).all() and (new != old).any(), weight.path
    gate = zoo.create_model("highway_mlp", depth=2, width=4).get_layer("hidden2_gate")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(gate.bias), -1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("relu_mlp", {"form": "diavolo"}, "form of 'relu' is 'rectangular' or 'conic'"),
        ("highway_mlp", {"form": "conic"}, "form of 'highway' is 'rectangular'"),
        ("residual_mlp", {"form": "conic"}, "'rectangular' or 'diavolo'"),
        ("residual_mlp", {"block_layers": 1}, "block_layers is an integer, 2 or more"),
        ("residual_mlp", {"form": "diavolo", "bottleneck": 0}, "bottleneck is a fraction, above 0"),
        ("relu_mlp", {"method": "adam"}, "method is one of relu, batchnorm"),
        ("relu_mlp", {"depth": 0}, "1 or more"),
        ("relu_mlp", {"dropout": 1}, "below 1"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model(name, **options)
