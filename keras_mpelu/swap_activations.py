"""Any functional Keras model with MPELUs in place of its rectifiers, computing the same function at first."""

import itertools
import numbers
import warnings
from typing import NamedTuple

import keras
import numpy as np

from keras_mpelu.deep_graphs import deep_graphs
from keras_mpelu.layers import MPELU
from keras_mpelu.lsuv import WITH_KERNEL

# Layers that apply their `activation` argument last, so that it can be a layer of its own.
ENDS_WITH_ACTIVATION = (*WITH_KERNEL, keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


class Start(NamedTuple):
    """What an MPELU starts as; `alpha` is a number, or one per channel."""

    alpha: float | np.ndarray
    beta: float = 1.0
    max_value: float | None = None
    activity_regularizer: keras.regularizers.Regularizer | None = None


def swap_activations(model, leaky_beta=0.01, axis=-1):
    """Copies a model with an MPELU in place of every rectifier.

    The copy has the weights of the model and computes the same function, but
    `alpha` and `beta` of each MPELU are learned from there, one pair per
    channel:

    | replaced | alpha | beta | difference before training |
    |---|---|---|---|
    | ReLU | 0 | 1 | none |
    | ELU | its alpha | 1 | none |
    | LeakyReLU, PReLU | slope / `leaky_beta` | `leaky_beta` | at most `slope * leaky_beta * x**2 / 2`, for x < 0 |

    Found are layers, `activation` arguments of dense and convolution layers,
    and functions of `keras.ops` and `keras.activations`, also inside nested
    models. A replaced layer gives its name to its MPELU; the MPELU of an
    argument is called `<layer>_mpelu`. A shared layer stays shared; where it
    meets other numbers of channels, each number has its MPELU. ReLU with
    `max_value` (ReLU6) becomes an MPELU and a cap, the layer `<layer>_cap`.
    A new name that the model has already gets a number. An activity regularizer
    stays behind the activation. Other activations, such as swish, stay.

    What cannot be replaced stays and is named in a warning: ReLU with a
    `threshold`, PReLU whose slopes differ between the pixels of a channel,
    rectifiers inside recurrent layers, wrappers and layers of your own, and
    what may be a rectifier but is not looked into: Lambda layers, functions of
    your own, and `keras.ops.maximum` with a number.

    Frozen layers stay frozen; the MPELUs are trainable. A compiled model is
    compiled likewise, with a fresh optimizer.

    Args:
        model: A functional or Sequential `keras.Model`, built.
        leaky_beta: Initial beta in place of LeakyReLU and PReLU. The smaller,
            the closer, and the larger is alpha, to which the gradient of beta
            is proportional: train with a small learning rate.
        axis: The channel axis of activations that are layers or functions.
            Those that are arguments follow the `data_format` of their layer.

    Returns:
        A `keras.Model`. The given model is left as it is.

    Raises:
        ValueError: the model is subclassed, quantized or not built, has
            nothing to replace or a layer that Keras cannot copy; `leaky_beta`
            is not positive; or `axis` is the batch's or one that an activation
            lacks.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu", name="conv")])
    >>> swapped = swap_activations(model)
    >>> [layer.name for layer in swapped.layers]
    ['conv', 'conv_mpelu']
    >>> x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    >>> bool(np.allclose(model.predict(x, verbose=0), swapped.predict(x, verbose=0), atol=1e-6))
    True

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1606.00305), section 3.1: the
      functions that MPELU contains
    """
    if not isinstance(leaky_beta, numbers.Real) or not 0 < leaky_beta < np.inf:
        raise ValueError(f"leaky_beta is a small positive number; received {leaky_beta!r}")
    if not isinstance(axis, numbers.Integral) or axis == 0:
        raise ValueError(f"axis is the integer of a channel axis, and 0 is the batch; received {axis!r}")
    swap = _Swap(leaky_beta, int(axis), _names(model))
    with deep_graphs():
        copy = swap.copy_model(model)
    for layer, its_copy in swap.pairs:
        if its_copy.built:
            # An activation that was an argument may have had weights of its own; they come last.
            its_copy.set_weights(layer.get_weights()[: len(its_copy.weights)])
        if hasattr(its_copy, "finalize_state"):
            its_copy.finalize_state()  # Normalization computes with values derived from its weights
    kept = ", ".join(f"{name} ({why})" for name, why in swap.kept.items())
    if not swap.mpelus:
        raise ValueError(
            f"{model.name!r} has no ReLU, ELU, LeakyReLU or PReLU that an MPELU can replace"
            + (f"; kept: {kept}" if kept else "")
        )
    if kept:
        warnings.warn(f"swap_activations left in {model.name!r}: {kept}", stacklevel=2)
    return copy


class _Swap:
    """One walk through a model: the copy of each layer, and what became of the rectifiers."""

    def __init__(self, leaky_beta, axis, names):
        self.leaky_beta = leaky_beta
        self.axis = axis
        self.names = names  # that the model has, so that no new layer may take them
        self.copies = {}  # id of a layer -> its copy; a shared layer is met more than once
        self.pairs = []  # layer, copy: whose weights are copied at the end
        self.replaced = {}  # id of a copy -> the Start that takes its place
        self.followed = {}  # id of a copy -> the Start that takes the place of its `activation`
        self.mpelus = {}  # id of a copy, channels -> the layers that compute its rectifier
        self.kept = {}  # name -> why

    def copy_model(self, model):
        if not _is_graph(model):
            raise ValueError(
                f"swap_activations takes a functional or Sequential keras.Model; received {model!r}, which does not "
                "say how its layers are connected"
            )
        if not model.built or not model.inputs:
            raise ValueError(f"{model.name!r} is not built; give it a keras.Input or call it once")
        if isinstance(model, keras.Sequential):
            return self.copy_sequential(model)
        return keras.models.clone_model(model, clone_function=self.copy_layer, call_function=self.call)

    def copy_sequential(self, model):
        given = model.inputs[0]
        shape = given.shape
        layers = [keras.Input(batch_shape=shape, dtype=given.dtype, name=given.name)]
        for layer in model.layers:
            copy = self.copy_layer(layer)
            layers += self.instead(copy, shape)
            shape = layer.compute_output_shape(shape)
            layers += self.after(copy, shape)
        copy = keras.Sequential(layers, name=model.name)
        if model.compiled:
            copy.compile_from_config(model.get_compile_config())
        return copy

    def call(self, copy, *args, **kwargs):
        """Calls, in the new graph, what stands for a layer of the old one."""
        given = [*args, *kwargs.values()][0]
        if _kind(copy)[0] == "maximum" and any(isinstance(value, numbers.Real) for value in args):
            self.kept[copy.name] = "maximum with a number, not looked into"
        first, *rest = self.instead(copy, getattr(given, "shape", None))
        x = first(*args, **kwargs)
        for layer in (*rest, *self.after(copy, getattr(x, "shape", None))):
            x = layer(x)
        return x

    def copy_layer(self, layer):
        if id(layer) not in self.copies:
            self.copies[id(layer)] = self.new_copy(layer)
        return self.copies[id(layer)]

    def new_copy(self, layer):
        if _is_graph(layer):
            return self.copy_model(layer)
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                f"swap_activations cannot copy the quantized layer {layer.name!r}; swap the model that it was made "
                "from, then quantize"
            )
        if isinstance(layer, keras.layers.Lambda):
            self.kept[layer.name] = "Lambda, not looked into"
            return layer  # it has no weights, and a Python function is not rebuilt from a configuration
        config, functions = _configuration(layer)
        starts = self.followed if type(layer) in ENDS_WITH_ACTIVATION else self.replaced
        if starts is self.followed:
            found = self.start_of(layer.activation, _channel_axis(layer))
        else:
            found = self.start_of(layer, self.axis)
        if not isinstance(found, Start):
            found = found or _rectifier_inside(config) or functions
        elif starts is self.followed:
            config["activation"] = config["activity_regularizer"] = None
        try:
            copy = type(layer).from_config(config)
        except Exception as error:
            raise _not_copied(layer, error) from error
        if isinstance(found, Start):
            starts[id(copy)] = found._replace(activity_regularizer=getattr(layer, "activity_regularizer", None))
        elif found:
            self.kept[layer.name] = found
        if isinstance(layer, keras.layers.Layer):
            self.pairs.append((layer, copy))
        return copy

    def free(self, name):
        """The name of a new layer: with a number, if the model has a layer of that name."""
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        return next(free for free in itertools.chain([name], numbered) if free not in self.names)

    def start_of(self, activation, axis):
        """The Start of a layer, operation or function; a string that says why there is none; or None: no rectifier."""
        if isinstance(activation, keras.layers.Activation):
            return self.start_of(activation.activation, axis)
        kind, options = _kind(activation)
        if kind == "elu":
            return Start(options.get("alpha", 1.0))
        if kind == "prelu":
            return self.leaky(_slopes(activation, axis))
        if kind == "leakyrelu":
            return self.leaky(options.get("negative_slope", 0.2))
        if kind not in ("relu", "relu6"):
            return None
        if options.get("threshold", 0.0):
            return f"ReLU with threshold {options['threshold']}"
        slope = options.get("negative_slope", 0.0)
        if slope == 1:
            return None  # linear, or the cap of an earlier swap
        start = self.leaky(slope) if slope else Start(0.0)
        return start._replace(max_value=6.0 if kind == "relu6" else options.get("max_value"))

    def leaky(self, slope):
        return slope if isinstance(slope, str) else Start(slope / self.leaky_beta, self.leaky_beta)

    def instead(self, copy, shape):
        """The layers that take the place of a layer: itself, if it is no rectifier."""
        if id(copy) not in self.replaced:
            return [copy]
        if not -len(shape) < self.axis < len(shape):
            raise ValueError(
                f"{copy.name!r} gets {tuple(shape)}, which has no channel axis {self.axis}; give that of the channels"
            )
        if shape[self.axis] is None:
            self.kept[copy.name] = f"unknown number of channels, axis {self.axis} of {tuple(shape)}"
            return [copy]
        return self.layers_of(self.replaced[id(copy)], copy, copy.name, self.axis, shape)

    def after(self, copy, shape):
        """The layers that follow a layer in the place of its `activation`."""
        if id(copy) not in self.followed:
            return []
        name = self.free(f"{copy.name}_mpelu")
        return self.layers_of(self.followed[id(copy)], copy, name, _channel_axis(copy), shape)

    def layers_of(self, start, copy, name, axis, shape):
        channels = shape[axis]
        if (id(copy), channels) not in self.mpelus:
            others = [key for key in self.mpelus if key[0] == id(copy)]
            if others:
                name = self.free(f"{name}_{channels}")
            constant = np.ndim(start.alpha) == 0
            mpelu = MPELU(
                alpha_initializer=keras.initializers.Constant(float(start.alpha)) if constant else "ones",
                beta_initializer=keras.initializers.Constant(start.beta),
                axis=axis,
                dtype=getattr(copy, "dtype_policy", None),
                activity_regularizer=start.activity_regularizer if start.max_value is None else None,
                name=name,
            )
            mpelu.build(shape)
            if not constant:
                mpelu.alpha.assign(np.broadcast_to(start.alpha, (channels,)))
            self.mpelus[id(copy), channels] = [mpelu]
            if start.max_value is not None:
                # With a negative slope of 1, a ReLU is the minimum of x and its max_value.
                cap = keras.layers.ReLU(
                    start.max_value,
                    negative_slope=1.0,
                    dtype=mpelu.dtype_policy,
                    activity_regularizer=start.activity_regularizer,
                    name=self.free(f"{name}_cap"),
                )
                self.mpelus[id(copy), channels].append(cap)
        return self.mpelus[id(copy), channels]


def _channel_axis(layer):
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def _is_graph(model):
    return isinstance(model, keras.Sequential) or (isinstance(model, keras.Model) and hasattr(model, "operations"))


def _names(model):
    """The names of all layers and operations of a model and of those nested in it."""
    names = set()
    for layer in getattr(model, "operations", None) or getattr(model, "layers", ()):
        names |= {layer.name} | _names(layer)
    return names


def _configuration(layer):
    """A layer's configuration, with the user's functions as they are, and what to say of them."""
    own = {}
    if type(layer).__module__.startswith("keras."):
        own = {key: value for key, value in vars(layer).items() if "activation" in key and _is_own_function(value)}
    try:
        # Keras writes a function into a configuration as code or as a name, neither of which it then reads.
        vars(layer).update(dict.fromkeys(own, keras.activations.linear))
        config = layer.get_config()
    except Exception as error:
        raise _not_copied(layer, error) from error
    finally:
        vars(layer).update(own)
    named = (f"{key} {getattr(value, '__name__', type(value).__name__)}" for key, value in own.items())
    return config | own, ", ".join(named) + ", not looked into" if own else None


def _is_own_function(value):
    """Whether an activation is a function, or an object that can be called, of the user's own."""
    known = isinstance(value, keras.layers.Layer) or str(getattr(value, "__module__", "")).startswith("keras.")
    return callable(value) and not known


def _not_copied(layer, error):
    reason = " ".join(str(error).split())[-200:]  # Keras begins with the whole configuration
    return ValueError(
        f"swap_activations cannot copy layer {layer.name!r}, a {type(layer).__name__}, from its configuration: "
        f"{reason} Register its classes and functions by keras.saving.register_keras_serializable"
    )


def _kind(activation):
    """Class or function name in lower case without underscores, and options, of what Keras calls an activation."""
    for name in ("relu", "relu6", "elu", "leaky_relu"):
        if activation in (getattr(keras.activations, name), getattr(keras.ops, name)):
            return name.replace("_", ""), {"max_value": 6.0} if name == "relu6" else {}
    if not type(activation).__module__.startswith("keras."):
        return None, {}
    kind = type(activation).__name__.lower()
    return kind, activation.get_config() if kind in ("relu", "relu6", "elu", "leakyrelu") else {}


def _slopes(prelu, axis):
    """The slopes of a PReLU per channel, or why there are none."""
    if not prelu.built:
        return "PReLU that is not built; call the model once"
    slopes = keras.ops.convert_to_numpy(prelu.alpha)  # without the axis of the batch
    others = tuple(i for i in range(slopes.ndim) if i != (axis - 1 if axis > 0 else axis % slopes.ndim))
    if np.ptp(slopes, axis=others).any():
        return "PReLU with slopes that differ between the places of a channel"
    return slopes.max(axis=others)


def _rectifier_inside(config):
    """The first rectifier named in the configuration of a layer, such as the activation of a recurrent one."""
    if isinstance(config, list | tuple):
        return next(filter(None, map(_rectifier_inside, config)), None)
    if not isinstance(config, dict):
        return None
    if config.get("class_name") in ("ReLU", "ELU", "LeakyReLU", "PReLU"):
        return f"{config['class_name']} inside"
    for key, value in config.items():
        if "activation" in key and value in ("relu", "relu6", "elu", "leaky_relu"):
            return f"{key}={value!r}"
        if inside := _rectifier_inside(value):
            return inside
    return None
