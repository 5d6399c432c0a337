"""Models for inference only: the same function in fewer, cheaper operations.

`deploy(model)` folds batch norm into the neighbouring convolutions and dense
layers, in float64, leaves out what does nothing at inference, and freezes the
rest. What is folded where, with `y = scale * x + shift` per channel for a norm:

| norm | folded into | when it is exact |
|---|---|---|
| behind a convolution or dense layer | that layer | it is linear and nobody else uses its outputs |
| before a convolution | that convolution | nobody else uses the norm; no zeros are padded, which it would shift |
| before a dense layer | that dense layer | nobody else uses the norm |

Elsewhere (behind an addition, say) a batch norm becomes a multiplication and an addition, in one pass with the ReLU or
MPELU behind it: `Pointwise`. The standardisation of the inputs, a fixed norm too, follows the same table.
"""

import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from keras_mpelu import MPELU
from keras_mpelu.deep_graphs import deep_graphs
from zoo.graphs import functional_model
from zoo.graphs import names_of_outputs
from zoo.graphs import one_or_all
from zoo.graphs import tensors_in

TAKES_IN_NORMS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
# Only active in training; all return their inputs otherwise.
DEAD = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
# x / std - mean / std in float32 loses what (x - mean) / std keeps, where the mean is many deviations large.
LARGEST_MEAN = 10.0
# Of alpha, up to which the exponential below is exact enough: its error is 7e-7 times alpha.
LARGEST_ALPHA = 4.0
# An MPELU whose negative side stays below this, down to -LARGEST_INPUT, is computed as the ReLU that it has become.
NEGLIGIBLE = 1e-7
LARGEST_INPUT = 1e3
# exp(16 s) is the 16th power of 1 + s * (the polynomial of these coefficients, the highest first), to 7e-7 for s from
# -17 / 16 to 0: the Chebyshev fit of degree 5 to (exp(s) - 1) / s. Below -17 exp is less than that. XLA's own
# exponential costs twice what reading and writing the tensor does, this next to nothing.
EXPONENTIAL = (8.89917251e-04, 7.78006145e-03, 4.13664092e-02, 1.66588985e-01, 4.99991898e-01, 9.99999799e-01)

ACTIVATIONS = ("decaying_mpelu", "mpelu", "relu", None)


@keras.saving.register_keras_serializable(package="keras_mpelu")
class Pointwise(keras.layers.Layer):
    """Sum, norm with fixed statistics and activation in one pass, for inference only.

    Formula:

    ```
    f(x) = activation(scale * x + shift)
    f(x, y) = activation(scale * (x + y) + shift)
    ```

    On TensorFlow it is one kernel made by XLA, in graphs that are not compiled
    by XLA too: op by op, an MPELU is six passes over memory.

    Args:
        norm: Whether there are `scale` and `shift`.
        activation: `"mpelu"`, with weights `alpha` and `beta`;
            `"decaying_mpelu"`, the same for `beta >= 0`, with an exponential
            that is exact to 7e-7, for a small `alpha`; `"relu"`; or `None`.

    Input shape:
        Arbitrary, channels last; one tensor, or a list of two of one shape.

    Output shape:
        Same as the input.

    Example:

    >>> layer = Pointwise(norm=True, activation="relu")
    >>> tuple(layer(np.ones((2, 8, 8, 16), "float32")).shape)
    (2, 8, 8, 16)
    >>> [w.name for w in layer.weights]
    ['scale', 'shift']
    """

    def __init__(self, norm=True, activation=None, **kwargs):
        super().__init__(**{**kwargs, "trainable": False})
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is one of {', '.join(map(repr, ACTIVATIONS))}; received {activation!r}")
        self.supports_masking = True
        self.norm = norm
        self.activation = activation

    def build(self, input_shape):
        names = ["scale", "shift"] if self.norm else []
        names += ["alpha", "beta"] if self.activation in ("decaying_mpelu", "mpelu") else []
        channels = (input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape)[-1]
        self.constants = [
            self.add_weight(name=name, shape=(channels,), trainable=False, autocast=False) for name in names
        ]

    def call(self, inputs):
        options = {"norm": self.norm, "activation": self.activation, "dtype": self.compute_dtype}
        tensorflow = keras.backend.backend() == "tensorflow"
        compute = _xla(**options) if tensorflow else functools.partial(_pointwise, **options)
        inputs = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        return compute(inputs, [constant.value for constant in self.constants])

    def compute_output_spec(self, inputs):
        first = inputs[0] if isinstance(inputs, list | tuple) else inputs
        return keras.KerasTensor(first.shape, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "norm": self.norm, "activation": self.activation}


def _pointwise(inputs, constants, norm, activation, dtype):
    constants = list(constants)
    x, *others = (ops.cast(x, "float64" if dtype == "float64" else "float32") for x in inputs)
    for other in others:
        x = x + other
    if norm:
        x = x * constants.pop(0) + constants.pop(0)
    if activation == "relu":
        x = ops.relu(x)
    elif activation is not None:
        alpha, beta = constants
        exponent = beta * ops.minimum(x, 0.0)
        if activation == "decaying_mpelu":
            bent = _decaying_exp(exponent) - 1.0
        else:
            # expm1, which TensorFlow Lite takes apart into exp and -1: near 0 that loses the digits that a large alpha
            # beside a small beta brings forth.
            bent = ops.tanh(0.5 * exponent) * (ops.exp(exponent) + 1.0)
        x = ops.where(x > 0, x, alpha * bent)
    return ops.cast(x, dtype)


def _decaying_exp(x):
    s = ops.maximum(x, -17.0) * (1 / 16)
    power = s * EXPONENTIAL[0] + EXPONENTIAL[1]
    for coefficient in EXPONENTIAL[2:]:
        power = power * s + coefficient
    power = power * s + 1.0
    for _ in range(4):
        power = power * power
    return power


@functools.cache
def _xla(**options):
    import tensorflow as tf

    kernel = tf.function(functools.partial(_pointwise, **options), jit_compile=True)

    def compute(inputs, constants):
        # As tensors: where layers share a function and give it variables, TensorFlow Lite's converter puts the values
        # of one of the layers into it, for all.
        return kernel(inputs, [tf.convert_to_tensor(constant) for constant in constants])

    return compute


def deploy(model):
    """A copy of a model for inference only: batch norms folded, dead operations gone, no weight trainable.

    Inputs and outputs are those of the given model, to rounding, at inference.
    It cannot be trained further: deploy last, and keep the given model.

    Args:
        model: A functional or Sequential `keras.Model`, built.

    Returns:
        A functional `keras.Model`, not compiled, named `NAME_inference_only`.

    Raises:
        ValueError: the model is subclassed or not built.

    Example:

    >>> model = zoo.create_model("mpelu_resnet20")
    >>> deployed = deploy(model)
    >>> len(model.layers), len(deployed.layers)
    (76, 48)
    >>> deployed.trainable_weights
    []
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            f"deploy takes a functional or built Sequential keras.Model; received {model!r}, which does not say how "
            "its layers are connected"
        )
    name = f"{model.name}_inference_only"
    if isinstance(model, keras.Sequential):
        model = functional_model(one_or_all(model.inputs), one_or_all(model.outputs), model.name)
    with deep_graphs():
        plan = _Plan(model)
        plan.make()
        copy = keras.models.clone_model(
            functional_model(model.input, model.output, model.name),  # without compile state, which a copy would take
            clone_function=plan.copy,
            call_function=plan.call,
        )
        copy = keras.Model(copy.input, copy.output, name=name)
    for layer, weights in plan.weights_of_copies:
        layer.set_weights(weights)
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # Normalization computes with values derived from its weights
    copy.trainable = False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # `predict`: on a CPU TensorFlow's own convolutions, which take in bias and ReLU, are faster than XLA's.
        copy.jit_compile = bool(tf.config.list_logical_devices("GPU"))
    return copy


@dataclasses.dataclass
class _Call:
    """The one call of a layer: where its inputs are from, their shapes and dtypes; which layers use its outputs."""

    layer: keras.layers.Layer
    inputs: list
    shapes: list
    dtypes: list
    training: bool  # whether it was called with training=True
    users: list = dataclasses.field(default_factory=list)


class _Plan:
    """What becomes of each layer: it goes, or it stays with other weights, or as a `Pointwise` or ReLU."""

    def __init__(self, model):
        self.calls = {}  # name -> _Call, of layers that are called once; others stay as they are
        self.gone = set()  # names of layers that return their inputs
        self.linear = {}  # name -> kernel and bias, in float64, of a layer that took in a norm
        self.norms = {}  # name -> scale and shift of a batch norm that no layer could take in
        self.pointwise = {}  # name of a norm or activation -> Pointwise or ReLU, and its weights
        self.sums = set()  # names of additions that the Pointwise behind them does
        self.weights_of_copies = []
        layers = {layer.name: layer for layer in model.layers}
        config = model.get_config()  # the one public account of the graph
        # Called so at least once, such as for Monte Carlo dropout.
        self.in_training = {
            entry["name"]
            for entry in config["layers"]
            if any((node.get("kwargs") or {}).get("training") for node in entry["inbound_nodes"])
        }
        for entry in config["layers"]:
            if len(entry["inbound_nodes"]) == 1 and entry["name"] in layers:
                (node,) = entry["inbound_nodes"]
                training = entry["name"] in self.in_training
                inputs, shapes, dtypes = zip(*tensors_in(node), strict=True) if tensors_in(node) else ((), (), ())
                self.calls[entry["name"]] = _Call(layers[entry["name"]], inputs, shapes, dtypes, training)
        users = [(entry["name"], name) for entry in config["layers"] for name, *_ in tensors_in(entry["inbound_nodes"])]
        users += [(None, name) for name in names_of_outputs(config["output_layers"])]  # None: the caller
        for user, name in users:
            if name in self.calls:
                self.calls[name].users.append(user)

    def make(self):
        """Decides, layer by layer from the inputs to the outputs."""
        for name, call in self.calls.items():
            if type(call.layer) in DEAD and not call.training:
                self.gone.add(name)
        for name, call in self.calls.items():
            norm = None if call.training else _norm(call)
            if norm and (self.fold_back(name, *norm) or self.fold_forward(name, *norm)):
                self.gone.add(name)
            elif norm:
                self.norms[name] = norm
        for name, call in self.calls.items():
            activation, weights = _activation(call)
            if activation is None:
                continue
            source = self.source(name)
            norm = self.norms.pop(source, None) if self.sole(source) else None
            if norm:
                self.gone.add(source)
            if norm or activation != "relu" or self.is_sum(source):
                layer = Pointwise(norm is not None, activation, dtype=call.layer.dtype_policy, name=name)
                self.pointwise[name] = layer, [*(norm or ()), *weights]
            elif isinstance(call.layer, MPELU):
                self.pointwise[name] = keras.layers.ReLU(dtype=call.layer.dtype_policy, name=name), []
        for name, norm in self.norms.items():
            self.pointwise[name] = Pointwise(dtype=self.calls[name].layer.dtype_policy, name=name), list(norm)
        for name, (layer, _) in self.pointwise.items():
            source = self.source(name)
            if isinstance(layer, Pointwise) and self.is_sum(source):
                self.sums.add(source)

    def fold_back(self, name, scale, shift):
        """Into the layer that gives the inputs: `scale * (kernel * x + bias) + shift`."""
        source = self.source(name)
        if not self.sole(source) or not self.is_linear(source):
            return False
        layer = self.calls[source].layer
        if layer.activation is not keras.activations.linear or not self.of_one_precision(name, source):
            return False
        kernel, bias = self.kernel_and_bias(source)
        self.linear[source] = kernel * scale, bias * scale + shift
        return True

    def fold_forward(self, name, scale, shift):
        """Into the layer that takes the outputs: `kernel * (scale * x + shift) + bias`."""
        last = name
        while self.sole(last):
            last = self.calls[last].users[0]
            if last not in self.gone:
                break
        if last == name or last in self.gone or not self.is_linear(last):
            return False
        layer, (dtype,) = self.calls[last].layer, self.calls[name].dtypes
        if not self.of_one_precision(name, last) or not keras.backend.is_float_dtype(dtype):
            return False
        if not isinstance(layer, keras.layers.Dense):
            padded = layer.padding != "valid" and max(layer.kernel_size) > 1
            if layer.groups > 1 or (padded and np.any(shift)):
                return False
        kernel, bias = self.kernel_and_bias(last)
        over = tuple(range(kernel.ndim - 1))
        scaled = kernel * np.reshape(scale, (-1, 1))
        self.linear[last] = scaled, bias + np.sum(kernel * np.reshape(shift, (-1, 1)), axis=over)
        return True

    def of_one_precision(self, *names):
        """Whether layers compute in one dtype: what scales the inputs is often of a higher one than the rest."""
        return len({self.calls[name].layer.compute_dtype for name in names}) == 1

    def source(self, name):
        """The layer that gives the inputs; those that are gone and have no other user are passed over."""
        name = self.calls[name].inputs[0]
        while name in self.gone and self.sole(name):
            name = self.calls[name].inputs[0]
        return name

    def sole(self, name):
        """Whether one layer uses the outputs, and nobody else."""
        return name in self.calls and len(self.calls[name].users) == 1 and self.calls[name].users[0] is not None

    def is_sum(self, name):
        """Whether it is a sum of two tensors of one shape that one layer uses."""
        if not self.sole(name) or type(self.calls[name].layer) is not keras.layers.Add:
            return False
        shapes = self.calls[name].shapes
        return len(shapes) == 2 and shapes[0] == shapes[1]

    def is_linear(self, name):
        """Whether it is a layer that can take in a norm of its last axis."""
        layer = self.calls[name].layer if name in self.calls else None
        if type(layer) not in TAKES_IN_NORMS or getattr(layer, "data_format", "channels_last") != "channels_last":
            return False
        return not layer.lora_enabled and not getattr(layer, "quantization_mode", None)

    def kernel_and_bias(self, name):
        if name not in self.linear:
            layer = self.calls[name].layer
            kernel = _float64(layer.kernel)
            self.linear[name] = kernel, _float64(layer.bias) if layer.use_bias else np.zeros(kernel.shape[-1])
        return self.linear[name]

    def copy(self, layer):
        """The layer of the new graph; Keras asks once for each, however often it is called."""
        if layer.name in self.gone | self.sums or isinstance(layer, keras.layers.Lambda):
            return layer  # not called, or not to be made anew from a configuration
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None) and layer.name not in self.in_training:
            return deploy(layer)
        config = layer.get_config()
        if layer.name in self.pointwise:
            copy, weights = self.pointwise[layer.name]
        elif layer.name in self.linear:
            copy = type(layer).from_config({**config, "use_bias": True})
            weights = [*self.linear[layer.name], *layer.get_weights()[1 + layer.use_bias :]]  # last an activation's
        else:
            copy = type(layer).from_config(config)
            weights = layer.get_weights() if isinstance(layer, keras.layers.Layer) else []
        if weights:
            self.weights_of_copies.append((copy, weights))
        return copy

    def call(self, copy, *args, **kwargs):
        """Calls, in the new graph, what stands for a layer of the old one."""
        given = [*args, *kwargs.values()][0]
        if copy.name in self.gone:
            return given
        if copy.name in self.sums:
            return _Terms(given)
        if copy.name in self.pointwise:
            return copy(given.tensors if isinstance(given, _Terms) else given)
        return copy(*args, **kwargs)


@dataclasses.dataclass
class _Terms:
    """The inputs of a sum that the next layer computes: one object, as Keras expects of a layer of one output."""

    tensors: list


def _activation(call):
    """Name and weights of what can be computed together with a norm before it; `(None, [])` for other layers."""
    layer = call.layer
    if type(layer) is keras.layers.ReLU and (layer.max_value, layer.negative_slope, layer.threshold) == (None, 0, 0):
        return "relu", []
    if type(layer) is keras.layers.Activation and layer.activation is keras.activations.relu:
        return "relu", []
    if type(layer) is not MPELU or layer.axis not in (None, -1, len(call.shapes[0]) - 1) or not call.shapes[0][-1]:
        return None, []
    channels = call.shapes[0][-1]
    alpha, beta = (np.broadcast_to(_float64(weight), (channels,)) for weight in (layer.alpha, layer.beta))
    negligible = np.abs(alpha * np.expm1(np.minimum(-beta * LARGEST_INPUT, 1.0))) <= NEGLIGIBLE
    negligible &= beta > -0.01 / LARGEST_INPUT  # no exponential growth
    if np.all(negligible):
        return "relu", []
    alpha, beta = np.where(negligible, 0.0, alpha), np.where(negligible, 0.0, beta)
    decaying = np.all(beta >= 0) and np.max(np.abs(alpha)) <= LARGEST_ALPHA
    return "decaying_mpelu" if decaying else "mpelu", [alpha, beta]


def _norm(call):
    """Scale and shift, in float64, of a layer that is a norm of the last axis with fixed statistics; else `None`."""
    layer, rank = call.layer, len(call.shapes[0]) if call.shapes else 0
    if type(layer) is keras.layers.BatchNormalization and layer.built and layer.axis in (-1, rank - 1):
        scale = 1 / np.sqrt(_float64(layer.moving_variance) + layer.epsilon)
        scale = scale * _float64(layer.gamma) if layer.scale else scale
        shift = -_float64(layer.moving_mean) * scale
        return scale, shift + _float64(layer.beta) if layer.center else shift
    if type(layer) is keras.layers.Normalization and not layer.invert and layer.axis in ((-1,), (rank - 1,)):
        mean, variance = (np.reshape(_float64(value), -1) for value in (layer.mean, layer.variance))
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())  # as that layer does
        if np.max(np.abs(mean) / deviation) <= LARGEST_MEAN:
            return 1 / deviation, -mean / deviation
    return None


def _float64(values):
    return np.asarray(keras.ops.convert_to_numpy(values), "float64")
