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
from keras_mpelu.kernels.tensorflow import sum_of_rows

_compiled = functools.partial(tf.function, jit_compile=True, autograph=False)


def normalized_mpelu(x, gamma, offset, alpha, beta, epsilon):
    """MPELU of the normalised x, and the mean and the biased variance by channel, through which no gradient flows.

    Args:
        x: Images of known size, channels last.
        gamma: Scale of batch norm; this and the following of shape `(C,)`, in float32.
        offset: Its offset, `beta` elsewhere.
        alpha: Of MPELU.
        beta: Of MPELU.
        epsilon: What batch norm adds to the variance.
    """
    channels = x.shape[-1]
    parts = math.gcd(x.shape[1:].num_elements() // channels, PARTS)

    def rows(images):
        return tf.reshape(images, (-1, channels))

    def sums(terms):
        return tf.reshape(sum_of_rows(terms), (channels,))

    @tf.custom_gradient
    def function(x, gamma, offset, alpha, beta):
        count = tf.cast(tf.size(x) // channels, gamma.dtype)
        # Deviations from some value of each channel: the squares of x itself could hide a small variance.
        some = tf.cast(rows(x)[0], gamma.dtype)
        moments = sums(_deviations(rows(x), some, parts))
        deviation, square = tf.math.real(moments) / count, tf.math.imag(moments) / count
        mean, variance = some + deviation, square - deviation * deviation
        inverse = tf.math.rsqrt(variance + epsilon)
        known = mean, gamma * inverse, offset - mean * gamma * inverse, alpha, beta

        def gradient(upstream, *_):
            terms = _terms(rows(x), rows(upstream), *known, parts)
            by_offset, by_alpha = (tf.math.real(sums(each)) for each in terms)
            by_gamma, by_beta = (tf.math.imag(sums(each)) for each in terms)
            by_gamma *= inverse
            by_x = _by_x(rows(x), rows(upstream), *known, by_offset / count, by_gamma * inverse / count)
            return tf.reshape(by_x, tf.shape(x)), by_gamma, by_offset, by_alpha, alpha * by_beta

        return (tf.reshape(_outputs(rows(x), *known[1:]), tf.shape(x)), mean, variance), gradient

    return function(x, gamma, offset, alpha, beta)


@_compiled
def _deviations(x, some, parts):
    """What is summed for the mean and the variance, as complex numbers (see `keras_mpelu.kernels.tensorflow`)."""
    deviations = [tf.cast(part, some.dtype) - some for part in tf.split(x, parts)]
    return sum(tf.complex(deviation, deviation * deviation) for deviation in deviations)


@_compiled
def _outputs(x, scale, offset, alpha, beta):
    return tf.cast(forward(tf.cast(x, scale.dtype) * scale + offset, alpha, beta, expm1), x.dtype)


@_compiled
def _terms(x, upstream, mean, scale, offset, alpha, beta, parts):
    """What is summed for offset and gamma, and for alpha and beta, but for factors."""
    for_norm, for_mpelu = [], []
    for part, upstream_part in zip(tf.split(x, parts), tf.split(upstream, parts), strict=True):
        wide, passed = tf.cast(part, scale.dtype), tf.cast(upstream_part, scale.dtype)
        normalized = wide * scale + offset
        by_normalized = passed * _slope(normalized, alpha, beta)
        for_norm.append(tf.complex(by_normalized, by_normalized * (wide - mean)))
        negative = tf.minimum(normalized, 0)
        grown = passed * tf.exp(beta * negative)
        for_mpelu.append(tf.complex(grown - passed, grown * negative))
    return sum(for_norm), sum(for_mpelu)


@_compiled
def _by_x(x, upstream, mean, scale, offset, alpha, beta, mean_by_offset, mean_by_gamma):
    wide = tf.cast(x, scale.dtype)
    by_normalized = tf.cast(upstream, scale.dtype) * _slope(wide * scale + offset, alpha, beta)
    return tf.cast(scale * (by_normalized - mean_by_offset - (wide - mean) * mean_by_gamma), x.dtype)


def _slope(x, alpha, beta):
    return tf.where(x > 0, tf.ones_like(x), alpha * beta * (expm1(beta * tf.minimum(x, 0)) + 1))
