"""Tables: cross-validated figures of a recipe, and the choice of its settings."""

import dataclasses
import itertools
import tempfile

import numpy as np

from training import loop
from training.standardisation import builder_arguments
from zoo.datasets import Dataset


def accuracy_of(recipe, train, test, num_classes, seed=0):
    """Test accuracy of a recipe trained on one split, standardised on its training rows."""
    dataset = Dataset(recipe.dataset, *train, *test, (), (), "")
    with tempfile.TemporaryDirectory() as folder:
        arguments = builder_arguments(dataset)
        model = loop.fit(recipe, *train, num_classes, folder, seed, None, arguments, quiet=True).model
    return float((np.asarray(model.predict_on_batch(test[0])).argmax(1) == test[1]).mean())


def cross_validate(recipe, dataset, folds=5, seed=0):
    """Accuracy of a recipe, a random forest and an SVM in stratified cross-validation.

    Args:
        recipe: A `Recipe` for a table.
        dataset: A `Dataset`; its training and test rows are pooled.
        folds: Number of folds.
        seed: Seed of the folds, the networks and the forest.

    Returns:
        A dictionary: `folds`, `rows` and `accuracy`, which maps each method to
        (mean, standard deviation over the folds).
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x = np.concatenate([dataset.x_train, dataset.x_test])
    y = np.concatenate([dataset.y_train, dataset.y_test])
    rivals = {
        "random forest (500 trees)": lambda: RandomForestClassifier(500, random_state=seed),
        "SVM (RBF, C=10, standardised)": lambda: make_pipeline(StandardScaler(), SVC(C=10)),
    }
    accuracy = {recipe.name.partition(".")[0]: [], **{name: [] for name in rivals}}
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        split = (x[train], y[train]), (x[test], y[test])
        accuracy[recipe.name.partition(".")[0]].append(accuracy_of(recipe, *split, len(dataset.class_names), seed))
        for name, make in rivals.items():
            accuracy[name].append(float((make().fit(x[train], y[train]).predict(x[test]) == y[test]).mean()))
    return {
        "folds": folds,
        "rows": len(x),
        "accuracy": {name: [float(np.mean(v)), float(np.std(v, ddof=1))] for name, v in accuracy.items()},
    }


def choices(recipe, widths=(64, 128), rates=(0.001, 0.003, 0.01, 0.03), dropouts=(0.0, 0.05)):
    """The variants of a recipe that `validation_accuracy` compares."""
    return [
        dataclasses.replace(recipe, learning_rate=rate, overrides={"width": width, "dropout": dropout})
        for width, rate, dropout in itertools.product(widths, rates, dropouts)
    ]


def validation_accuracy(recipe, dataset):
    """Accuracy on a quarter of the training rows, held out; 0 if the loss became NaN. The test rows are not read."""
    from sklearn.model_selection import train_test_split

    x, x_held, y, y_held = train_test_split(
        dataset.x_train, dataset.y_train, test_size=0.25, stratify=dataset.y_train, random_state=0
    )
    try:
        return accuracy_of(recipe, (x, y), (x_held, y_held), len(dataset.class_names))
    except FloatingPointError:
        return 0.0
