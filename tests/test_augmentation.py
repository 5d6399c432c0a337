"""Crop and flip: every image's offset and flip are recovered from pixels that encode their place."""

import collections
import pathlib
import subprocess
import sys

import keras
import numpy as np

from training.augmentation import pad_crop_flip
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import image_input

ROOT = pathlib.Path(__file__).parents[1]
MEAN = (129.5, 124.25, 112.75)
COUNT, HEIGHT, WIDTH = 3000, 8, 10


def coordinates(count):
    """Images whose channels are the row, the column and the number of the image."""
    images = np.empty((count, HEIGHT, WIDTH, 3), "uint16")
    images[..., 0] = np.arange(HEIGHT)[:, None]
    images[..., 1] = np.arange(WIDTH)
    images[..., 2] = 1000 + np.arange(count)[:, None, None]
    return images


def all_views():
    """All 162 crops and flips of row and column: `{bytes: (top, left, flipped)}`."""
    padded = [np.pad(coordinates(1)[0, ..., c].astype("float32"), 4, constant_values=MEAN[c]) for c in (0, 1)]
    views = {}
    for top in range(9):
        for left in range(9):
            view = np.stack([plane[top : top + HEIGHT, left : left + WIDTH] for plane in padded], -1)
            views[view.tobytes()] = (top, left, False)
            views[view[:, ::-1].tobytes()] = (top, left, True)
    assert len(views) == 162
    return views


def test_each_image_has_its_own_offset_and_flip():
    augmented = pad_crop_flip(coordinates(COUNT), np.random.default_rng(0), MEAN)
    assert augmented.dtype == "float32" and augmented.shape == (COUNT, HEIGHT, WIDTH, 3)
    views = all_views()
    found = [views[image[..., :2].tobytes()] for image in augmented]  # a KeyError: not a crop of the padded image
    for number, image in enumerate(augmented):
        assert set(np.unique(image[..., 2])) <= {np.float32(MEAN[2]), 1000 + number}
    counts = collections.Counter(found)
    assert len(counts) == 162  # 81 offsets, each flipped and not
    assert max(counts.values()) < 45  # 18.5 expected
    tops, lefts, flips = np.array(found).T
    assert abs(np.mean(flips) - 0.5) < 0.03  # three standard errors
    for a, b in ((tops, lefts), (tops, flips), (lefts, flips)):  # independent draws
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    assert len(set(found[:20])) > 10  # also within a small batch


def test_same_generator_same_result():
    images = coordinates(20)
    first, second = (pad_crop_flip(images, np.random.default_rng(5), MEAN) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(pad_crop_flip(images, rng, MEAN), first)
    assert not np.array_equal(pad_crop_flip(images, rng, MEAN), first)  # the next batch is drawn anew
    np.testing.assert_array_equal(images, coordinates(20))  # the input is not written to


def test_padding_is_zero_after_the_standardisation_of_the_model():
    images = np.full((200, 32, 32, 3), 255, "uint8")
    augmented = pad_crop_flip(images, np.random.default_rng(0), CIFAR100_MEAN)
    model = keras.Model(*image_input((32, 32, 3), CIFAR100_MEAN, CIFAR100_STD))
    standardised = model.predict(augmented, verbose=0)
    padding = np.any(augmented != 255, -1)
    assert 0.05 < padding.mean() < 0.25  # 13 % expected: 1 - (1 - 20 / 9 / 32)**2
    np.testing.assert_allclose(standardised[padding], 0, atol=1e-6)
    assert standardised[~padding].min() > 1.8


def test_needs_no_tensorflow():
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import numpy as np\n"
        "from training.augmentation import pad_crop_flip\n"
        "print(pad_crop_flip(np.ones((2, 8, 8, 3), 'uint8'), np.random.default_rng(0), (0, 0, 0)).shape)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.split("\n")[0] == "(2, 8, 8, 3)", result.stderr
