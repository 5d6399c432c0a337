"""Batch norm and the MPELU behind it as one operation of TensorFlow, for training on a CPU.

What lies between the two is never in memory: it is computed again from the
inputs, like all that the gradients need. That saves an array of the inputs'
size for each pair, and passes over it; XLA compiles what remains, a loop for
each array or each pair of sums.
"""

import functools
import math

import tensorflow as tf

from keras_mpelu.kernels.tensorflow import PARTS
from keras_mpelu.kernels.tensorflow import expm1
from keras_mpelu.kernels.tensorflow import forward
from keras_mpelu.kernels.tensorflow import slope
from keras_mpelu.kernels.tensorflow import sum_of_rows
from keras_mpelu.kernels.tensorflow import terms

_compiled = functools.partial(tf.function, jit_compile=True, autograph=False)


def normalized_mpelu(x, gamma, offset, alpha, beta, epsilon):
    """MPELU of the normalised x, and the mean and the biased variance by channel, through which no gradient flows.

    Args:
        x: Images of known size, channels last, in float32.
        gamma: Scale of batch norm; this and the following of shape `(C,)`.
        offset: Its offset, `beta` elsewhere.
        alpha: Of MPELU.
        beta: Of MPELU.
        epsilon: What batch norm adds to the variance.
    """

    @tf.custom_gradient
    def function(x, gamma, offset, alpha, beta):
        outputs, mean, variance = _forward_pass(x, gamma, offset, alpha, beta, epsilon)

        def gradient(upstream, *_):
            return _backward_pass(x, upstream, gamma, offset, alpha, beta, mean, variance, epsilon)

        return (outputs, mean, variance), gradient

    return function(x, gamma, offset, alpha, beta)


# Functions, so that their operations are made once for all layers of one shape.
@tf.function(autograph=False)
def _forward_pass(x, gamma, offset, alpha, beta, epsilon):
    rows, count, parts = _rows_count_and_parts(x)
    # Deviations from the first image's mean: the squares of x itself could hide a variance that is small beside them.
    near = tf.reduce_mean(x[0], (0, 1))
    moments = _sums(_deviations(rows, near, parts))
    deviation, square = tf.math.real(moments) / count, tf.math.imag(moments) / count
    mean, variance = near + deviation, tf.maximum(square - deviation * deviation, 0)
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    outputs = _outputs(rows, scale, offset - mean * scale, alpha, beta)
    return tf.reshape(outputs, tf.shape(x)), mean, variance


@tf.function(autograph=False)
def _backward_pass(x, upstream, gamma, offset, alpha, beta, mean, variance, epsilon):
    rows, count, parts = _rows_count_and_parts(x)
    upstream = tf.reshape(upstream, tf.shape(rows))
    inverse = tf.math.rsqrt(variance + epsilon)
    scale = gamma * inverse
    known = mean, scale, offset - mean * scale, alpha, beta
    for_norm, for_mpelu = map(_sums, _terms(rows, upstream, *known, parts))
    by_offset, by_gamma = tf.math.real(for_norm), inverse * tf.math.imag(for_norm)
    by_alpha, by_beta = tf.math.real(for_mpelu), alpha * tf.math.imag(for_mpelu)
    by_x = _by_x(rows, upstream, *known, by_offset / count, by_gamma * inverse / count)
    return tf.reshape(by_x, tf.shape(x)), by_gamma, by_offset, by_alpha, by_beta


def _rows_count_and_parts(x):
    """The pixels as rows, their number in float32, and in how many parts they are computed."""
    channels = x.shape[-1]
    pixels = x.shape[1:].num_elements() // channels
    rows = tf.reshape(x, (-1, channels))
    return rows, tf.cast(tf.shape(rows)[0], tf.float32), math.gcd(pixels, PARTS)


def _sums(summands):
    return tf.reshape(sum_of_rows(summands), summands.shape[1:])


@_compiled
def _deviations(x, near, parts):
    """What is summed for the mean and the variance, as complex numbers (see `keras_mpelu.kernels.tensorflow`)."""
    deviations = [part - near for part in tf.split(x, parts)]
    return sum(tf.complex(deviation, deviation * deviation) for deviation in deviations)


@_compiled
def _outputs(x, scale, offset, alpha, beta):
    return forward(x * scale + offset, alpha, beta, expm1)


@_compiled
def _terms(x, upstream, mean, scale, offset, alpha, beta, parts):
    """What is summed for offset and gamma, and for alpha and beta, but for factors."""
    for_norm, for_mpelu = [], []
    for part, passed in zip(tf.split(x, parts), tf.split(upstream, parts), strict=True):
        normalized = part * scale + offset
        by_normalized = passed * slope(normalized, alpha, beta)
        for_norm.append(tf.complex(by_normalized, by_normalized * (part - mean)))
        for_mpelu.append(terms(normalized, beta, passed))
    return sum(for_norm), sum(for_mpelu)


@_compiled
def _by_x(x, upstream, mean, scale, offset, alpha, beta, mean_by_offset, mean_by_gamma):
    by_normalized = upstream * slope(x * scale + offset, alpha, beta)
    return scale * (by_normalized - mean_by_offset - (x - mean) * mean_by_gamma)
