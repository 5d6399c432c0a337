"""How signals and gradients keep their size through deep networks, at initialisation.

For 30 and 52 plain convolution layers and for the nopre ResNet of depth 1001:
the second moment of each layer's output before its activation, and of the
gradient there of a random linear function of the network's output, for every
activation and every initialisation. He et al. (2015) and Li et al. (2018,
section 3.2) derive the initialisations from these two.
"""

import csv
import functools
import math

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_mpelu import MPELU
from keras_mpelu import MPELUNormal
from keras_mpelu import lsuv
from keras_mpelu.deep_graphs import deep_graphs
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.registry import create_model

# Each activation with the alpha of its first-order expansion, slope alpha * beta at beta = 1, for the Taylor rule.
# MPELU starts here from the paper's other choice, 0.25: from alpha = 1 it is ELU.
ACTIVATIONS = {"relu": 0.0, "prelu": 0.25, "elu": 1.0, "mpelu": 0.25}
TAYLOR = {"taylor fan_in": "fan_in", "taylor fan_out": "fan_out", "taylor fan_avg": "fan_avg"}
INITIALIZERS = ("gaussian 0.01", "he", *TAYLOR, "lsuv", "autoinit")
# Plain layers, or the depth of the residual network; images of a batch; their height and width.
NETS = {"plain30": (30, 8, 16), "plain52": (52, 8, 16), "nopre1001": (1001, 4, 16)}
EVERY = 3  # residual units from one probe to the next


def jobs(nets=NETS):
    """`(key, function that measures)` for each network, activation and initialisation."""
    for net, (depth, batch, size) in nets.items():
        for activation in ACTIVATIONS:
            build = functools.cache(functools.partial(probed, net, activation, depth, batch, size))
            for initializer in INITIALIZERS:
                if net.startswith("plain") or initializer != "autoinit":  # its rule for sums is not ours to repeat
                    key = {"net": net, "activation": activation, "initializer": initializer}
                    yield key, functools.partial(measure, build, activation, initializer)


def measure(build, activation, initializer, seed=0):
    """The second moments layer by layer, a row each."""
    network, with_probes, probes, images, start = build()
    network.set_weights(start)
    keras.utils.set_random_seed(seed)
    initialize(network, activation, initializer, images)
    for probe in probes:
        probe.zeros.assign(ops.zeros(probe.zeros.shape))
    direction = np.random.default_rng(seed).normal(size=with_probes.output_shape).astype("float32")
    with deep_graphs():
        with_probes.train_on_batch(images, direction)
    return [
        {
            "layer": layer,
            # Squared here: float32 ends at 1e-38 (and at 3e38), a second moment may go beyond.
            "signal": f"{float(probe.rms) ** 2:.4g}",
            "gradient": f"{_rms(ops.convert_to_numpy(probe.zeros)) ** 2:.4g}",
        }
        for layer, probe in enumerate(probes, start=1)
    ]


def initialize(network, activation, initializer, images):
    """Gives every convolution a new kernel by the rule of that name."""
    if initializer == "lsuv":
        with deep_graphs():
            lsuv(network, images)
        return
    alpha = ACTIVATIONS[activation]
    convolutions = [layer for layer in network.layers if isinstance(layer, layers.Conv2D)]
    for number, layer in enumerate(convolutions):
        if initializer == "gaussian 0.01":
            rule = keras.initializers.RandomNormal(stddev=0.01)
        elif initializer == "he":
            rule = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
        elif initializer == "autoinit":
            rule = autoinit(second_moment(activation, alpha) if number else 1.0)
        else:
            rule = MPELUNormal(alpha=alpha, mode=TAYLOR[initializer])
        layer.kernel.assign(rule(layer.kernel.shape))


def autoinit(incoming):
    """The rule of AutoInit (Bingham and Miikkulainen, 2023) for layers fed by a signal of that second moment.

    Variance 1 / (fan_in * E[x**2]), so that the output has variance 1; the
    moment is that of the activation of a standard normal, exactly, where the
    Taylor rule takes its first-order expansion.
    """
    return keras.initializers.VarianceScaling(1 / incoming, "fan_in", "truncated_normal")


def second_moment(activation, alpha):
    """`E[f(z)**2]` of a standard normal z, by quadrature."""
    z = np.linspace(-12, 12, 24001)
    negative = {"relu": 0 * z, "prelu": alpha * z}.get(activation, alpha * np.expm1(np.minimum(z, 0)))
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(np.where(z > 0, z, negative) ** 2 * density, z))


def probed(net, activation, depth, batch, size):
    """A network, the same with probes, the probes in order, images and the weights it started with."""
    shape = (batch, size, size, 3)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    with deep_graphs():
        if net.startswith("plain"):
            network = plain(depth, activation, shape)
        else:
            network = nopre(depth, activation, shape)
            # It standardises inside: so that the first convolution sees a standard normal, too.
            images = (images * CIFAR100_STD + CIFAR100_MEAN).astype("float32")
        probes = []

        def call(layer, *args, **kwargs):
            x = layer(*args, **kwargs)
            if _is_probed(layer):
                probes.append(Probe(name=f"probe{len(probes) + 1}"))
                x = probes[-1](x)
            return x

        with_probes = keras.models.clone_model(
            network, keras.Input(batch_shape=shape), clone_function=lambda layer: layer, call_function=call
        )
        # The probes learn, and batch norm, which at rest would take its moving statistics.
        for layer in network.layers:
            layer.trainable = isinstance(layer, layers.BatchNormalization)
        with_probes.compile(
            keras.optimizers.SGD(1.0),  # one step from zero leaves minus the gradient
            lambda direction, output: batch * ops.sum(direction * output, axis=tuple(range(1, len(output.shape)))),
            run_eagerly=depth > 100,  # compiling so deep a graph takes longer than the one step
        )
    return network, with_probes, probes, images, network.get_weights()


class Probe(keras.layers.Layer):
    """Adds zeros, whose gradient is that of the signal, and notes the root mean square of the signal."""

    def build(self, input_shape):
        self.zeros = self.add_weight(shape=input_shape, initializer="zeros", name="zeros")
        self.rms = self.add_weight(shape=(), initializer="zeros", trainable=False, name="rms")

    def call(self, inputs):
        largest = ops.maximum(ops.max(ops.abs(inputs)), 1e-37)  # squares of float32 underflow first
        self.rms.assign(largest * ops.sqrt(ops.mean(ops.square(inputs / largest))))
        return inputs + self.zeros


def _is_probed(layer):
    """Every convolution of a plain network; some of the sums of a residual one."""
    if isinstance(layer, layers.Add):
        return int(layer.name.removesuffix("_add").rpartition("unit")[2]) % EVERY == 0
    return layer.name.startswith("plain")


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values.astype("float64")))))


def plain(depth, activation, shape):
    """A plain network: 3 x 3 convolutions without bias, a third each of 64, 128 and 256 channels.

    Its maps wrap around: zeros at the borders would take a part of every
    signal, whatever the initialisation.
    """
    x = inputs = keras.Input(batch_shape=shape)
    for number in range(depth):
        stage, first = divmod(3 * number, depth)
        if number:
            x = _activation(activation, f"act{number}")(x)
        x = ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1)
        x = ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2)
        strides = 2 if stage and first < 3 else 1
        x = layers.Conv2D(64 * 2**stage, 3, strides, use_bias=False, name=f"plain{number + 1}")(x)
    return keras.Model(inputs, x)


def nopre(depth, activation, shape):
    """The zoo's no-preactivation ResNet with another activation in the place of every MPELU."""
    network = create_model(
        "mpelu_nopre_resnet1001", depth=depth, input_shape=shape[1:], num_classes=10, classifier_activation=None
    )

    def clone(layer):
        if isinstance(layer, MPELU):
            return _activation(activation, layer.name)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=clone)


def _activation(activation, name):
    alpha = keras.initializers.Constant(ACTIVATIONS[activation])
    if activation == "prelu":
        return layers.PReLU(alpha, shared_axes=[1, 2], name=name)
    if activation == "mpelu":
        return MPELU(alpha_initializer=alpha, name=name)
    return layers.Activation(activation, name=name)


def draw(path):
    """Draws `signal.png` beside the CSV: a column for each activation, a line for each initialisation."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    nets = list(dict.fromkeys(row["net"] for row in rows))
    panels = [(net, what) for net in nets for what in ("signal", "gradient")]
    figure, axes = pyplot.subplots(
        len(panels), len(ACTIVATIONS), figsize=(12, 2.1 * len(panels)), sharex="row", sharey="row", squeeze=False
    )
    for line, (net, what) in enumerate(panels):
        for column, activation in enumerate(ACTIVATIONS):
            axis = axes[line, column]
            for initializer in INITIALIZERS:
                points = [
                    (int(row["layer"]), float(row[what]))
                    for row in rows
                    if (row["net"], row["activation"], row["initializer"]) == (net, activation, initializer)
                ]
                if points:
                    axis.plot(*zip(*points, strict=True), label=initializer, linewidth=1)
            axis.axhline(1, color="black", linewidth=0.5)
            axis.set_yscale("log")
            axis.set_ylim(1e-8, 1e4)  # the Gaussian leaves it: to 1e-70 it would hide the others' differences
            if not line:
                axis.set_title(activation)
        axes[line, 0].set_ylabel(f"{net}\n{what}")
    figure.supxlabel(f"layer, from the input (residual networks: every {EVERY}rd unit)", fontsize="medium")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncol=len(INITIALIZERS), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
    return picture
