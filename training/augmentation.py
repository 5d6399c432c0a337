"""Crop and flip of CIFAR images, in NumPy: the same numbers on every backend."""

import numpy as np


def pad_crop_flip(images, rng, mean, pad=4):
    """Zero-pads in standardised space, crops at random, flips half of the images.

    Every image draws its own offset and flip. The images are not standardised
    yet (that happens inside the model), so "zero" is the mean here.

    Args:
        images: uint8 or float array, (batch, height, width, channels).
        rng: A `numpy.random.Generator`.
        mean: Per-channel mean that the model subtracts.
        pad: Pixels on each side. Defaults to 4.

    Returns:
        A float32 array of the shape of `images`.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> pad_crop_flip(np.zeros((2, 32, 32, 3), "uint8"), rng, mean=(0, 0, 0)).shape
    (2, 32, 32, 3)

    Reference:

    - [He et al., 2016](https://arxiv.org/abs/1512.03385), section 4.2
    """
    count, height, width, channels = images.shape
    padded = np.empty((count, height + 2 * pad, width + 2 * pad, channels), "float32")
    padded[:] = mean
    padded[:, pad : pad + height, pad : pad + width] = images
    top = rng.integers(0, 2 * pad + 1, count)
    left = rng.integers(0, 2 * pad + 1, count)
    flip = rng.random(count) < 0.5
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.where(flip[:, None], np.arange(width)[::-1], np.arange(width))
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
