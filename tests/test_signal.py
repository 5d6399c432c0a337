"""The signal benchmark measures what theory says, by AutoInit's rule and by ours."""

import math

import keras
import numpy as np
import pytest

from training import benchmark
from training import signal


def below(x):
    """Mass of the standard normal below x."""
    return math.erfc(-x / math.sqrt(2)) / 2


def moment(activation, alpha, variance=1.0):
    """`E[f(z)**2]` in closed form for z normal of mean 0."""
    if activation in ("relu", "prelu"):
        return (1 + alpha**2) / 2 * variance
    s = math.sqrt(variance)
    tail = math.exp(2 * variance) * below(-2 * s) - 2 * math.exp(variance / 2) * below(-s) + 0.5
    return variance / 2 + alpha**2 * tail


@pytest.mark.parametrize(("activation", "alpha"), [("relu", 0.0), ("prelu", 0.25), ("elu", 1.0), ("mpelu", 0.25)])
def test_second_moment_of_each_activation(activation, alpha):
    assert signal.ACTIVATIONS[activation] == alpha
    assert signal.second_moment(activation, alpha) == pytest.approx(moment(activation, alpha), rel=1e-6)


@pytest.fixture(scope="module")
def through_30_layers():
    """Signal and gradient through 30 ELU layers, by each rule."""
    network = signal.probed("plain30", "elu", depth=30, batch=4, size=8)

    def measured(initializer):
        rows = signal.measure(lambda: network, "elu", initializer)
        assert [row["layer"] for row in rows] == list(range(1, 31))
        return np.array([[float(row["signal"]), float(row["gradient"])] for row in rows]).T

    return measured


def recursion(scale, depth=30):
    """The signal of infinitely wide layers of kernel variance scale / fan_in."""
    moments = [scale[0]]
    while len(moments) < depth:
        moments.append(scale[1] * moment("elu", 1.0, moments[-1]))
    return np.array(moments)


def test_30_layers_by_autoinit_and_by_taylor_side_by_side(through_30_layers):
    """AutoInit takes the moment of a standard normal, so 1 stays 1; Taylor's first order lets ELU's signal sink."""
    autoinit, _ = through_30_layers("autoinit")
    taylor, _ = through_30_layers("taylor fan_in")
    np.testing.assert_allclose(autoinit, recursion((1, 1 / moment("elu", 1.0))), rtol=0.35)
    np.testing.assert_allclose(taylor, recursion((1, 1)), rtol=0.35)
    assert autoinit[-1] > 0.65 and taylor[-1] < 0.15


def test_lsuv_and_the_gaussian_and_the_gradients(through_30_layers):
    lsuv, _ = through_30_layers("lsuv")
    np.testing.assert_allclose(lsuv, 1, atol=0.15)  # second moments: variance within 0.1, and the mean
    gaussian, gradient = through_30_layers("gaussian 0.01")
    assert gaussian[0] == pytest.approx(27e-4, rel=0.3)
    assert gaussian[-1] < 1e-25 and gradient[0] < 1e-25
    _, gradient = through_30_layers("he")
    assert gradient[-1] == pytest.approx(1, rel=0.05)  # the random direction itself


def test_the_probes_hold_the_gradient():
    """Against a difference quotient of the random linear function, from a layer in the middle."""
    network, with_probes, probes, images, start = built = signal.probed("plain3", "elu", depth=3, batch=2, size=6)
    rows = signal.measure(lambda: built, "elu", "he")
    gradient = -keras.ops.convert_to_numpy(probes[1].zeros).astype("float64")
    assert float(rows[1]["gradient"]) == pytest.approx((gradient**2).mean(), rel=1e-3)
    direction = np.random.default_rng(0).normal(size=with_probes.output_shape)
    for probe in probes:
        probe.zeros.assign(np.zeros(probe.zeros.shape))

    def function(step):
        probes[1].zeros.assign(step * gradient)
        return float((direction * keras.ops.convert_to_numpy(with_probes(images)).astype("float64")).sum())

    step = 1e-2 / np.abs(gradient).max()
    assert (function(step) - function(-step)) / (2 * step) == pytest.approx((gradient**2).sum(), rel=1e-2)


def test_nopre_is_measured_at_sums_with_batch_norm_in_training():
    built = signal.probed("nopre29", "prelu", depth=29, batch=2, size=8)
    network, _, probes, *_ = built
    assert sum(isinstance(layer, keras.layers.PReLU) for layer in network.layers) == 20
    assert len(probes) == 3  # the third unit of each stage
    rows = signal.measure(lambda: built, "prelu", "taylor fan_out")
    assert all(0 < float(row["signal"]) < 1e3 and 0 < float(row["gradient"]) < 1e3 for row in rows)
    moving = [layer.moving_mean for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(np.abs(keras.ops.convert_to_numpy(mean)).max() > 0 for mean in moving)


def test_the_command_writes_table_and_picture_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signal, "ACTIVATIONS", {"relu": 0.0, "mpelu": 0.25})
    monkeypatch.setattr(signal, "INITIALIZERS", ("he", "autoinit"))
    nets = {"plain3": (3, 2, 6)}
    path = benchmark.signal(tmp_path, nets)
    first = path.read_text()
    assert first.startswith("net,activation,initializer,layer,signal,gradient,backend,keras\n")
    assert len(first.splitlines()) == 1 + 2 * 2 * 3
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    benchmark.signal(tmp_path, nets)
    assert path.read_text() == first
    assert "of 4" not in capsys.readouterr().out  # nothing was measured again
