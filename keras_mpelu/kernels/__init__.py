"""MPELU as each backend computes it fastest; imported when first used, and only the one that is.

Every kernel keeps of the forward pass nothing but its input, and sums the
gradients of alpha and beta in float32 or better. What they must equal is
`keras_mpelu.layers.plain_mpelu`.
"""

import functools
import importlib

import keras

BACKENDS = ("jax", "tensorflow", "torch")


@functools.cache
def of_this_backend():
    """The module of this backend with its `mpelu(x, alpha, beta)`, or `None` where there is none."""
    name = keras.backend.backend()
    return importlib.import_module(f"keras_mpelu.kernels.{name}") if name in BACKENDS else None


def shared_axes(shape, rank):
    """Axes of a tensor of that rank along which a parameter that is broadcast against it is shared."""
    aligned = (1,) * (rank - len(shape)) + tuple(shape)
    return tuple(axis for axis, size in enumerate(aligned) if size == 1)
