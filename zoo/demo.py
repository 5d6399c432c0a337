"""The demonstration: load by name, evaluate, fine-tune, on real data that is at hand offline."""

import importlib.util
import os
import pathlib
import time

import keras
import numpy as np

from zoo.datasets import SCIKIT_LEARN
from zoo.datasets import load_dataset
from zoo.evaluation import evaluate
from zoo.inference import predict
from zoo.pretrained import load_model
from zoo.registry import create_model
from zoo.registry import list_models
from zoo.registry import model_info

IMAGE_MODEL = "mpelu_resnet20.cifar100"
EPOCHS = 12
IMAGES_PER_CLASS = 10


def demo(picture="zoo_demo.png"):
    """Loads, evaluates and fine-tunes bundled models; prints a table and writes a picture.

    Needs no network. Everything printed was measured by this run.

    Args:
        picture: PNG file to write.

    Returns:
        A list of (what, model, data, accuracy) rows, as printed.
    """
    started = time.monotonic()
    picture = pathlib.Path(picture)
    if not picture.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"no folder {str(picture.absolute().parent)!r} for the picture; make it, or give another --out"
        )
    if picture.suffix.lower() != ".png" or picture.is_dir() or not os.access(picture.absolute().parent, os.W_OK):
        raise ValueError(f"--out is the path of a PNG file in a folder that may be written; received {str(picture)!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("the picture needs matplotlib")
    rows = []

    for name in list_models("snn_*", pretrained=True):
        data = model_info(name)["dataset"]
        if data in SCIKIT_LEARN:  # scikit-learn has the rows; those of UCI tasks would be fetched
            rows.append(("evaluate", name, f"{data}, held-out rows", evaluate(name, data)["top1"]))

    arms, model, digits = _finetune_on_digits(rows)
    cifar = _cifar100()
    if cifar is None:
        print("CIFAR-100 is not at hand (set ZOO_DATA_DIR to the folder of cifar100.npz), so it is left out")
    else:
        for name in list_models("*_resnet20.cifar100", pretrained=True):
            rows.append(("evaluate", name, "cifar100, test images", evaluate(name, cifar)["top1"]))

    print(f"\n{'what':<10} {'model':<28} {'data':<36} {'accuracy':>8}")
    for what, name, data, accuracy in rows:
        print(f"{what:<10} {name:<28} {data:<36} {100 * accuracy:>6.2f} %")
    _draw(picture, arms, model, digits)
    print(f"\nmeasured just now in {time.monotonic() - started:.0f} s; picture: {picture.resolve()}")
    return rows


def digits_as_images(x):
    """Rows of the digits data set (8 x 8, values 0 to 16) as 32 x 32 RGB images, uint8."""
    from PIL import Image

    small = np.round(x.reshape(-1, 8, 8) * (255 / 16)).astype("uint8")
    large = [np.asarray(Image.fromarray(digit).resize((32, 32), Image.Resampling.BICUBIC)) for digit in small]
    return np.repeat(np.stack(large)[..., None], 3, axis=-1)


def _finetune_on_digits(rows):
    """Fine-tunes the image model, and the same network from scratch, on a hundred rendered digits."""
    digits = load_dataset("digits")
    few = np.concatenate([np.flatnonzero(digits.y_train == label)[:IMAGES_PER_CLASS] for label in range(10)])
    x, y = digits_as_images(digits.x_train[few]), digits.y_train[few]
    x_test = digits_as_images(digits.x_test)
    arms = {}
    for arm in ("from scratch", "fine-tuned"):
        keras.utils.set_random_seed(0)
        if arm == "fine-tuned":
            model = load_model(IMAGE_MODEL, num_classes=10)
        else:
            model = create_model(IMAGE_MODEL.partition(".")[0], num_classes=10)
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(x, y, batch_size=20, epochs=EPOCHS, verbose=0).history
        arms[arm] = history["loss"]
        accuracy = (predict(model, x_test).argmax(axis=1) == digits.y_test).mean()
        rows.append(
            (
                "fine-tune" if arm == "fine-tuned" else "train anew",
                model.name,
                f"digits as images, {len(x)} to train",
                accuracy,
            )
        )
    return arms, model, (x_test, digits.y_test)


def _cifar100():
    """CIFAR-100 where it is at hand; the demonstration never downloads."""
    try:
        return load_dataset("cifar100", download=False)
    except FileNotFoundError:
        return None


def _draw(picture, arms, model, digits):
    from matplotlib.figure import Figure

    x, y = digits
    shown = np.arange(0, len(x), len(x) // 10)[:10]
    probabilities = predict(model, x[shown])
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subfigures(1, 2)
    panel = left.subplots()
    for arm, losses in arms.items():
        panel.plot(range(1, len(losses) + 1), losses, marker="o", markersize=3, label=arm)
    panel.set(xlabel="epoch", ylabel="training loss (nats)", title=f"{IMAGE_MODEL} on 100 digits it has never seen")
    panel.legend()
    for panel, image, label, row in zip(right.subplots(2, 5).flat, x[shown], y[shown], probabilities, strict=True):
        panel.imshow(image)
        panel.axis("off")
        color = "black" if row.argmax() == label else "red"
        panel.set_title(f"{row.argmax()} ({100 * row.max():.0f} %)", color=color, fontsize=9)
    right.suptitle("test images after fine-tuning (red: wrong)")
    figure.savefig(picture, dpi=90)
