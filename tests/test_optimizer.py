"""CoupledSGD against float64 NumPy, and against torch.optim.SGD with parameter groups."""

import json
import re

import keras
import numpy as np
import pytest

from training.optimizer import CoupledSGD
from training.recipes import MPELU_WEIGHTS
from zoo.registry import create_model

MULTIPLIERS = ((r"/alpha$", 5.0, 10.0), (r"/bias$", 2.0, 0.0), (r"/(alpha|beta)$", 0.5, 3.0))
# What each of these weights gets: the first pattern that fits, or 1 and 1.
EXPECTED = {"kernel": (1, 1), "bias": (2, 0), "alpha": (5, 10), "beta": (0.5, 3)}
START = {name: np.linspace(-1, 2, 7) * (number + 1) for number, name in enumerate(EXPECTED)}
OPTIONS = [(0.9, True), (0.9, False), (0.5, True), (0.0, False)]


def gradient_of(weights):
    """Of a loss without minimum, so that momentum builds up and every weight keeps moving."""
    return np.sin(3 * weights) + 0.5


def run_keras(optimizer, steps):
    layer = keras.layers.Layer(name="layer")
    variables = [
        layer.add_weight(shape=(7,), name=name, initializer=lambda shape, dtype, start=start: start.astype(dtype))
        for name, start in START.items()
    ]
    for _ in range(steps):
        arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
        optimizer.apply([keras.ops.convert_to_tensor(gradient_of(array)) for array in arrays], variables)
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in zip(EXPECTED, variables, strict=True)}


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("momentum, nesterov", OPTIONS)
def test_numpy_reference(momentum, nesterov, scheduled):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.03, 0.01])  # step > boundary
    rates = [0.1, 0.1, 0.03, 0.03, 0.01, 0.01] if scheduled else [0.1] * 6
    optimizer = CoupledSGD(schedule if scheduled else 0.1, momentum, nesterov, l2=0.02, multipliers=MULTIPLIERS)
    actual = run_keras(optimizer, steps=6)
    for name, (rate_multiplier, decay_multiplier) in EXPECTED.items():
        weights, velocity = START[name].copy(), 0.0
        for rate in rates:
            step = rate * rate_multiplier * (gradient_of(weights) + 0.02 * decay_multiplier * weights)
            velocity = momentum * velocity - step
            weights += momentum * velocity - step if nesterov else velocity
        np.testing.assert_allclose(actual[name], weights, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("momentum, nesterov", OPTIONS)
def test_torch_reference(momentum, nesterov):
    """Torch's buffer holds gradients, b <- m b + g, w <- w - r b; Keras's holds steps, v <- m v - r g, w <- w + v.

    With a constant rate r, v = -r b by induction: the same weights, also in
    Nesterov's form, w - r (g + m b) = w + m v - r g. After a change of r, the
    two differ for a while. The paper's code is Torch's.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    groups = [
        {"params": [torch.tensor(START[name], requires_grad=True)], "lr": 0.1 * rate, "weight_decay": 0.02 * decay}
        for name, (rate, decay) in EXPECTED.items()
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=momentum, nesterov=nesterov)
    for _ in range(6):
        for group in groups:
            (weights,) = group["params"]
            weights.grad = torch.tensor(gradient_of(weights.detach().numpy()))
        optimizer.step()
    actual = run_keras(CoupledSGD(0.1, momentum, nesterov, l2=0.02, multipliers=MULTIPLIERS), steps=6)
    for name, group in zip(EXPECTED, groups, strict=True):
        expected = group["params"][0].detach().numpy()
        np.testing.assert_allclose(actual[name], expected, rtol=2e-5, atol=2e-5, err_msg=name)


def test_default_is_plain_nesterov_sgd():
    plain = run_keras(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), steps=3)
    for name, weights in run_keras(CoupledSGD(), steps=3).items():
        np.testing.assert_allclose(weights, plain[name], rtol=1e-6)


def test_pattern_without_match():
    with pytest.raises(ValueError, match=r"'/gamma\$' matches none of 4 variables, such as 'layer"):
        run_keras(CoupledSGD(multipliers=(*MULTIPLIERS, (r"/gamma$", 1.0, 1.0))), steps=1)


@pytest.mark.parametrize("l2", [-1e-4, float("nan")])
def test_bad_l2(l2):
    with pytest.raises(ValueError, match="l2 is 0 or more"):
        CoupledSGD(l2=l2)


def test_config_round_trip():
    schedule = keras.optimizers.schedules.CosineDecay(0.3, 10)
    optimizer = CoupledSGD(schedule, 0.8, False, l2=0.02, multipliers=MULTIPLIERS, name="own", clipnorm=2.0)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is CoupledSGD
    assert restored.get_config() == optimizer.get_config()
    expected = run_keras(optimizer, steps=4)
    for name, weights in run_keras(restored, steps=4).items():
        np.testing.assert_array_equal(weights, expected[name])


def test_fit_moves_by_the_penalty_and_logs_the_loss_without_it():
    rng = np.random.default_rng(0)
    x, y, kernel = (rng.standard_normal(shape).astype("float32") for shape in ((16, 3), (16, 1), (3, 1)))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, name="head")])
    model.set_weights([kernel])
    optimizer = CoupledSGD(0.1, momentum=0.0, nesterov=False, l2=2.0, multipliers=((r"head/kernel$", 0.5, 3.0),))
    model.compile(optimizer, "mse")
    logged = model.fit(x, y, batch_size=16, epochs=1, verbose=0).history["loss"][0]
    error = x.astype("float64") @ kernel - y
    assert logged == pytest.approx(np.mean(error**2), rel=1e-5)  # the penalty would be 3 * sum(kernel**2)
    expected = kernel - 0.1 * 0.5 * (2 * x.T @ error / 16 + 2.0 * 3.0 * kernel)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arch, depth, count", [("mpelu_resnet20", 20, 2 * 19), ("mpelu_nopre_resnet164", 29, 2 * 20)])
def test_recipe_pattern(arch, depth, count):
    model = create_model(arch, depth=depth)
    matched = [weight.path for weight in model.trainable_weights if re.search(MPELU_WEIGHTS, weight.path)]
    wanted = [weight.path for layer in model.layers if type(layer).__name__ == "MPELU" for weight in layer.weights]
    assert sorted(matched) == sorted(wanted)
    assert len(matched) == count
    betas = [weight.path for weight in model.trainable_weights if weight.name == "beta"]
    assert len(betas) > len(matched) / 2  # batch norm has betas too; none of them is matched
    CoupledSGD(multipliers=((MPELU_WEIGHTS, 5.0, 10.0),)).build(model.trainable_variables)
