"""Measurements behind the figures in results/; each writes one CSV."""

import csv
import pathlib
import platform

import keras
import numpy as np

from training.recipes import TABULAR
from training.recipes import get_recipe
from training.tabular import choose
from zoo.datasets import load_dataset
from zoo.demo import digits_as_images
from zoo.pretrained import load_model
from zoo.pretrained import predict
from zoo.registry import create_model

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def tabular(out):
    """Validation accuracy of each setting of the tabular recipes; the recipes hold the best ones."""
    return _write(pathlib.Path(out) / "tabular_choices.csv", _tabular_rows())


def _tabular_rows():
    for depth, name in TABULAR:
        recipe = get_recipe(f"snn_mlp{depth}.{name}")
        yield from choose(recipe, load_dataset(name))


def finetuning(out, name="mpelu_resnet20.cifar100", seeds=(0, 1, 2), per_class=10, epochs=30):
    """Fine-tuning against training from scratch, on digits rendered to 32 x 32.

    Ten images a class to train, ten a class to choose each arm's learning rate
    (of the same five), the data set's own test rows for the result, read once
    per seed and arm with the chosen rate.
    """
    return _write(pathlib.Path(out) / "finetuning.csv", _finetuning_rows(name, seeds, per_class, epochs))


def _finetuning_rows(name, seeds, per_class, epochs):
    dataset = load_dataset("digits")
    images, test_images = digits_as_images(dataset.x_train), digits_as_images(dataset.x_test)
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(images))
        by_class = [order[dataset.y_train[order] == label] for label in range(10)]
        train = np.concatenate([rows[:per_class] for rows in by_class])
        held = np.concatenate([rows[per_class : 2 * per_class] for rows in by_class])
        for arm in ("pretrained", "scratch"):
            keras.utils.set_random_seed(seed)
            if arm == "pretrained":
                model = load_model(name, num_classes=10)
            else:
                model = create_model(name.partition(".")[0], num_classes=10)
            start = model.get_weights()
            found = []
            for rate in RATES:
                model.set_weights(start)
                model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
                model.fit(images[train], dataset.y_train[train], batch_size=20, epochs=epochs, verbose=0)
                accuracy = _accuracy(model, images[held], dataset.y_train[held])
                found.append((accuracy, rate, model.get_weights()))
            accuracy, rate, weights = max(found, key=lambda row: row[0])  # the smaller rate of equals
            model.set_weights(weights)
            yield {
                "model": name,
                "arm": arm,
                "seed": seed,
                "images": len(train),
                "epochs": epochs,
                "chosen_rate": rate,
                "validation_accuracy": accuracy,
                "test_accuracy": round(_accuracy(model, test_images, dataset.y_test), 4),
                "test_rows": len(test_images),
            }


def _accuracy(model, images, labels):
    return float((predict(model, images).argmax(axis=1) == labels).mean())


def _write(path, rows):
    """Writes rows as they come, so that an interrupted measurement keeps what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    conditions = {"backend": keras.backend.backend(), "keras": keras.__version__, "machine": platform.machine()}
    with open(path, "w", newline="") as file:
        writer = None
        for row in rows:
            row = {**row, **conditions}
            writer = writer or csv.DictWriter(file, row, lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(row, flush=True)
    return path


BENCHMARKS = {"tabular": tabular, "finetuning": finetuning}
