"""Augmentation: every image's offset and flip are recovered from pixels that encode their place."""

import collections
import dataclasses
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from training import get_recipe
from training.augmentation import cutmix
from training.augmentation import erase
from training.augmentation import mixup
from training.augmentation import pad_crop_flip
from training.training_model import TrainingModel
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import image_input

ROOT = pathlib.Path(__file__).parents[1]
MEAN = (129.5, 124.25, 112.75)
COUNT, HEIGHT, WIDTH = 3000, 8, 10


def coordinates(count):
    """Images whose channels are the row, the column and the number of the image."""
    images = np.empty((count, HEIGHT, WIDTH, 3), "float32")
    images[..., 0] = np.arange(HEIGHT)[:, None]
    images[..., 1] = np.arange(WIDTH)
    images[..., 2] = 1000 + np.arange(count)[:, None, None]
    return images


def all_views():
    """All 162 crops and flips of row and column: `{bytes: (top, left, flipped)}`."""
    padded = [np.pad(coordinates(1)[0, ..., c], 4, constant_values=MEAN[c]) for c in (0, 1)]
    views = {}
    for top in range(9):
        for left in range(9):
            view = np.stack([plane[top : top + HEIGHT, left : left + WIDTH] for plane in padded], -1)
            views[view.tobytes()] = (top, left, False)
            views[view[:, ::-1].tobytes()] = (top, left, True)
    assert len(views) == 162
    return views


def seed(number=0):
    return keras.random.SeedGenerator(number)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_each_image_has_its_own_offset_and_flip():
    augmented = array(pad_crop_flip(coordinates(COUNT), MEAN, seed()))
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


def test_same_seed_same_result_and_the_next_batch_is_drawn_anew():
    images = coordinates(20)
    generator = seed(5)
    first, second, third = (array(pad_crop_flip(images, MEAN, s)) for s in (seed(5), generator, generator))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(second, third)


def test_padding_is_zero_after_the_standardisation_of_the_model():
    images = np.full((200, 32, 32, 3), 255, "float32")
    augmented = array(pad_crop_flip(images, CIFAR100_MEAN, seed()))
    model = keras.Model(*image_input((32, 32, 3), CIFAR100_MEAN, CIFAR100_STD))
    standardised = model.predict(augmented, verbose=0)
    padding = np.any(augmented != 255, -1)
    assert 0.05 < padding.mean() < 0.25  # 13 % expected: 1 - (1 - 20 / 9 / 32)**2
    np.testing.assert_allclose(standardised[padding], 0, atol=1e-6)
    assert standardised[~padding].min() > 1.8


def test_erase_blanks_a_square_of_each_image():
    images = np.full((500, 12, 12, 3), 7, "float32")
    erased = array(erase(images, MEAN, 4, seed()))
    hole = (erased == np.array(MEAN, "float32")).all(-1)
    np.testing.assert_array_equal(erased[~hole], 7)
    rows, columns = hole.any(2), hole.any(1)
    np.testing.assert_array_equal(hole, rows[:, :, None] & columns[:, None, :])  # a rectangle
    assert rows.sum(1).max() == columns.sum(1).max() == 4
    assert {2, 3, 4} == set(rows.sum(1))  # centred anywhere, cut at the edges
    centres = {(int(np.argmax(r)), int(np.argmax(c))) for r, c in zip(rows, columns, strict=True)}
    assert len(centres) > 80


def test_mixup_blends_images_and_targets_alike():
    rng = np.random.default_rng(0)
    images, targets = rng.normal(size=(6, 4, 4, 3)).astype("float32"), np.eye(6, dtype="float32")
    parts = []
    generator = seed(1)
    for _ in range(100):
        mixed, soft = (array(value) for value in mixup(images, targets, 0.4, generator))
        part = soft[0, 0]
        parts.append(part)
        np.testing.assert_allclose(soft, part * targets + (1 - part) * targets[::-1], atol=1e-6)
        np.testing.assert_allclose(mixed, part * images + (1 - part) * images[::-1], atol=1e-5)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert np.mean(parts) == pytest.approx(0.5, abs=0.12)
    assert np.var(parts) == pytest.approx(1 / (4 * 1.8), rel=0.4)


def test_cutmix_pastes_a_box_and_mixes_targets_by_its_area():
    images = np.broadcast_to(np.arange(6, dtype="float32")[:, None, None, None], (6, 16, 16, 3)).copy()
    targets = np.eye(6, dtype="float32")
    generator = seed(2)
    areas = []
    for _ in range(60):
        mixed, soft = (array(value) for value in cutmix(images, targets, 1.0, generator))
        pasted = mixed[0, :, :, 0] == 5
        np.testing.assert_array_equal(pasted, pasted.any(1)[:, None] & pasted.any(0)[None])
        for number in range(6):
            np.testing.assert_array_equal(mixed[number, ..., 0], np.where(pasted, 5 - number, number))
        np.testing.assert_allclose(soft[0], [1 - pasted.mean(), 0, 0, 0, 0, pasted.mean()], atol=1e-6)
        areas.append(pasted.mean())
    assert min(areas) < 0.1 < 0.5 < max(areas)


def test_needs_no_tensorflow():
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import numpy as np, keras\n"
        "from training.augmentation import pad_crop_flip\n"
        "s = keras.random.SeedGenerator(0)\n"
        "print(tuple(pad_crop_flip(np.ones((2, 8, 8, 3), 'float32'), (0, 0, 0), s).shape))"
    )
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow itself is the backend")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.split("\n")[0] == "(2, 8, 8, 3)", result.stderr


def batch(training=True, seed=0, **settings):
    """Images of one shade, 20 times their class, and what a step of training makes of them and of their targets."""
    none = {"augmentation": "none", "erase": 0, "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0}
    recipe = dataclasses.replace(get_recipe("mpelu_nopre_resnet164.cifar100-modern"), **{**none, **settings})
    labels = np.arange(200) % 10
    images = np.repeat(20 * labels, 16 * 16 * 3).reshape(200, 16, 16, 3).astype("uint8")
    inputs = keras.Input((16, 16, 3))
    network = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    made, targets = TrainingModel(network, recipe, images, labels, 10, seed).batch(np.arange(200), training)
    return array(made), array(targets), images, np.eye(10)[labels]


@pytest.mark.parametrize(
    "settings", [{}, {"augmentation": "pad_crop_flip"}, {"erase": 4}, {"label_smoothing": 0.1}, {"mixup": 0.2}]
)
def test_rows_are_as_they_are_but_in_training(settings):
    made, targets, images, one_hot = batch(training=False, **settings)
    np.testing.assert_array_equal(made, images)
    np.testing.assert_array_equal(targets, one_hot)


def test_a_recipe_without_augmentation_has_none():
    made, targets, images, one_hot = batch()
    np.testing.assert_array_equal(made, images)
    np.testing.assert_array_equal(targets, one_hot)


def test_a_recipes_crops_and_erased_squares_are_filled_with_the_mean_of_its_images():
    made, targets, images, one_hot = batch(augmentation="pad_crop_flip")
    np.testing.assert_array_equal(targets, one_hot)
    filled = made != images
    assert 0.2 < filled.mean() < 0.8 and (made[filled] == 90).all()  # the mean of 0, 20, ... 180
    made, targets, images, one_hot = batch(erase=4)
    np.testing.assert_array_equal(targets, one_hot)
    filled = made != images
    assert (made[filled] == 90).all() and set(filled[..., 0].sum((1, 2))) <= set(range(17)) and filled.any()


def test_a_recipe_smooths_its_labels():
    made, targets, images, one_hot = batch(label_smoothing=0.1)
    np.testing.assert_array_equal(made, images)
    np.testing.assert_allclose(targets, 0.9 * one_hot + 0.01, atol=1e-6)


@pytest.mark.parametrize("settings", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
def test_a_recipe_mixes_targets_as_it_mixes_images(settings):
    """The mean shade of a mixture is the mean of the shades of its targets."""
    pasted = set()
    for number in range(8):  # of two kinds of mixture it is one for a batch
        made, targets, images, one_hot = batch(seed=number, **settings)
        np.testing.assert_allclose(made.mean((1, 2, 3)), targets @ (20.0 * np.arange(10)), atol=1e-3)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        if (made != images).any():  # a pasted box may be less than a pixel
            assert (targets != one_hot).any()
            pasted.add(bool(np.ptp(made, axis=(1, 2, 3)).any()))  # CutMix's have two shades
    assert pasted == {kind == "cutmix" for kind in settings}
