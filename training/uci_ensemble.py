"""Ours, beyond the paper's comparison: the selected SNN of each UCI task at further seeds, in fives, and for longer.

All take the configuration that the validation rows chose at the slice's first
seed (`runs.csv`) and train it as the grid does, but for this: a network of
another seed has another seed. The five members of an ensemble, on the tasks
whose rows are few, have all rows that are not for testing but those of a fold
each, on which they are stopped; the probabilities of those that did not diverge
are averaged. On the larger tasks a network makes full passes over the training
rows, as in the paper, where the grid takes so many rows a period.
`ensembles.csv` gets a row for each task, kind and seed; what it has is not
trained again.
"""

import functools
import itertools
import pathlib
import time
from typing import NamedTuple

import keras
import numpy as np

from training import uci as grid
from training.stacked import Member
from zoo import uci
from zoo.datasets import load_dataset

METHOD = "SNN"
FOLDS = 5  # and members of an ensemble
SEED, ENSEMBLE, FULL = "another seed", "ensemble", "full passes"
FIELDS = (
    "slice kind task seed arch depth dropout learning_rate batch_size members diverged members_accuracy held_accuracy "
    "test_rows test_right test_accuracy seconds keras"
).split()


class Selected(NamedTuple):
    """One stack: a kind, and the selected networks of some tasks that have one architecture."""

    kind: str
    network: dict
    rates: dict  # of each task
    seeds: tuple
    shape: tuple
    batch_size: int
    cost: float

    @property
    def tasks(self):
        return tuple(self.rates)

    def __str__(self):
        return f"{self.kind}, depth {self.network['depth']}, {len(self.rates)} tasks from {self.tasks[0]}"


def run(out, tasks=None, stop_after=None, jobs=None, data_dir=None):
    """Trains what `ensembles.csv` lacks.

    Args:
        out: Folder of the results; `out/uci/runs.csv` has the selected networks.
        tasks: Names without `uci/`; by default all whose SNN runs are complete.
        stop_after: Minutes after which no further stack is begun.
        jobs: Processes; by default one per core.
        data_dir: As for `zoo.load_dataset`.

    Returns:
        The path of ensembles.csv.

    Raises:
        training.loop.Interrupted: `stop_after` came before the end.
        ValueError: a task's runs are not complete, or ensembles.csv is of
            another slice or has other columns.
        BlockingIOError: another process trains for this folder.
    """
    folder = pathlib.Path(out) / "uci"
    slice_ = grid.read_slice(folder)
    path = folder / "ensembles.csv"
    rows = grid.selected(folder, slice_, METHOD, slice_.settings["seeds"][0], tasks)
    planned = plan(rows, slice_)
    work = functools.partial(train, slice_=slice_, data_dir=data_dir)

    def waiting():
        done = {(row["kind"], row["task"], row["seed"]) for row in grid.rows_of(path, slice_, FIELDS)}
        return [stack for stack in (_left(stack, slice_, done) for stack in planned) if stack.rates]

    return grid.train_stacks("uci-ensemble", waiting, len(planned), work, path, FIELDS, stop_after, jobs)


def plan(rows, slice_):
    """Stacks of the selected rows `{task: row}`, tasks with few rows first."""
    settings = slice_.settings
    first, *others = settings["headline"]["seeds"]

    def kind(task):
        row = rows[task]
        return grid.shape_of(task), grid.batch_size_of(settings, task), int(row["depth"]), float(row["dropout"])

    large = {task for task in rows if uci.facts()[task].train > settings["rows_per_period"]}
    by_size = sorted(rows, key=lambda task: (kind(task), uci.facts()[task].train, task))
    stacks = []
    for (shape, batch_size, depth, dropout), group in itertools.groupby(by_size, key=kind):
        group = list(group)
        network = {"arch": rows[group[0]]["arch"], "depth": depth, "dropout": dropout}
        room = grid.TASKS_IN_STACK[batch_size] * len(settings["learning_rates"])  # networks, as many as in the grid
        for what, seeds, tasks, size in (
            (SEED, tuple(others), group, room // max(1, len(others))),
            (ENSEMBLE, (first,), [task for task in group if task not in large], room // FOLDS),
            (FULL, (first,), [task for task in group if task in large], 1),
        ):
            for start in range(0, len(tasks) if seeds else 0, size):
                rates = {task: float(rows[task]["learning_rate"]) for task in tasks[start : start + size]}
                stack = Selected(what, network, rates, seeds, shape, batch_size, 0.0)
                stacks.append(stack._replace(cost=_cost(stack, settings)))
    return sorted(stacks, key=lambda stack: max(uci.facts()[task].train for task in stack.rates))


def _cost(stack, settings):
    networks = FOLDS if stack.kind == ENSEMBLE else len(stack.seeds)
    settings = settings | {"rows_per_period": rows_per_period(stack, settings)}
    every_rate = grid.cost_of(settings, stack.network, stack.tasks, stack.shape)
    return every_rate * networks / len(settings["learning_rates"])


def rows_per_period(stack, settings):
    """At most so many rows of a task are used in a period."""
    if stack.kind != FULL or not stack.tasks:
        return settings["rows_per_period"]
    return max(uci.facts()[task].train for task in stack.tasks)


def _left(stack, slice_, done):
    """The stack without the tasks whose rows are there."""
    rates = {
        task: rate
        for task, rate in stack.rates.items()
        if not done.issuperset((stack.kind, task, str(seed)) for seed in stack.seeds)
    }
    left = stack._replace(rates=rates)
    return left._replace(cost=_cost(left, slice_.settings))


def train(stack, slice_, data_dir=None):
    """Trains a stack and reads its test rows once: a row for each task and seed."""
    started = time.monotonic()
    settings = slice_.settings
    data = {task: load_dataset(f"uci/{task}", data_dir) for task in stack.rates}
    members = [member for task, rate in stack.rates.items() for member in members_of(data[task], stack, rate, settings)]
    each = len(members) // len(stack.rates)
    program = grid.program_of(stack.network, settings["width"], stack.shape)
    settings = settings | {"rows_per_period": rows_per_period(stack, settings)}
    training = grid.trained_stack(program, members, stack.batch_size, settings)
    trained = training.results()
    probabilities = training.probabilities([data[task].x_test for task in stack.rates for _ in range(each)])
    seconds = (time.monotonic() - started) / len(stack.rates)
    rows = []
    for number, (task, rate) in enumerate(stack.rates.items()):
        mine = slice(number * each, (number + 1) * each)
        if stack.kind == ENSEMBLE:
            figures = [figures_of(trained[mine], probabilities[mine], data[task].y_test)]
        else:
            figures = [
                figures_of([one], [its_probabilities], data[task].y_test)
                for one, its_probabilities in zip(trained[mine], probabilities[mine], strict=True)
            ]
        for seed, its_figures in zip(stack.seeds, figures, strict=True):
            rows.append(
                {
                    "slice": slice_.name,
                    "kind": stack.kind,
                    "task": task,
                    "seed": seed,
                    **stack.network,
                    "learning_rate": rate,
                    "batch_size": stack.batch_size,
                    **its_figures,
                    "seconds": f"{seconds:.2f}",
                    "keras": keras.__version__,
                }
            )
    return rows


def figures_of(trained, probabilities, y):
    """Of one network, or of the mean of several's probabilities, on the test rows: the columns from `members` on.

    Members that diverged have the weights they started with and no say in the
    mean; which ones these are, the training and the held rows alone decide.
    Where all diverged, nothing trained is left: the figures are then those of
    the weights at the start, and `diverged` is as large as `members`.

    Args:
        trained: A `Trained` for each member.
        probabilities: Of each member, `(rows, classes)`.
        y: Labels of the test rows.
    """
    sound = [number for number, one in enumerate(trained) if one.period]
    kept = sound or range(len(trained))
    right = int((np.mean([probabilities[number] for number in kept], axis=0).argmax(axis=-1) == y).sum())
    single = [(probabilities[number].argmax(axis=-1) == y).mean() for number in kept]
    return {
        "members": len(trained),
        "diverged": len(trained) - len(sound),
        "members_accuracy": f"{np.mean(single):.6f}",
        "held_accuracy": f"{np.mean([trained[number].accuracy for number in kept]):.6f}",
        "test_rows": len(y),
        "test_right": right,
        "test_accuracy": f"{right / len(y):.6f}",
    }


def members_of(data, stack, rate, settings):
    """The members for a task: one for each seed on the rows of the grid, or one for each fold of all but the test."""
    if stack.kind != ENSEMBLE:
        return [grid.member_of(data, settings, rate, seed) for seed in stack.seeds]
    classes = len(data.class_counts)
    fold = stratified_folds(data.y_train, FOLDS, stack.seeds[0])
    members = []
    for number in range(FOLDS):
        inside = fold != number
        held = grid.curve_rows(data.x_train[~inside], data.y_train[~inside], settings["validation_rows"])
        members.append(Member(data.x_train[inside], data.y_train[inside], *held, classes, rate, number))
    return members


def stratified_folds(y, folds, seed):
    """The fold of each row: every class is spread evenly, and no fold has two rows more than another.

    scikit-learn's StratifiedKFold refuses the tasks whose classes have fewer
    rows than there are folds.

    Example:

    >>> y = np.array([0, 1, 0, 1, 2])
    >>> y[stratified_folds(y, 2, seed=0) == 0].tolist()
    [0, 1, 2]
    """
    order = np.lexsort((np.random.default_rng(seed).permutation(len(y)), y))
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % folds
    return fold
