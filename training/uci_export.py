"""A self-normalizing network for a UCI task as a folder of weights, `snn_mlpN.uci-TASK`."""

import itertools
import pathlib
import sys
import time
from typing import NamedTuple

import numpy as np

from training import uci as grid
from training import uci_ensemble
from training.card import LICENSE
from training.card import card_text
from training.curves import curves_png
from training.folder_files import SAFETENSORS
from training.folder_files import npz_bytes
from training.folder_files import safetensors_bytes
from training.machine import hardware
from training.machine import versions
from training.stacked import Trained
from training.text_tables import csv_text
from zoo import uci
from zoo.datasets import load_dataset
from zoo.evaluation import log_probabilities
from zoo.evaluation import metrics
from zoo.index import multiply_accumulates
from zoo.index import trainable_parameters
from zoo.inference import predict
from zoo.registry import create_model
from zoo.registry import train_command
from zoo.saving import save_model

METHOD = "SNN"
WIDTHS = (32, 64, 96, 128)  # tried beside the slice's own, which is wider
MOST_PARAMETERS = 90_000  # of a folder that has them twice, in float32, beside the logits on the test rows: below 1 MB
PANELS = (
    ("loss", "training loss (nats)"),
    ("validation_loss", "validation loss (nats)"),
    ("validation_accuracy", "validation accuracy"),
)
ROUNDING = 1e-6  # of the accuracies in runs.csv


class Candidate(NamedTuple):
    """A network trained for a task: its options, the result, and its size."""

    network: dict
    width: int
    trained: Trained
    parameters: int


def run(out, tasks=None, data_dir=None):
    """Trains a network for each task and writes `out/hub/snn_mlpN.uci-TASK`.

    The smallest one that is as good on the validation rows as the one that the
    grid selected: at its learning rate and dropout the depths of the slice and
    some widths are trained, the smallest first, until one is not worse. They are
    trained as in the grid, or, where `uci-ensemble` has trained the selected one
    in full passes over the training rows, in full passes too. Those of more than
    90,000 parameters are left out, so that a folder stays below 1 MB; where none
    is as good, the best is taken. The figures of the card are measured on the
    weights that are saved.

    Args:
        out: Folder of the results; `out/uci/runs.csv` has the runs.
        tasks: Names without `uci/`; by default all that are complete and have
            no folder yet, the largest first.
        data_dir: As for `zoo.load_dataset`.

    Returns:
        The folder that holds the folders.

    Raises:
        ValueError: a task's runs are not complete, or all its networks
            diverged.
    """
    slice_ = grid.read_slice(pathlib.Path(out) / "uci")
    seed = slice_.settings["seeds"][0]
    chosen = grid.selected(pathlib.Path(out) / "uci", slice_, METHOD, seed, tasks)
    longer = {
        row["task"]: row
        for row in grid.rows_of(pathlib.Path(out) / "uci" / "ensembles.csv", slice_, uci_ensemble.FIELDS)
        if (row["kind"], row["seed"]) == (uci_ensemble.FULL, str(seed))
    }
    home = pathlib.Path(out) / "hub"
    made = {path.name.partition(".uci-")[2] for path in home.glob("snn_mlp*.uci-*")}
    rows = {task: uci.facts()[task].rows for task in chosen}
    waiting = tasks or sorted((task for task in chosen if task not in made), key=lambda task: -rows[task])
    for number, task in enumerate(waiting, 1):
        folder = export(out, task, chosen[task], longer.get(task), slice_, data_dir)
        print(f"{number} of {len(waiting)}: {folder}", file=sys.stderr, flush=True)
    return home


def export(out, task, row, full, slice_, data_dir=None):
    """Trains and chooses the network of a task, and writes its folder.

    Args:
        out: Folder of the results.
        task: Name without `uci/`.
        row: The selected row of runs.csv.
        full: The row of ensembles.csv that has the same network in full passes, or `None`.
        slice_: A `Slice`.
        data_dir: As for `zoo.load_dataset`.
    """
    started = time.monotonic()
    settings = slice_.settings
    goal = float(full["held_accuracy"] if full else row["validation_accuracy"])
    if full:
        settings = settings | {"rows_per_period": uci.facts()[task].train}
    tried = candidates(task, row, goal, settings, data_dir)
    best = smallest_of(tried, goal)
    if best is None:
        raise ValueError(f"all networks of {task} diverged; there is nothing to export")
    network, trained = best.network, best.trained
    dataset = load_dataset(f"uci/{task}", data_dir)
    model = create_model(
        network["arch"],
        width=best.width,
        dropout=network["dropout"],
        num_features=dataset.x_train.shape[1],
        num_classes=len(dataset.class_counts),
    )
    model.set_weights(trained.weights)
    outputs = predict(model, dataset.x_test)
    figures = metrics(log_probabilities(outputs, are_probabilities=True), dataset.y_test)
    name = f"{network['arch']}.uci-{task}"
    split = dataset.split(settings["column"])
    used, validation_rows = len(split.y_train), len(split.y_validation)
    details = {
        "name": name,
        "recipe": {
            **network,
            "width": best.width,
            "learning_rate": float(row["learning_rate"]),
            "batch_size": int(row["batch_size"]),
            **{key: settings[key] for key in ("periods", "rows_per_period", "window")},
            "slice": slice_.name,
            "period": trained.period,
            "notes": _notes(best, row, goal, settings, validation_rows),
        },
        "tried": [
            {
                "depth": one.network["depth"],
                "width": one.width,
                "parameters": one.parameters,
                "validation_accuracy": round(one.trained.accuracy, 6),
            }
            for one in tried
        ],
        "comparison_top1": float(row["test_accuracy"]),
        "command": train_command(name),
        "data": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "train_rows": used,
            "validation_rows": validation_rows,
            "test_rows": len(dataset.y_test),
        },
        "class_names": list(dataset.class_names),
        "feature_names": list(dataset.feature_names),
        "license": LICENSE,
        "results": {
            "dataset": dataset.name,
            **figures,
            "top1_by_seed": [figures["top1"]],
            "seeds": [int(row["seed"])],
            "validation_accuracy": round(trained.accuracy, 6),
            "epochs": round(settings["periods"] * min(used, settings["rows_per_period"]) / used, 1),
            "minutes": round((time.monotonic() - started) / 60, 1),
            "hardware": hardware(),
            "parameters": trainable_parameters(model),
            "macs": multiply_accumulates(model),
        },
        "versions": versions(),
    }
    logits = np.log(np.maximum(outputs, 1e-30)).astype("float16")
    curve = [
        {"epoch": number, "loss": loss, "validation_loss": held, "validation_accuracy": accuracy}
        for number, (loss, held, accuracy) in enumerate(trained.history, start=1)
    ]
    files = {
        "history.csv": csv_text(curve).encode(),
        "curves.png": curves_png(curve, name, panels=PANELS),
        "test_logits.npz": npz_bytes(logits=logits),
        SAFETENSORS: safetensors_bytes(model),
    }
    return save_model(model, pathlib.Path(out) / "hub" / name, details, card_text(details), files, overwrite=True)


def _notes(best, row, goal, settings, validation_rows):
    reached = best.trained.accuracy
    outcome = (
        f"the smallest of those tried that is not worse ({100 * reached:.2f} %)"
        if reached >= goal - ROUNDING
        else f"the best of those below {MOST_PARAMETERS:,} parameters ({100 * reached:.2f} %), which is worse"
    )
    most = settings["validation_rows"]  # `grid.curve_rows` draws so many where there are more
    held, column = f"{validation_rows} validation rows", f"of column {settings['column']} of the authors' folds"
    if most < validation_rows:
        held, column = "validation rows", f"({most} drawn from the {validation_rows} {column})"
    return (
        f"Klambauer et al.: plain SGD at a constant rate. Of eight configurations {settings['width']} wide the "
        f"{held} {column} chose {row['depth']} "
        f"hidden layers, rate {float(row['learning_rate']):g} and dropout {float(row['dropout']):g}; trained "
        f"like this one it has {100 * goal:.2f} % of them right (mean of {settings['window']} periods). This network, "
        f"{best.network['depth']} layers of {best.width}, is {outcome}. "
        f"After each period, at most {settings['rows_per_period']} rows, the validation rows were measured; the "
        f"weights are those after period {best.trained.period} of {settings['periods']}, where the mean validation "
        f"loss of {settings['window']} periods was lowest."
    )


def candidates(task, row, goal, settings, data_dir=None):
    """Trains networks for a task until one reaches the goal on the validation rows, the smallest first."""
    shape = grid.shape_of(task)
    networks = [one for one in settings["methods"][METHOD] if one.get("dropout", 0.0) == float(row["dropout"])]
    widths = [*(width for width in WIDTHS if width < settings["width"]), settings["width"]]
    data = load_dataset(f"uci/{task}", data_dir)
    member = grid.member_of(data, settings, float(row["learning_rate"]), int(row["seed"]))
    sizes = []
    for network, width in itertools.product(networks, widths):
        program = grid.program_of(network, width, shape)
        parameters = trainable_parameters(program.model(member.x.shape[1], member.num_classes))
        sizes.append((parameters, network, width, program))
    tried = []
    for parameters, network, width, program in sorted(sizes, key=lambda size: size[0]):
        if parameters > MOST_PARAMETERS:
            break
        stack = grid.trained_stack(program, [member], int(row["batch_size"]), settings)
        tried.append(Candidate(network, width, stack.results()[0], parameters))
        if tried[-1].trained.accuracy >= goal - ROUNDING:
            break
    return tried


def smallest_of(tried, accuracy):
    """The smallest candidate that has the accuracy on the validation rows, else the best; None if all diverged."""
    sound = [one for one in tried if one.trained.period]
    as_good = [one for one in sound if one.trained.accuracy >= accuracy - ROUNDING]
    return as_good[0] if as_good else max(sound, key=lambda one: one.trained.accuracy, default=None)
