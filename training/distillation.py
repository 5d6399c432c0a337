"""What published networks say of the training rows, from which a smaller one learns."""

import hashlib
import io
import pathlib
import sys

import numpy as np

from training.checkpoints import write_atomically
from zoo.datasets import sha256_of
from zoo.details import read_details
from zoo.evaluation import log_probabilities
from zoo.pretrained import find_folder
from zoo.pretrained import load_model
from zoo.pretrained import predict


def pins(recipe):
    """The sums of the teachers' weights, by name: they are part of what a run is."""
    return {name: find_folder(name)[1] for name in recipe.teachers}


def soft_targets(recipe, dataset, folder):
    """The mean of the teachers' softened outputs for each training row.

    Formula, with the logits `z` of each teacher for the row and, where rows are images, for its mirror image:

    ```
    mean(softmax(z / temperature))
    ```

    A teacher's part is kept in the folder, so a run that goes on there asks none again.

    Args:
        recipe: A `Recipe`.
        dataset: A `zoo.Dataset`; its test rows are not looked at.
        folder: Where the answers are kept.

    Returns:
        A float32 array, (training rows, classes); `None` if the recipe has no teachers.

    Raises:
        ValueError: a teacher is of other classes; a name is not of a pretrained model.

    Reference:

    - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531): distillation
    """
    if not recipe.teachers:
        return None
    folder = pathlib.Path(folder)
    rows = sha256_of(dataset.x_train)
    softened = []
    for place, (name, pin) in enumerate(pins(recipe).items(), 1):
        known = read_details(find_folder(name)[0])["class_names"]
        if list(known) != list(dataset.class_names):
            raise ValueError(
                f"{recipe.name}: the teacher {name} knows {len(known)} classes, {', '.join(known[:3])}, ..., which are "
                f"not those of {dataset.name}; give teachers of the same data set"
            )
        key = hashlib.sha256(f"{pin} {rows} {recipe.temperature}".encode()).hexdigest()[:16]
        kept = folder / f"teacher-{name}-{key}.npy"
        if not kept.exists():
            print(f"{recipe.name} asks teacher {place} of {len(recipe.teachers)}, {name}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            answer = io.BytesIO()
            np.save(answer, _softened(name, dataset.x_train, recipe.temperature))
            write_atomically(kept, answer.getvalue())
        softened.append(np.load(kept, allow_pickle=False))
    return np.mean(softened, axis=0)


def _softened(name, rows, temperature):
    """A teacher's softened probabilities, the mean over a row and its mirror image; float32."""
    model = load_model(name, classifier_activation=None, deploy=True)
    views = [rows, rows[:, :, ::-1]] if rows.ndim == 4 else [rows]
    softened = []
    for view in views:
        logits = predict(model, np.ascontiguousarray(view), progress=sys.stdout.isatty())
        softened.append(np.exp(log_probabilities(logits / temperature, are_probabilities=False)))
    return np.mean(softened, axis=0).astype("float32")
