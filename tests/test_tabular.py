"""Figures of a recipe on a table: what is trained on, and what is held out."""

import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import zoo
from training import get_recipe
from training import tabular


def recorded(splits, accuracy):
    """In place of `accuracy_of`: keeps what it is given."""

    def accuracy_of(recipe, train, test, num_classes, seed=0):
        splits.append((train, test, num_classes))
        return accuracy[len(splits) - 1]

    return accuracy_of


def test_cross_validation_holds_out_each_row_once(monkeypatch):
    wine, splits, accuracy = zoo.load_dataset("wine"), [], [0.9, 0.8, 1.0]
    monkeypatch.setattr(tabular, "accuracy_of", recorded(splits, accuracy))
    found = tabular.cross_validate(get_recipe("snn_mlp2.wine"), wine, folds=3, seed=1)
    x = np.concatenate([wine.x_train, wine.x_test])
    y = np.concatenate([wine.y_train, wine.y_test])
    assert (found["folds"], found["rows"]) == (3, 178)
    held = np.concatenate([test[0] for _, test, _ in splits])
    np.testing.assert_array_equal(np.sort(held, axis=0), np.sort(x, axis=0))
    for (x_train, y_train), (x_test, y_test), num_classes in splits:
        assert not {row.tobytes() for row in x_train} & {row.tobytes() for row in x_test}
        assert len(x_train) == len(y_train) == 178 - len(x_test) == 178 - len(y_test) and num_classes == 3
    assert found["accuracy"]["snn_mlp2"] == pytest.approx([0.9, 0.1])
    # scikit-learn's own loop over the folds
    folds = StratifiedKFold(3, shuffle=True, random_state=1)
    for name, rival in {
        "random forest (500 trees)": RandomForestClassifier(500, random_state=1),
        "SVM (RBF, C=10, standardised)": make_pipeline(StandardScaler(), SVC(C=10)),
    }.items():
        scores = cross_val_score(rival, x, y, cv=folds)
        assert found["accuracy"][name] == pytest.approx([scores.mean(), scores.std(ddof=1)])


def test_accuracy_is_that_of_the_held_out_rows():
    """With their labels turned round it is the complement, whatever was learned."""
    recipe = dataclasses.replace(get_recipe("snn_mlp2.breast_cancer"), epochs=2)
    data = zoo.load_dataset("breast_cancer")
    right = tabular.accuracy_of(recipe, (data.x_train, data.y_train), (data.x_test, data.y_test), 2)
    wrong = tabular.accuracy_of(recipe, (data.x_train, data.y_train), (data.x_test, 1 - data.y_test), 2)
    assert right > 0.8 and wrong == pytest.approx(1 - right)


def test_choices_are_made_without_test_rows(monkeypatch):
    wine, splits = zoo.load_dataset("wine"), []
    monkeypatch.setattr(tabular, "accuracy_of", recorded(splits, [0.75]))
    assert tabular.validation_accuracy(get_recipe("snn_mlp2.wine"), wine) == 0.75
    (((x, y), (x_held, y_held), _),) = splits
    np.testing.assert_array_equal(np.sort(np.concatenate([x, x_held]), axis=0), np.sort(wine.x_train, axis=0))
    assert len(y_held) == len(x_held) == np.ceil(len(wine.x_train) / 4) and len(y) == len(x)

    def diverges(*_):
        raise FloatingPointError

    monkeypatch.setattr(tabular, "accuracy_of", diverges)
    assert tabular.validation_accuracy(get_recipe("snn_mlp2.wine"), wine) == 0
