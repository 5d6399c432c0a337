"""What published networks say of the training rows, from which a smaller one learns."""

import hashlib
import io
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from training.checkpoints import write_atomically
from training.loop import Interrupted
from zoo.datasets import sha256_of
from zoo.details import read_details
from zoo.evaluation import check_same_data
from zoo.evaluation import log_probabilities
from zoo.folders import check_folder
from zoo.folders import find_folder
from zoo.hub import SUMS
from zoo.hub import read_sums
from zoo.inference import predict
from zoo.messages import unknown_name
from zoo.pretrained import load_model
from zoo.registry import read_index


class Taught(NamedTuple):
    """What `training.loop.fit` takes of the teachers.

    `soft_targets` is a float32 array, (rows, classes). `teachers` maps the
    name of each to the sha256 of its weights, which are part of what a run is.
    """

    soft_targets: np.ndarray
    teachers: dict


def teachers_of(recipe):
    """The recipe's teachers: `{name: sha256 of model.weights.h5}`.

    Raises:
        ValueError: one is not the name of a published model.
    """
    found = {}
    for name in recipe.teachers:
        if name not in read_index()["models"]:
            raise unknown_name(name, read_index()["models"], f"{recipe.name}: teacher")
        folder, pin = find_folder(name)
        check_folder(folder, pin)
        found[name] = read_sums(folder / SUMS)["model.weights.h5"].digest
    return found


def differing_teachers(facts, recipe):
    """Names of the recipe's teachers whose weights are others today than those in the facts of recipe.json."""
    then = facts.get("teachers", {})
    return [name for name, weights in teachers_of(recipe).items() if name in then and then[name] != weights]


def ask_teachers(recipe, dataset, folder, minutes_left=lambda: None):
    """The mean of the teachers' softened outputs for each training row.

    Formula, with the logits `z` of each teacher for the row and, where rows are
    images, for its mirror image:

    ```
    mean(softmax(z / temperature))
    ```

    What a teacher said is kept in the folder, so none is asked again there. It
    may be left behind when the run moves: asked anew, on another machine, a
    teacher answers the same but for rounding.

    Args:
        recipe: A `Recipe`.
        dataset: A `zoo.Dataset`; its test rows are not looked at.
        folder: Where the answers are kept.
        minutes_left: Gives the minutes for which to go on, or `None`; looked at
            before each teacher.

    Returns:
        A `Taught`; `None` if the recipe has no teachers.

    Raises:
        ValueError: a teacher is not published, or is of other data or classes.
        training.loop.Interrupted: no minutes were left.

    Reference:

    - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531): distillation
    """
    if not recipe.teachers:
        return None
    teachers = teachers_of(recipe)
    for name in teachers:
        _check_teacher(recipe, name, dataset)
    folder, rows = pathlib.Path(folder), sha256_of(dataset.x_train)
    softened = []
    for place, (name, weights) in enumerate(teachers.items(), 1):
        key = hashlib.sha256(f"{weights} {rows} {recipe.temperature}".encode()).hexdigest()[:16]
        kept = folder / f"teacher-{name}-{key}.npy"
        if not kept.exists():
            left = minutes_left()
            if left is not None and left <= 0:
                raise Interrupted(f"{recipe.name} stopped before teacher {place} of {len(teachers)}; {folder}")
            print(f"{recipe.name} asks teacher {place} of {len(teachers)}, {name}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            answer = io.BytesIO()
            np.save(answer, _softened(name, dataset.x_train, recipe.temperature))
            write_atomically(kept, answer.getvalue())
        softened.append(np.load(kept, allow_pickle=False).astype("float32"))
    return Taught(np.mean(softened, axis=0), teachers)


def _check_teacher(recipe, name, dataset):
    details = read_details(find_folder(name)[0])
    known = details["data"]["name"]
    if known != recipe.dataset:  # names of classes do not tell: those of UCI tasks are 0, 1, ...
        raise ValueError(
            f"{recipe.name}: the teacher {name} was trained on {known}; give teachers trained on {recipe.dataset}"
        )
    check_same_data(details, dataset)
    if details["class_names"] != list(dataset.class_names):
        raise ValueError(
            f"{recipe.name}: the teacher {name} knows {len(details['class_names'])} classes that are not the "
            f"{len(dataset.class_names)} of {known} here; give teachers of the same classes"
        )


def _softened(name, rows, temperature):
    """A teacher's softened probabilities, the mean over a row and its mirror image; float16."""
    model = load_model(name, classifier_activation=None, deploy=True)
    views = [rows, rows[:, :, ::-1]] if rows.ndim == 4 else [rows]
    softened = []
    for view in views:
        logits = predict(model, np.ascontiguousarray(view), progress=sys.stdout.isatty())
        softened.append(np.exp(log_probabilities(logits / temperature, are_probabilities=False)))
    return np.mean(softened, axis=0).astype("float16")
