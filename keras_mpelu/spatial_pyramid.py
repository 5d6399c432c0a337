"""Spatial pyramid pooling (He et al., 2014): a vector of one length from maps of any size."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mpelu")
class SpatialPyramidPooling(keras.layers.Layer):
    """Max pooling into 1, 4, 16, ... bins, level by level, and their concatenation.

    At the level of n x n bins, bin i of a side covers the pixels from
    `floor(i * size / n)` to `ceil((i + 1) * size / n)`, as in the paper's
    appendix. (Keras 3.15's `AdaptiveMaxPooling2D` means the same, but fails on
    TensorFlow where one bin covers the map.)

    Args:
        levels: Levels of the pyramid; the last has `4 ** (levels - 1)` bins.

    Raises:
        ValueError: `levels` is not an integer of 1 or more, or the maps have
            no known size.

    Input shape:
        `(batch, height, width, channels)`.

    Output shape:
        `(batch, channels * (4 ** levels - 1) / 3)`.

    Example:

    >>> layer = SpatialPyramidPooling(levels=3)
    >>> tuple(layer(np.ones((2, 7, 9, 16), "float32")).shape)
    (2, 336)

    Reference:

    - [He et al., 2014](https://arxiv.org/abs/1406.4729)
    """

    def __init__(self, levels, **kwargs):
        super().__init__(**kwargs)
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
            raise ValueError(f"levels is an integer of 1 or more; received {levels!r}")
        self.levels = levels
        self.input_spec = keras.InputSpec(ndim=4)

    def call(self, inputs):
        pooled = []
        for level in range(self.levels):
            rows = _pool_side(inputs, 2**level, axis=1)
            bins = _pool_side(rows, 2**level, axis=2)
            pooled.append(ops.reshape(bins, (-1, 4**level * inputs.shape[-1])))
        return ops.concatenate(pooled, axis=1)

    def compute_output_shape(self, input_shape):
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(f"SpatialPyramidPooling needs maps of a known size; received shape {tuple(input_shape)}")
        return (input_shape[0], input_shape[-1] * (4**self.levels - 1) // 3)

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


def _pool_side(x, bins, axis):
    """The maximum of each bin along an axis of known size."""
    size = x.shape[axis]
    starts = [index * size // bins for index in range(bins)]
    stops = [-(-(index + 1) * size // bins) for index in range(bins)]
    every = slice(None)
    slices = [(every,) * axis + (slice(start, stop),) for start, stop in zip(starts, stops, strict=True)]
    return ops.stack([ops.max(x[part], axis=axis) for part in slices], axis=axis)
