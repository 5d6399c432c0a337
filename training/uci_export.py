"""The selected self-normalizing network of a UCI task as a folder of weights, `snn_mlpN.uci-TASK`."""

import csv
import io
import pathlib

import numpy as np

from training.card import LICENSE
from training.card import safetensors_bytes
from training.run import history_csv
from training.run import versions
from training.stacked import Stack
from training.uci import Job
from training.uci import members_of
from training.uci import program_of
from training.uci import read_slice
from training.uci import select
from training.uci import shape_of
from training.uci_report import read_paper
from zoo.card import short_card
from zoo.datasets import load_dataset
from zoo.evaluation import log_probabilities
from zoo.evaluation import metrics
from zoo.index import multiply_accumulates
from zoo.index import trainable_parameters
from zoo.pretrained import predict
from zoo.pretrained import save_model
from zoo.registry import create_model

METHOD = "SNN"


def run(out, tasks=None, seeds=None, data_dir=None):
    """Trains the selected networks anew and writes `out/hub/snn_mlpN.uci-TASK`.

    The training is that of the grid, of one member alone: up to rounding it
    ends in the row of runs.csv that was selected on the validation rows. The
    figures of the card are measured on the weights that are saved.

    Args:
        out: Folder of the results; `out/uci/runs.csv` has the runs.
        tasks: Names without `uci/`; by default all that are complete.
        seeds: One seed; by default the slice's first.
        data_dir: As for `zoo.load_dataset`.

    Returns:
        The folder that holds the folders.

    Raises:
        ValueError: a task's runs are not complete, or its selected network
            diverged.
    """
    slice_ = read_slice(pathlib.Path(out) / "uci")
    seed = (seeds or slice_.settings["seeds"])[0]
    with open(pathlib.Path(out) / "uci" / "runs.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["method"], row["seed"]) == (METHOD, str(seed))]
    size = len(slice_.settings["learning_rates"]) * len(slice_.settings["methods"][METHOD])
    complete = [task for task in dict.fromkeys(row["task"] for row in rows) if _count(rows, task) == size]
    if missing := [task for task in tasks or () if task not in complete]:
        raise ValueError(
            f"{missing[0]} has {_count(rows, missing[0])} of the {size} configurations of {METHOD} at seed {seed}; "
            f"first python -m training benchmark uci --methods {METHOD} --tasks {missing[0]}"
        )
    chosen = select(rows)
    for task in tasks or complete:
        print(export(out, task, chosen[METHOD, task, seed], slice_, data_dir), flush=True)
    return pathlib.Path(out) / "hub"


def _count(rows, task):
    return sum(row["task"] == task for row in rows)


def export(out, task, row, slice_, data_dir=None):
    """Trains one selected network and writes its folder."""
    settings = slice_.settings
    network = next(n for n in settings["methods"][METHOD] if (n["arch"], str(n["dropout"])) == _network(row))
    job = Job(METHOD, network, (task,), int(row["seed"]), shape_of(task), int(row["batch_size"]), 0.0)
    members, _ = members_of(job, settings, data_dir)
    member = next(one for one in members if one.learning_rate == float(row["learning_rate"]))
    stack = Stack(
        program_of(network, settings["width"], job.shape),
        [member],
        job.batch_size,
        settings["rows_per_period"],
        settings["window"],
    )
    for _ in range(settings["periods"]):
        stack.advance()
    trained = stack.results()[0]
    if trained.period == 0:
        raise ValueError(f"the selected network of {task} diverged; there is nothing to export")

    dataset = load_dataset(f"uci/{task}", data_dir)
    model = create_model(
        network["arch"],
        width=settings["width"],
        dropout=network["dropout"],
        num_features=member.x.shape[1],
        num_classes=member.num_classes,
    )
    model.set_weights(trained.weights)
    outputs = predict(model, dataset.x_test)
    figures = metrics(log_probabilities(outputs, are_probabilities=True), dataset.y_test)
    name = f"{network['arch']}.uci-{task}"
    details = {
        "name": name,
        "recipe": {
            **{key: settings[key] for key in ("width", "periods", "rows_per_period", "window")},
            **network,
            "learning_rate": member.learning_rate,
            "batch_size": job.batch_size,
            "slice": slice_.name,
            "period": trained.period,
        },
        "data": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "train_rows": len(member.y),
            "validation_rows": int(dataset.validation.sum()),
            "test_rows": len(dataset.y_test),
        },
        "class_names": list(dataset.class_names),
        "feature_names": list(dataset.feature_names),
        "license": LICENSE,
        "results": {
            "dataset": dataset.name,
            **figures,
            "validation_accuracy": trained.accuracy,
            "seeds": [member.seed],
            "parameters": trainable_parameters(model),
            "macs": multiply_accumulates(model),
        },
        "versions": versions(),
    }
    card = f"{short_card(model, name, details)}\n{_text(details, task, out)}"
    logits = np.log(np.maximum(outputs, 1e-30)).astype("float16")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, logits=logits)
    curve = [
        {"period": number, "loss": loss, "validation_loss": held, "validation_accuracy": accuracy}
        for number, (loss, held, accuracy) in enumerate(trained.history, start=1)
    ]
    files = {
        "history.csv": history_csv(curve),
        "test_logits.npz": buffer.getvalue(),
        "model.safetensors": safetensors_bytes(model),
    }
    return save_model(model, pathlib.Path(out) / "hub" / name, details, card, files, overwrite=True)


def _network(row):
    return row["arch"], row["dropout"]


def _text(details, task, out):
    results, data, recipe = details["results"], details["data"], details["recipe"]
    paper = read_paper(pathlib.Path(out) / "uci" / "paper.csv").of([task])
    figure = paper.accuracy[0, paper.methods.index(METHOD)]
    theirs = "reports none" if np.isnan(figure) else f"has {100 * figure:.2f} % (one run of a larger grid)"
    return (
        "## Training\n\n"
        f"Self-normalizing network (Klambauer et al., 2017) of {recipe['depth']} hidden layers, chosen by its accuracy "
        f"on the {data['validation_rows']} validation rows among eight configurations, trained on the "
        f"{data['train_rows']} training rows of column 0 of the authors' folds and stopped by the smoothed validation "
        f"loss (period {recipe['period']} of {recipe['periods']}); no choice was made on the {data['test_rows']} test "
        f"rows. Top-1 there: {100 * results['top1']:.2f} %; the paper's Table A11 {theirs}. Command: `python -m "
        f"training benchmark uci-export --tasks {task}`.\n\n"
        "Takes the SNN authors' columns, which are z-scored already and unnamed; raw UCI values would need the "
        "authors' scaling, which is not published.\n"
    )
