"""MPELU as each backend computes it fastest; imported when first used, and only the one that is.

Every kernel keeps of the forward pass nothing but its input, and sums the
gradients of alpha and beta in float32 or better. What they must equal is
`keras_mpelu.layers.plain_mpelu`.
"""

import keras


def of_this_backend():
    """The module of this backend with its `mpelu(x, alpha, beta)`, or `None` where there is none."""
    # `torch.compile` and strict `torch.export` trace this: statements, which they know, and not `import_module`. Nor
    # `match`, which TensorFlow's AutoGraph does not know.
    name = keras.backend.backend()
    if name == "jax":
        from keras_mpelu.kernels import jax as kernel
    elif name == "tensorflow":
        from keras_mpelu.kernels import tensorflow as kernel
    elif name == "torch":
        from keras_mpelu.kernels import torch as kernel
    else:
        kernel = None
    return kernel


def shared_axes(shape, rank):
    """Axes of a tensor of that rank along which a parameter that is broadcast against it is shared."""
    aligned = (1,) * (rank - len(shape)) + tuple(shape)
    return tuple(axis for axis, size in enumerate(aligned) if size == 1)
