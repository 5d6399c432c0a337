"""Training a network on one's own table: columns of numbers and texts, classes or a number to predict."""

import collections
import inspect
import io
import sys

import keras
import numpy as np

from training.card import own_card
from training.folder_files import training_files
from training.interrupting import interruptible
from training.own_data import hold_out
from training.own_data import labels_of
from training.own_data import loadable
from training.own_data import numbers_of
from training.own_data import rows_of_a_step
from training.recipes import own_name
from training.text_tables import markdown_table
from zoo import tables
from zoo.csv_files import is_meant_as_number
from zoo.csv_files import read_csv
from zoo.datasets import Dataset
from zoo.evaluation import evaluate
from zoo.evaluation import number_metrics
from zoo.graphs import functional_model
from zoo.inference import predict
from zoo.pretrained import FINETUNING_RATE
from zoo.pretrained import compile_for_finetuning
from zoo.registry import architectures
from zoo.registry import create_model
from zoo.saving import save_model

EPOCHS = 200  # at most; early stopping ends it
MANY_VALUES = 20  # different numbers in the target, from which on it is a number and not a class


def finetune_table(
    arch,
    data,
    out,
    target="label",
    task="auto",
    epochs=None,
    learning_rate=None,
    validation=0.2,
    patience=20,
    balanced=False,
    categorical=(),
    ignore=(),
    seed=0,
    batch_size=None,
):
    """Trains an architecture for tables on a CSV and saves it as a folder with a report.

    A part of the rows is held out and evaluated once, at the end. As large a
    part of the others is for early stopping: the weights kept are those with
    the lowest loss on it. Columns of text become categories, whose vocabulary
    is kept in the folder; missing numbers become the median, with a further
    column that says where. The first Ctrl-C ends the training after the step,
    and the best weights so far are kept.

    Args:
        arch: Such as `"snn_mlp4"`.
        data: Path of the CSV file.
        out: Path of the folder to make; `zoo.load_model(out)` loads it.
        target: The column to predict.
        task: `"classification"`, `"regression"`, or `"auto"`: regression where
            the target holds more than 20 different numbers; refused where the
            labels are few numbers of one row each, or a text among numbers of
            which there are over 20 or most have one row.
        epochs: At most so many passes over the training rows.
        learning_rate: Of Adam.
        validation: Fraction of the rows to hold out (of each class).
        patience: Epochs without a lower loss before it stops.
        balanced: Whether rare classes weigh as much as frequent ones.
        categorical: Columns of numbers that are codes of categories.
        ignore: Columns to leave out.
        seed: Seed of the splits, the weights, the order and the dropout.
        batch_size: Rows of a step; by default 32, or all where there are fewer.

    Returns:
        The figures on the held-out rows, a dictionary; without `r2` where these
        have one value only.

    Raises:
        ValueError: the table is not usable.
        OSError: it cannot be read, or `out` cannot be written.
    """
    if "categories" not in inspect.signature(architectures()[arch][0]).parameters:
        raise ValueError(f"{arch!r} takes images; {data} is a table: give an architecture such as 'snn_mlp4'")
    header, rows = read_csv(data)
    if target not in header:
        raise ValueError(f"{data} has no column {target!r}; its columns are {', '.join(header[:8])}; give --target")
    texts = [(line, row[header.index(target)].strip()) for line, row in rows]
    if task == "auto":
        task = _task_of(data, target, texts)
    if task == "regression":
        if balanced:
            raise ValueError("balanced weighs classes; the target is a number: leave it out, or give --task")
        labels, classes = numbers_of(data, target, texts), ()
    else:
        labels, classes = labels_of(data, target, texts)
    table = tables.learn(data, header, rows, target, categorical, ignore)
    for column in table.columns:
        if column.kind == "ignored":
            print(f"column {column.name!r} is left out: {column.reason}", file=sys.stderr)
        elif column.kind == "number" and _counts_rows([row[header.index(column.name)] for _, row in rows]):
            print(
                f"column {column.name!r} has a different whole number in every row, with few gaps; if it numbers the "
                f"rows, leave it out: --ignore {column.name!r}",
                file=sys.stderr,
            )
        elif column.kind == "category" and column.name not in categorical:
            place = header.index(column.name)
            if stray := tables.stray_text([(line, row[place]) for line, row in rows]):
                print(
                    f"column {column.name!r} is taken as a category, though most of it are numbers: line {stray[0]} "
                    f"has {stray[1]!r}; write it as a number such as 1234.5, empty the cell, or give --categorical "
                    f"{column.name!r} if that is meant",
                    file=sys.stderr,
                )
    strata = labels if classes else np.zeros(len(labels), int)
    held = hold_out(np.arange(len(labels)), strata, classes or ("all",), (), validation, seed)
    inner = hold_out(held.x_train, held.y_train, classes or ("all",), (), validation, seed + 1, all_may_stay=True)
    if not classes and np.ptp(labels[inner.x_train]) == 0:
        raise ValueError(
            f"{data} has one value only, {labels[inner.x_train[0]]:g}, in column {target!r} among the "
            f"{len(inner.x_train)} training rows (of {len(rows)}); expected different ones: give another --seed, a "
            "smaller --validation or more rows with other values"
        )
    settings = {
        "learning_rate": FINETUNING_RATE if learning_rate is None else learning_rate,
        "batch_size": rows_of_a_step(batch_size, len(inner.x_train)),
        "epochs": epochs or EPOCHS,
        "patience": patience,
        "balanced": balanced,
        "validation": validation,
    }
    # What is learned from rows (vocabularies, medians) is learned without those held out; what kind a column is, is
    # not: a text among numbers in the held-out rows alone would be no number there.
    categories = [column.name for column in table.columns if column.kind == "category"]
    table = tables.learn(data, header, [rows[k] for k in held.x_train], target, categories, ignore)
    x = tables.encode(table, data, header, rows, quiet=True)  # held-out rows may have a rare category for themselves
    fit = _Fit(arch, data, out, table, x, labels, classes, inner.x_train, inner.x_test, held.x_test)
    return fit.run(settings, seed)


def _counts_rows(cells):
    """Whether the cells look like numbers of rows: whole ones, none twice, with few gaps."""
    texts = {cell.strip() for cell in cells}
    if not len(texts) == len(cells) > 20 or not all(text.isascii() and text.isdigit() for text in texts):
        return False
    numbers = sorted(map(int, texts))
    return numbers[-1] - numbers[0] < 2 * len(numbers)


def _task_of(data, target, texts):
    """Regression or classification; raises ValueError where the labels are numbers that make no or poor classes."""
    values = [text for _, text in texts if not tables.is_missing(text, tables.MISSING_NUMBERS)]
    counts = collections.Counter(text for text in values if is_meant_as_number(text))
    many = len(counts) > MANY_VALUES
    single = 2 * sum(count == 1 for count in counts.values()) > len(counts)
    stray = tables.stray_text(texts)
    if stray and (many or single):
        raise ValueError(
            f"{data} line {stray[0]}, column {target!r}: {stray[1]!r} is no number, though most labels are or are "
            "meant to be (1234.5, without a comma); mend it or drop the row and give --task regression to predict a "
            "number, or give --task classification"
        )
    if stray or counts.total() < len(values):
        return "classification"
    if single and not many and 2 * len(values) > len(texts):
        raise ValueError(
            f"{data} has {len(counts)} different numbers in the {len(texts)} rows of column {target!r}; give --task "
            "regression to predict the number, or two or more rows of each for classes"
        )
    return "regression" if many else "classification"


class _Fit:
    """One training: the rows by number for training, stopping and the figures."""

    def __init__(self, arch, data, out, table, x, labels, classes, train, stop, held):
        self.arch, self.data, self.out, self.table, self.classes = arch, data, out, table, classes
        self.x, self.labels, self.train, self.stop, self.held = x, labels, train, stop, held

    def run(self, settings, seed):
        keras.utils.set_random_seed(seed)
        encoded = tables.one_hot(self.x[self.train], self.table.sizes())
        # The sum of the squares of large numbers overflows in float32, though the variance does not.
        variance = np.array([column.var(dtype="float64") for column in encoded.T], "float32")
        model = create_model(
            self.arch,
            num_features=self.x.shape[1],
            categories=self.table.sizes(),
            num_classes=len(self.classes) or 1,
            classifier_activation="softmax" if self.classes else None,
            mean=encoded.mean(axis=0),
            # A value that no training row has must not be divided by nothing when it comes.
            variance=np.where(variance > 0, variance, 1.0),
        )
        targets = self.labels
        if not self.classes:
            center, scale = self.labels[self.train].mean(), self.labels[self.train].std()
            targets = ((self.labels - center) / scale).astype("float32")
        if self.classes:
            compile_for_finetuning(model, settings["learning_rate"])
        else:
            model.compile(keras.optimizers.Adam(settings["learning_rate"]), "mean_squared_error")
        stop = self.stop if len(self.stop) else self.train
        weights = self._weights() if settings["balanced"] else None
        # Or the stopping would choose weights by a loss in which a rare class hardly counts.
        held_weights = [np.array([weights[label] for label in self.labels[stop]])] if weights else []
        with interruptible() as interruption:
            history = model.fit(
                self.x[self.train],
                targets[self.train],
                batch_size=settings["batch_size"],
                epochs=settings["epochs"],
                validation_data=(self.x[stop], targets[stop], *held_weights),
                class_weight=weights,
                callbacks=[
                    keras.callbacks.TerminateOnNaN(),
                    keras.callbacks.EarlyStopping(patience=settings["patience"], restore_best_weights=True),
                    interruption,
                ],
                verbose=2,
            ).history
        if not self.classes:
            scaled = keras.layers.Rescaling(float(scale), float(center), dtype="float32", name="target")
            model = functional_model(model.inputs[0], scaled(model.outputs[0]), model.name)
        figures = self._figures(model)
        self._save(model, figures, history, settings, seed)
        return figures

    def _weights(self):
        counts = np.bincount(self.labels[self.train], minlength=len(self.classes))
        return {label: len(self.train) / (len(counts) * count) for label, count in enumerate(counts)}

    def _figures(self, model):
        """The figures on the held-out rows, beside those of what needs no model."""
        x, truth, known = self.x[self.held], self.labels[self.held], self.labels[self.train]
        outputs = predict(model, x)
        if not np.isfinite(outputs).all():
            raise ValueError("the outputs are not finite: the training diverged; give a lower --learning-rate")
        if not self.classes:
            naive = number_metrics(np.full(len(truth), known.mean()), truth)["rmse"]
            return {**number_metrics(outputs[:, 0], truth), "rmse_of_the_mean": naive}
        guess = outputs.argmax(axis=1)
        recall = [float((guess[truth == label] == label).mean()) for label in range(len(self.classes))]
        figures = evaluate(model, Dataset("your data", x[:0], truth[:0], x, truth, self.classes, (), ""))
        return {
            **figures,
            "balanced_accuracy": float(np.mean(recall)),
            "top1_of_the_largest_class": float((truth == np.bincount(known).argmax()).mean()),
            "recall": dict(zip(self.classes, recall, strict=True)),
        }

    def _save(self, model, figures, history, settings, seed):
        details = {
            "name": self.out.name,
            "base_model": self.arch,
            "task": "classification" if self.classes else "regression",
            "data": {
                "name": own_name(self.data),  # no path: the folder may be published
                "train_rows": len(self.train),
                "stopping_rows": len(self.stop),
                "test_rows": len(self.held),
            },
            "table": self.table.to_json(),
            "class_names": list(self.classes),
            "feature_names": self.table.feature_names(),
            "recipe": settings,
            "results": {**figures, "epochs": len(history["loss"]), "seeds": [seed]},
        }
        rows = [
            {"epoch": epoch, **{key: values[epoch - 1] for key, values in history.items()}}
            for epoch in range(1, len(history["loss"]) + 1)
        ]
        outputs, truth = predict(model, self.x[self.held]), self.labels[self.held]
        files = training_files(model, rows, "report.png", lambda: report_png(history, outputs, truth, details))
        card = own_card(model, details, files)
        save_model(model, self.out, details=details, card=card, files=files)
        if self.classes:
            what = (
                f"top-1 {100 * figures['top1']:.2f} % (the largest class alone: "
                f"{100 * figures['top1_of_the_largest_class']:.2f} %; mean recall of the classes "
                f"{100 * figures['balanced_accuracy']:.2f} %)"
            )
        elif "r2" in figures:
            what = f"R2 {figures['r2']:.3f}"
        else:
            what = f"root mean squared error {figures['rmse']:.4g} (no R2: one value only)"
        kind = f"of {len(self.classes)} classes" if self.classes else f"of {self.table.target!r}"
        print(
            f"{self.out}: {what} on {figures['rows']} held-out rows {kind} ({len(self.train)} for training, "
            f"{len(self.stop)} for early stopping); load it with zoo.load_model({loadable(self.out)!r}), or give the "
            f"raw table to `python -m zoo predict {loadable(self.out)} FILE.csv`"
        )


def report_text(details, files):
    """The part of the card on the table, the figures and what they are worth."""
    results, data = details["results"], details["data"]
    stopping = data.get("stopping_rows", "some")  # folders of before say only that there were
    lines = [
        "## Report\n",
        f"{data['train_rows']} rows for training, {stopping} for early stopping ({results['epochs']} epochs), "
        f"{data['test_rows']} held out for these figures:\n",
    ]
    names = {
        "top1": "accuracy",
        "top1_of_the_largest_class": "accuracy of always saying the largest class",
        "balanced_accuracy": "balanced accuracy (mean recall of the classes)",
        "rmse": "root mean squared error",
        "rmse_of_the_mean": "the same of always saying the mean",
        "mae": "mean absolute error",
        "r2": "R2",
    }
    figures = [(text, f"{results[name]:.4g}") for name, text in names.items() if name in results]
    if details.get("task") == "regression" and "r2" not in results:
        figures.append(("R2", "none: the held-out rows have one value only"))
    figures += [(f"recall of {name!r}", f"{value:.4g}") for name, value in results.get("recall", {}).items()]
    lines.append(markdown_table(("figure", "value"), figures))
    if "report.png" in files:
        lines.append("\n![report](report.png)")
    lines.append(f"\nTo predict: `{details['table']['target']}`. Columns:\n")
    columns = []
    for column in details["table"]["columns"]:
        kind = {
            "number": "number" + (f", {column['fill']:.4g} where missing" if column["flagged"] else ""),
            "category": f"category of {len(column['vocabulary'])} values",
            "ignored": f"left out: {column['reason']}",
        }[column["kind"]]
        columns.append((column["name"], kind))
    lines.append(markdown_table(("column", "kind"), columns))
    return "\n".join(lines) + "\n"


def report_png(history, outputs, truth, details):
    """Losses by epoch, and truth against prediction: a confusion matrix, or points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, label in (("loss", "training"), ("val_loss", "early stopping")):
        left.plot(range(1, len(history[key]) + 1), history[key], label=label)
    left.set(xlabel="epoch", title="loss")
    left.legend()
    classes = details["class_names"]
    if classes:
        counts = np.zeros((len(classes), len(classes)), int)
        np.add.at(counts, (truth, outputs.argmax(axis=1)), 1)
        image = right.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), vmin=0, vmax=1, cmap="Blues")
        figure.colorbar(image, ax=right)
        if len(classes) <= 20:
            right.set_xticks(range(len(classes)), classes, rotation=90)
            right.set_yticks(range(len(classes)), classes)
        right.set(xlabel="predicted", ylabel="true", title="share of each true class, held-out rows")
    else:
        right.plot(truth, outputs[:, 0], ".")
        right.axline((truth.mean(), truth.mean()), slope=1, color="grey", linewidth=1)
        right.set(xlabel="true", ylabel="predicted", title=f"{details['table']['target']}, held-out rows")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80)
    return png.getvalue()
