"""Models for inference only: the same function in fewer, cheaper operations.

`deploy(model)` folds batch norm into the neighbouring convolutions and dense
layers, in float64, leaves out what does nothing at inference, and freezes the
rest. What is folded where, with `y = scale * x + shift` per channel for a norm:

| norm | folded into | when it is exact |
|---|---|---|
| behind a convolution or dense layer | that layer | it is linear and nobody else uses its outputs |
| before a convolution | that convolution | nobody else uses the norm; no zeros are padded, which the norm would have shifted |
| before a dense layer | that dense layer | nobody else uses the norm |

Elsewhere (behind an addition, before an activation) a batch norm becomes one multiplication and one addition, with
constants made here. The standardisation of the inputs, a fixed norm too, follows the same rules.
"""

import dataclasses

import keras
import numpy as np

from zoo.graphs import deep_graphs
from zoo.graphs import functional_model

LINEAR = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
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
    (79, 60)
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
        model = functional_model(_one_or_all(model.inputs), _one_or_all(model.outputs), model.name)
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
    return copy


def _one_or_all(tensors):
    return tensors[0] if len(tensors) == 1 else tensors


@dataclasses.dataclass
class _Call:
    """The one call of a layer: the names of the layers that its inputs are from, and those that use its outputs."""

    layer: keras.layers.Layer
    inputs: list
    training: bool  # whether it was called with training=True
    users: list = dataclasses.field(default_factory=list)


class _Plan:
    """What becomes of each layer: it goes, or it stays with the weights of float64 in `linear`."""

    def __init__(self, model):
        self.calls = {}  # name -> _Call, of layers that are called once; others stay as they are
        self.gone = set()  # names of layers that return their inputs
        self.linear = {}  # name -> kernel and bias of a layer that took in a norm
        self.affine = {}  # name -> scale and shift of a batch norm that could not be taken in
        self.copies = {}  # name -> copy
        self.weights_of_copies = []
        config = model.get_config()
        for entry in config["layers"]:
            if len(entry["inbound_nodes"]) == 1:
                node = entry["inbound_nodes"][0]
                layer = model.get_layer(entry["name"]) if _is_layer(model, entry["name"]) else None
                training = bool((node.get("kwargs") or {}).get("training"))
                self.calls[entry["name"]] = _Call(layer, _tensors(node), training)
        for entry in config["layers"]:
            for node in entry["inbound_nodes"]:
                for name in _tensors(node):
                    if name in self.calls:
                        self.calls[name].users.append(entry["name"])
        for name in _names_of_outputs(config["output_layers"]):
            if name in self.calls:
                self.calls[name].users.append(None)  # the caller

    def make(self):
        for name, call in self.calls.items():
            if isinstance(call.layer, DEAD) and not call.training:
                self.gone.add(name)
        for name, call in self.calls.items():  # from the inputs to the outputs
            if call.layer is None or call.training or (norm := _norm(call.layer)) is None:
                continue
            scale, shift = norm
            if self.fold_back(name, scale, shift) or self.fold_forward(name, scale, shift):
                self.gone.add(name)
            elif isinstance(call.layer, keras.layers.BatchNormalization):
                self.affine[name] = norm

    def fold_back(self, name, scale, shift):
        """Into the layer that gives the inputs: `scale * (kernel * x + bias) + shift`."""
        source = self.calls[name].inputs[0]
        while source in self.gone and self.sole(source):
            source = self.calls[source].inputs[0]
        if not self.sole(source) or not self.is_linear(source):
            return False
        if self.calls[source].layer.activation is not keras.activations.linear:
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
        layer = self.calls[last].layer
        if not isinstance(layer, keras.layers.Dense):
            padded = layer.padding != "valid" and max(layer.kernel_size) > 1
            if layer.groups > 1 or (padded and np.any(shift)):
                return False
        kernel, bias = self.kernel_and_bias(last)
        over = tuple(range(kernel.ndim - 1))
        scaled = kernel * np.reshape(scale, (-1, 1))
        self.linear[last] = scaled, bias + np.sum(kernel * np.reshape(shift, (-1, 1)), axis=over)
        return True

    def sole(self, name):
        """Whether one layer uses the outputs, and nobody else."""
        return name in self.calls and len(self.calls[name].users) == 1 and self.calls[name].users[0] is not None

    def is_linear(self, name):
        """Whether it is a layer that can take in a norm of its last axis."""
        layer = self.calls[name].layer if name in self.calls else None
        return type(layer) in LINEAR and getattr(layer, "data_format", "channels_last") == "channels_last"

    def kernel_and_bias(self, name):
        if name not in self.linear:
            layer = self.calls[name].layer
            kernel = _float64(layer.kernel)
            self.linear[name] = kernel, _float64(layer.bias) if layer.use_bias else np.zeros(kernel.shape[-1])
        return self.linear[name]

    def copy(self, layer):
        """The layer of the new graph; a shared one is met more than once."""
        if layer.name not in self.copies:
            self.copies[layer.name] = self._new_copy(layer)
        return self.copies[layer.name]

    def _new_copy(self, layer):
        if layer.name in self.gone:
            return layer  # not called
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            return deploy(layer)
        if layer.name in self.affine:
            scale, shift = (values.astype("float32").tolist() for values in self.affine[layer.name])
            return keras.layers.Rescaling(scale, shift, dtype=layer.dtype_policy, name=layer.name)
        if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.layers.Lambda):
            return layer if isinstance(layer, keras.layers.Lambda) else type(layer).from_config(layer.get_config())
        config, weights = layer.get_config(), layer.get_weights()
        if layer.name in self.linear:
            config["use_bias"] = True
            weights = list(self.linear[layer.name])
        copy = type(layer).from_config(config)
        if weights:
            self.weights_of_copies.append((copy, weights))
        return copy

    def call(self, copy, *args, **kwargs):
        if copy.name in self.gone:
            return args[0]
        return copy(args[0]) if copy.name in self.affine else copy(*args, **kwargs)


def _norm(layer):
    """Scale and shift, in float64, of a layer that is a norm of the last axis with fixed statistics; else `None`."""
    rank = len(layer.input.shape) if isinstance(layer.input, keras.KerasTensor) else 0
    if type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, rank - 1):
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


def _is_layer(model, name):
    return any(layer.name == name for layer in model.layers)


def _tensors(part):
    """Names of the layers that a serialised call takes its tensors from, in order."""
    if isinstance(part, dict):
        if part.get("class_name") == "__keras_tensor__":
            return [part["config"]["keras_history"][0]]
        part = list(part.values())
    return [name for item in part for name in _tensors(item)] if isinstance(part, list | tuple) else []


def _names_of_outputs(part):
    """Names in Keras's nest of `[layer, node, tensor]`."""
    if isinstance(part, dict):
        return [name for item in part.values() for name in _names_of_outputs(item)]
    if isinstance(part, list | tuple):
        if len(part) == 3 and isinstance(part[0], str) and isinstance(part[1], int):
            return [part[0]]
        return [name for item in part for name in _names_of_outputs(item)]
    return []
