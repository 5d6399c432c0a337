"""How weights lie in their files: kernels in float16 where that loses nothing.

Kernels that were rounded to float16 before (`python -m training compact`) take
half the room; a reader gets the same float32 values as from a file of float32.
"""

import os

import h5py
import numpy as np


def as_stored(value):
    """An array as it is stored: a float32 kernel whose values all exist in float16 as such, else unchanged.

    >>> as_stored(np.array([[0.5, 0.25]], "float32")).dtype, as_stored(np.array([[0.1]], "float32")).dtype
    (dtype('float16'), dtype('float32'))
    """
    if not _is_kernel(value):
        return value
    with np.errstate(over="ignore"):  # too large, so infinite and not equal
        half = value.astype(np.float16)
    return half if np.array_equal(half, value) else value


def store_compactly(path):
    """Writes a weights file of Keras anew with its arrays `as_stored`, in HDF5's denser format of version 1.8."""
    new = path.with_name(f".{path.name}.new")
    with h5py.File(path, "r") as source, h5py.File(new, "w", libver="v108") as target:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                target.create_group(name).attrs.update(item.attrs)
            elif _is_kernel(item):
                target[name] = as_stored(item[()])
                target[name].attrs.update(item.attrs)
            else:
                source.copy(item, target, name)

        source.visititems(copy)
    os.replace(new, path)


def _is_kernel(array):
    """Float32 of two axes or more. Vectors are few numbers, and among them are variances beyond float16's range."""
    return array.dtype == np.float32 and array.ndim > 1
