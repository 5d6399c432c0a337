"""One-hot vectors in place of some columns of a table."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mpelu")
class OneHotColumns(keras.layers.Layer):
    """Replaces columns of integer codes by one-hot vectors, and leaves the others.

    `keras.layers.CategoryEncoding` encodes one column with an input of its own;
    this takes a whole table, so that a network for tables keeps one input.
    A code that is not 0 to size-1 gives zeros.

    Args:
        sizes: For every column the number of its codes, or 0 for a column of
            numbers, which stays as it is.

    Input shape:
        `(batch, len(sizes))`.

    Output shape:
        `(batch, sum(max(size, 1) for size in sizes))`; the order of the columns
        is kept.

    Raises:
        ValueError: a size is negative or no integer, or there are none;
            they sum up to more than 2**20; or the inputs have another number
            of columns.

    Example:

    >>> layer = OneHotColumns([0, 3])
    >>> keras.ops.convert_to_numpy(layer(np.array([[0.5, 2.0], [1.5, 0.0]]))).tolist()
    [[0.5, 0.0, 0.0, 1.0], [1.5, 1.0, 0.0, 0.0]]
    """

    def __init__(self, sizes, **kwargs):
        # As they are: in half precision a code from 257 on would become another one.
        super().__init__(**{"autocast": False, **kwargs})
        self.sizes = [int(size) for size in sizes]
        if not self.sizes or min(self.sizes) < 0 or self.sizes != list(sizes):
            raise ValueError(f"sizes are integers of 0 or more, one for each column; received {sizes!r}")
        if sum(self.sizes) > 2**20:
            raise ValueError(f"sizes sum up to 2**20 at most; received {sum(self.sizes)}")
        # For every column of the output the input's column, and the code that it stands for (-1: the number itself).
        self._source = [column for column, size in enumerate(self.sizes) for _ in range(max(size, 1))]
        self._code = [code for size in self.sizes for code in (range(size) if size else [-1])]
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: len(self.sizes)})

    def call(self, inputs):
        values = ops.take(inputs, self._source, axis=-1)
        values = ops.cast(values, keras.backend.result_type(values.dtype, "float32"))
        codes = ops.convert_to_tensor(self._code, values.dtype)
        encoded = ops.where(codes < 0, values, ops.cast(values == codes, values.dtype))
        return ops.cast(encoded, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return *input_shape[:-1], len(self._source)

    def get_config(self):
        return {**super().get_config(), "sizes": self.sizes}
