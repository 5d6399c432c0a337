"""Spatial pyramid pooling (He et al., 2014): a vector of one length from a map of any size."""

from keras import layers


def spatial_pyramid(x, levels):
    """Max pooling into 1, 4, 16, ... bins, level by level, and their concatenation.

    Bin i of n covers pixels floor(i * size / n) to ceil((i + 1) * size / n), as
    in the paper's appendix and in Keras's adaptive pooling.

    Args:
        x: Maps, `(batch, height, width, channels)`.
        levels: Levels of the pyramid; the last has `4 ** (levels - 1)` bins.

    Returns:
        A tensor of shape `(batch, channels * (4 ** levels - 1) / 3)`.

    Example:

    >>> spatial_pyramid(keras.Input((20, 20, 256)), 4).shape
    (None, 21760)

    Reference:

    - [He et al., 2014](https://arxiv.org/abs/1406.4729)
    """
    pooled = []
    for level in range(levels):
        bins = 2**level
        bins_of_level = layers.AdaptiveMaxPooling2D(bins, name=f"pyramid_pool{bins}")(x)
        pooled.append(layers.Flatten(name=f"pyramid_flatten{bins}")(bins_of_level))
    return layers.Concatenate(name="pyramid")(pooled)
