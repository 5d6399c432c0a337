"""MPELU on TensorFlow: one fused pass of XLA for the gradient, and its two sums as products with ones.

The forward pass is of ordinary operations, so that a model can be exported;
training alone compiles anything.
"""

import tensorflow as tf

from keras_mpelu.kernels import shared_axes


@tf.custom_gradient
def mpelu(x, alpha, beta):
    return forward(x, alpha, beta), lambda upstream: backward(x, alpha, beta, upstream)


def forward(x, alpha, beta):
    wide = tf.cast(x, alpha.dtype)
    return tf.cast(tf.nn.relu(wide) + alpha * tf.math.expm1(beta * tf.minimum(wide, 0)), x.dtype)


def backward(x, alpha, beta, upstream):
    by_x, by_alpha, by_beta = _terms(x, alpha, beta, upstream)
    return by_x, _sum_to(alpha.shape, by_alpha), alpha * _sum_to(alpha.shape, by_beta)


@tf.function(jit_compile=True)
def _terms(x, alpha, beta, upstream):
    """The gradient of x, and what is summed for those of alpha and beta."""
    wide, upstream = tf.cast(x, alpha.dtype), tf.cast(upstream, alpha.dtype)
    negative = tf.minimum(wide, 0)
    grown = upstream * tf.exp(beta * negative)
    by_x = tf.where(wide > 0, upstream, alpha * beta * grown)
    return tf.cast(by_x, x.dtype), grown - upstream, grown * negative  # the last two are 0 where x > 0


def _sum_to(shape, terms):
    rank = len(terms.shape)
    axes = shared_axes(shape, rank)
    # On a CPU XLA takes longer for a sum over the leading axes than for a product with ones.
    # On a GPU that product may round to TensorFloat-32.
    if axes == tuple(range(rank - 1)) and not tf.config.list_logical_devices("GPU"):
        rows = tf.reshape(terms, (-1, terms.shape[-1]))
        return tf.reshape(tf.matmul(tf.ones((1, tf.shape(rows)[0]), rows.dtype), rows), shape)
    return tf.reshape(tf.reduce_sum(terms, axes), shape)
