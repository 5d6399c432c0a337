"""MPELU on TensorFlow: XLA computes the gradient of x in one pass, and what is summed for alpha and beta in another.

The forward pass is of ordinary operations, so that a model can be exported;
training alone compiles anything.
"""

import math

import tensorflow as tf

from keras_mpelu.kernels import shared_axes

PARTS = 4  # of the rows, which are added as their terms are computed: fewer numbers to write and to read again


@tf.custom_gradient
def mpelu(x, alpha, beta):
    return forward(x, alpha, beta), lambda upstream: backward(x, alpha, beta, upstream)


def forward(x, alpha, beta, expm1=tf.math.expm1):
    wide = tf.cast(x, alpha.dtype)
    return tf.cast(tf.nn.relu(wide) + alpha * expm1(beta * tf.minimum(wide, 0)), x.dtype)


# A function, so that its operations are made once for all layers of one shape.
@tf.function(autograph=False)
def backward(x, alpha, beta, upstream):
    """The gradients of x, alpha and beta."""
    size, width = alpha.shape.num_elements(), x.shape[-1] if len(x.shape) > 1 else None
    if width and (size == 1 or alpha.shape[-1] == size == width):
        rows = (tf.reshape(tensor, (-1, width)) for tensor in (x, upstream))
        flat = (tf.reshape(tensor, (size,)) for tensor in (alpha, beta))
        numbers = x.shape[1:].num_elements()  # None for images of unknown size
        by_x, summands = _by_x_and_terms(*rows, *flat, math.gcd(numbers // width, PARTS) if numbers else 1)
        by_x = tf.reshape(by_x, tf.shape(x))
        sums = sum_of_rows(summands) if size > 1 else tf.reduce_sum(summands)
    else:
        by_x, summands = _by_x_and_terms(x, upstream, alpha, beta, 1)
        sums = tf.reduce_sum(summands, shared_axes(alpha.shape, len(x.shape)))
    sums = tf.reshape(sums, alpha.shape)
    return by_x, tf.math.real(sums), alpha * tf.math.imag(sums)


@tf.function(jit_compile=True, autograph=False)
def _by_x_and_terms(x, upstream, alpha, beta, parts):
    """The gradient of x, and what is to be summed for alpha and, but for a factor of alpha, beta; 0 where x > 0.

    The latter two are the parts of complex numbers, for XLA makes a loop for each
    result, and would keep the exponentials in memory for all of them.
    """
    wide, wide_upstream = tf.cast(x, alpha.dtype), tf.cast(upstream, alpha.dtype)
    by_x = tf.cast(wide_upstream * slope(wide, alpha, beta), x.dtype)
    pieces = (tf.split(tensor, parts) if parts > 1 else [tensor] for tensor in (x, upstream))
    wide_pieces = ((tf.cast(tensor, alpha.dtype) for tensor in piece) for piece in zip(*pieces, strict=True))
    return by_x, sum(terms(piece, beta, piece_upstream) for piece, piece_upstream in wide_pieces)


def slope(x, alpha, beta):
    """The derivative of MPELU by x."""
    return tf.where(x > 0, tf.ones_like(x), alpha * beta * (expm1(beta * tf.minimum(x, 0)) + 1))


def terms(x, beta, upstream):
    """What is summed for alpha, and for beta but for a factor of alpha, as the parts of complex numbers."""
    negative = tf.minimum(x, 0)
    grown = upstream * tf.exp(beta * negative)
    return tf.complex(grown - upstream, grown * negative)


def expm1(z):
    """exp(z) - 1 to 3e-7 of itself, in fewer operations than XLA's, and so few that XLA does not keep it in memory.

    With z = k ln 2 + r it is 2^k p(r) + (2^k - 1). p(r) = r + r^2 q(r), and q is the
    Chebyshev fit of degree 4 to (exp(r) - 1 - r) / r^2 on +-ln 2 / 2, exact to 2e-8
    of p. Above 88.38, near the largest number, it is exact to 1e-4.
    """
    if z.dtype != tf.float32:
        return tf.math.expm1(z)
    z = tf.clip_by_value(z, -87.0, 88.8)
    k = tf.minimum(tf.round(z * (1 / math.log(2))), 127.0)  # 2^128 is infinite
    r = (z - k * 0.693359375) + k * 2.12194440e-4  # ln 2 in two parts, the first of few digits
    p = r + r * r * (0.5 + r * (0.16666541 + r * (0.04166635 + r * (0.00836678 + r * 0.00139411))))
    power = tf.bitcast(tf.bitwise.left_shift(tf.cast(k, tf.int32) + 127, 23), tf.float32)
    return power * p + (power - 1)


def sum_of_rows(rows):
    """The sum along the first axis."""
    # On a CPU a sum over the leading axes takes longer than a product with ones.
    # On a GPU that product may round to TensorFloat-32.
    if tf.config.list_logical_devices("GPU"):
        return tf.reduce_sum(rows, 0)
    return tf.matmul(tf.ones((1, tf.shape(rows)[0]), rows.dtype), rows)
