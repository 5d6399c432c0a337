"""Layer-sequential unit variance: initialisation by a batch of data (Mishkin and Matas, 2016)."""

import contextlib

import keras
import numpy as np
from keras import ops

WITH_KERNEL = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)


def lsuv(model, batch, tolerance=0.1, max_iterations=10, seed=None):
    """Initialises a model layer by layer to outputs of variance 1.

    Every dense or convolution kernel is made orthonormal; then, from the first
    layer to the last, it is divided by the standard deviation of the layer's
    output on the batch, before the activation, until the variance is within
    `tolerance` of 1. All happens in one pass, at inference: batch
    normalization takes its moving statistics, dropout does nothing.

    Args:
        model: A built `keras.Model` of any kind. Its kernels are changed in
            place; biases and other weights are kept.
        batch: Inputs for the model, some hundred rows of the training data.
        tolerance: Largest difference from 1 of each variance. Defaults to the
            paper's 0.1.
        max_iterations: Most divisions per layer. Defaults to 10.
        seed: Integer seed of the orthonormal kernels, or `None`.

    Returns:
        The model.

    Raises:
        ValueError: a layer's output cannot be brought to variance 1: it is
            constant or not finite, the layer is called more than once and
            differs, or its weights are no single kernel. The layer is named,
            and the weights are as before the call.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((16,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(32, "relu"), keras.layers.Dense(8)]
    ... )
    >>> x = np.random.default_rng(0).normal(3, 5, (256, 16)).astype("float32")
    >>> y = lsuv(model, x).predict(x, verbose=0)
    >>> bool(0.9 < y.var() < 1.1)
    True

    Reference:

    - [Mishkin and Matas, 2016](https://arxiv.org/abs/1511.06422), algorithm 1
    """
    if not tolerance > 0 or max_iterations < 1:
        raise ValueError(
            f"tolerance is above 0 and max_iterations 1 or more; received {tolerance!r} and {max_iterations!r}"
        )
    # By identity: a shared layer is met once per path to it, and nested models may repeat a name.
    layers = list({id(layer): layer for layer in _with_kernels(model)}.values())
    if not layers:
        raise ValueError(f"lsuv cannot normalise {model.name!r}: it has no dense or convolution layer, or is not built")
    before = model.get_weights()
    orthonormal = keras.initializers.Orthogonal(seed=keras.random.SeedGenerator(seed))
    called, refusals = set(), []
    try:
        for layer in layers:
            layer.kernel.assign(orthonormal(layer.kernel.shape))
        with contextlib.ExitStack() as hooks:
            for layer in layers:
                hooks.enter_context(_unit_variance(layer, called, refusals, tolerance, max_iterations))
            model(batch, training=False)
        if missed := [layer.name for layer in layers if id(layer) not in called]:
            raise ValueError(f"lsuv cannot normalise layer {missed[0]!r}: the model does not call it")
    except BaseException:  # an interrupt too: half of the kernels would be orthonormal only
        model.set_weights(before)
        if refusals:  # Keras wrapped it in the arguments of each call on its way
            raise ValueError(refusals[0]) from None
        raise
    return model


def _with_kernels(model):
    """The layers to normalise, also those of nested models; refuses layers whose weights are of another kind."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _with_kernels(layer)
        elif isinstance(layer, WITH_KERNEL):
            yield layer
        elif not isinstance(layer, keras.layers.PReLU):
            if matrices := [weight.path for weight in layer.trainable_weights if len(weight.shape) > 1]:
                raise ValueError(
                    f"lsuv cannot normalise layer {layer.name!r}, a {type(layer).__name__}: {matrices[0]!r} is not the "
                    "kernel of a dense or convolution layer"
                )


@contextlib.contextmanager
def _unit_variance(layer, called, refusals, tolerance, max_iterations):
    """While entered, the first call of the layer scales its kernel; later calls check what it did."""

    def refuse(reason):
        refusals.append(f"lsuv cannot normalise layer {layer.name!r}: the variance of its output is {reason}")
        raise ValueError(refusals[0])

    # The same layer without its activation, to see what comes before it.
    linear = type(layer).from_config({**layer.get_config(), "activation": None})
    call = layer.call

    def normalised(inputs, *args, **kwargs):
        if not linear.built:
            linear.build(inputs.shape)
        linear.set_weights(layer.get_weights()[: len(linear.weights)])  # those of an activation come last
        for iteration in range(max_iterations + 1):
            variance = float(ops.convert_to_numpy(ops.var(ops.cast(linear.call(inputs), "float32"))))
            if abs(variance - 1) <= tolerance:
                break
            if not 1e-30 < variance < np.inf:
                refuse(f"{variance:.4g}; look at the batch, and at the layers before it")
            if id(layer) in called:
                refuse(f"{variance:.4g} at its second call; one kernel cannot serve both")
            if iteration == max_iterations:
                refuse(f"{variance:.4g} after {max_iterations} iterations; raise the tolerance or max_iterations")
            linear.kernel.assign(linear.kernel / variance**0.5)
        called.add(id(layer))
        layer.kernel.assign(linear.kernel)
        return call(inputs, *args, **kwargs)

    # Past Keras's __setattr__, which keeps the state of built layers locked.
    vars(layer)["call"] = normalised
    try:
        yield
    finally:
        del vars(layer)["call"]
