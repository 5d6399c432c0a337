"""Augmentation of batches of images on the device, inside the training step.

Each function draws from a `keras.random.SeedGenerator`, whose state is part of
a checkpoint, so an interrupted run draws what the uninterrupted one would
have. Images are float tensors, (batch, height, width, channels), not yet
standardised (that happens inside the network); "zero" of the standardised
image is therefore the channels' mean here. Targets are one-hot or soft, (batch,
classes).
"""

import keras
from keras import ops


def pad_crop_flip(images, mean, seed, pad=4):
    """Zero-pads in standardised space, crops at random, flips half of the images.

    Every image draws its own offset and flip (Keras's `RandomCrop` draws one
    offset for a batch, and does not pad).

    Args:
        images: Float tensor, (batch, height, width, channels).
        mean: Per-channel mean that the network subtracts.
        seed: A `keras.random.SeedGenerator`.
        pad: Pixels on each side. Defaults to 4.

    Returns:
        A tensor of the shape of `images`.

    Example:

    >>> seed = keras.random.SeedGenerator(0)
    >>> tuple(pad_crop_flip(np.zeros((2, 32, 32, 3), "float32"), (0, 0, 0), seed).shape)
    (2, 32, 32, 3)

    Reference:

    - [He et al., 2016](https://arxiv.org/abs/1512.03385), section 4.2
    """
    _, height, width, channels = images.shape
    count = ops.shape(images)[0]
    top = keras.random.randint((count, 1), 0, 2 * pad + 1, seed=seed) - pad
    left = keras.random.randint((count, 1), 0, 2 * pad + 1, seed=seed) - pad
    flip = keras.random.uniform((count, 1), seed=seed) < 0.5
    rows = top + ops.arange(height, dtype="int32")
    columns = ops.arange(width, dtype="int32")
    columns = left + ops.where(flip, width - 1 - columns, columns)
    inside = ops.expand_dims((rows >= 0) & (rows < height), 2) & ops.expand_dims((columns >= 0) & (columns < width), 1)
    # One gather of pixels by their number in the batch.
    first = ops.reshape(ops.arange(count, dtype="int32") * (height * width), (-1, 1, 1))
    pixels = (
        first
        + ops.expand_dims(ops.clip(rows, 0, height - 1) * width, 2)
        + ops.expand_dims(ops.clip(columns, 0, width - 1), 1)
    )
    moved = ops.take(ops.reshape(images, (-1, channels)), pixels, axis=0)
    return ops.where(ops.expand_dims(inside, 3), moved, ops.cast(ops.convert_to_tensor(mean), images.dtype))


def erase(images, mean, size, seed):
    """Sets a square of each image to "zero", also where it hangs over the edge.

    Args:
        images: Float tensor, (batch, height, width, channels).
        mean: Per-channel mean that the network subtracts.
        size: Side of the square in pixels.
        seed: A `keras.random.SeedGenerator`.

    Returns:
        A tensor of the shape of `images`.

    Reference:

    - [DeVries and Taylor, 2017](https://arxiv.org/abs/1708.04552): cutout
    """
    _, height, width, _ = images.shape
    count = ops.shape(images)[0]
    top = keras.random.randint((count,), 0, height, seed=seed) - size // 2
    left = keras.random.randint((count,), 0, width, seed=seed) - size // 2
    hole = _box(height, width, top, left, size, size)
    return ops.where(hole, ops.cast(ops.convert_to_tensor(mean), images.dtype), images)


def mixup(images, targets, alpha, seed):
    """Blends each image, and its target, with those of another image of the batch.

    `x <- m x + (1 - m) x'`, with one `m` from Beta(alpha, alpha) for the batch; the
    partner of an image is its mirror place in the batch, whose order is random.

    Args:
        images: Float tensor, (batch, height, width, channels).
        targets: Float tensor, (batch, classes).
        alpha: Parameter of the Beta distribution.
        seed: A `keras.random.SeedGenerator`.

    Returns:
        `(images, targets)`.

    Reference:

    - [Zhang et al., 2018](https://arxiv.org/abs/1710.09412)
    """
    images, targets = ops.convert_to_tensor(images), ops.convert_to_tensor(targets)
    part = keras.random.beta((1,), alpha, alpha, seed=seed)
    images = ops.reshape(part, (1, 1, 1, 1)) * images + (1 - ops.reshape(part, (1, 1, 1, 1))) * ops.flip(images, 0)
    return images, ops.reshape(part, (1, 1)) * targets + (1 - ops.reshape(part, (1, 1))) * ops.flip(targets, 0)


def cutmix(images, targets, alpha, seed):
    """Pastes a box of another image of the batch into each image; targets mix by area.

    The box has the share `1 - m` of the area, `m` from Beta(alpha, alpha), a random
    centre, and is cut at the edges; the targets take the share that is left.

    Args:
        images: Float tensor, (batch, height, width, channels).
        targets: Float tensor, (batch, classes).
        alpha: Parameter of the Beta distribution.
        seed: A `keras.random.SeedGenerator`.

    Returns:
        `(images, targets)`.

    Reference:

    - [Yun et al., 2019](https://arxiv.org/abs/1905.04899)
    """
    images, targets = ops.convert_to_tensor(images), ops.convert_to_tensor(targets)
    _, height, width, _ = images.shape
    side = ops.sqrt(1 - keras.random.beta((1,), alpha, alpha, seed=seed))
    box_height, box_width = (ops.cast(side * length, "int32") for length in (height, width))
    top = keras.random.randint((1,), 0, height, seed=seed) - box_height // 2
    left = keras.random.randint((1,), 0, width, seed=seed) - box_width // 2
    box = _box(height, width, top, left, box_height, box_width)
    pasted = ops.reshape(ops.mean(ops.cast(box, targets.dtype)), (1, 1))
    return ops.where(box, ops.flip(images, 0), images), (1 - pasted) * targets + pasted * ops.flip(targets, 0)


def _box(height, width, top, left, box_height, box_width):
    """True inside the box: (boxes, height, width, 1)."""
    rows, columns = ops.arange(height, dtype="int32"), ops.arange(width, dtype="int32")
    top, left = ops.reshape(top, (-1, 1)), ops.reshape(left, (-1, 1))
    inside_rows = (rows >= top) & (rows < top + box_height)
    inside_columns = (columns >= left) & (columns < left + box_width)
    return ops.expand_dims(ops.expand_dims(inside_rows, 2) & ops.expand_dims(inside_columns, 1), 3)
