"""The paper's comparison of seven methods on the UCI tasks, over a fixed slice of its grid.

`slice.json` says which networks are trained and how; `runs.csv` beside it gets
a row for every task, method, configuration and seed. Networks of one shape are
trained together (`training/stacked.py`): a stack holds one network for some
tasks of about the same size, at every learning rate. A stack that is in
`runs.csv` is not trained again, so the same command goes on where it stopped.
"""

import collections
import concurrent.futures
import csv
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import sys
import time
from typing import NamedTuple

import keras
import numpy as np

from training.loop import Interrupted
from training.loop import only_run_in
from training.machine import cores
from training.stacked import Member
from training.stacked import Program
from training.stacked import Stack
from zoo import uci
from zoo.datasets import load_dataset
from zoo.messages import check_names

# Columns and classes of the three shapes that the tasks are filled up to: few, so that few networks are compiled.
SHAPES = ((64, 16), (64, 104), (272, 16))
TASKS_IN_STACK = {16: 16, 32: 8}  # by batch size: the smaller tasks have the smaller batches

FIELDS = (
    "slice method task seed arch depth form dropout learning_rate batch_size epochs period validation_rows "
    "validation_loss validation_accuracy test_rows test_right test_accuracy seconds keras"
).split()


class Slice(NamedTuple):
    """A `slice.json`, and the first digits of its sha256, which every row of runs.csv carries."""

    settings: dict
    name: str


class Job(NamedTuple):
    """One stack: a network of a method, some tasks, all learning rates, one seed."""

    method: str
    network: dict
    tasks: tuple
    seed: int
    shape: tuple
    batch_size: int
    cost: float  # floating-point operations, about

    def __str__(self):
        network = " ".join(f"{name} {value}" for name, value in self.network.items() if name != "arch")
        return f"{self.method} {network}, {len(self.tasks)} tasks from {self.tasks[0]}"


def read_slice(folder):
    """The slice that a folder of results is about.

    Raises:
        FileNotFoundError: it has none.
        ValueError: the methods are compared over different numbers of networks.
    """
    path = pathlib.Path(folder) / "slice.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; give --out results of a checkout, which has it, or write one like it")
    text = path.read_bytes()
    settings = json.loads(text)
    if len({len(networks) for networks in settings["methods"].values()}) != 1:
        raise ValueError(f"{path}: the methods have different numbers of networks; a comparison needs the same")
    return Slice(settings, hashlib.sha256(text).hexdigest()[:8])


def run(out, methods=None, tasks=None, seeds=None, stop_after=None, jobs=None, data_dir=None):
    """Trains what `runs.csv` lacks of the slice.

    Args:
        out: Folder of the results; the files are in `out/uci`.
        methods: Names in the slice; by default all.
        tasks: Names without `uci/`; by default all that are at hand, the sound
            ones and the others.
        seeds: By default those of the slice.
        stop_after: Minutes after which no further stack is begun.
        jobs: Processes to spread the stacks over; by default one per core.
        data_dir: As for `zoo.load_dataset`.

    Returns:
        The path of runs.csv.

    Raises:
        training.loop.Interrupted: `stop_after` came before the end.
        ValueError: a name is unknown, or runs.csv is of another slice or has
            other columns.
        BlockingIOError: another process trains for this folder.
    """
    folder = pathlib.Path(out) / "uci"
    slice_ = read_slice(folder)
    path = folder / "runs.csv"
    planned = plan(slice_, methods, tasks, seeds)
    names = ("method", "task", "seed", "arch", "depth", "form", "dropout", "learning_rate")

    def waiting():
        done = {tuple(row[name] for name in names) for row in rows_of(path, slice_, FIELDS)}
        return [job for job in (_left(job, slice_, done) for job in planned) if job.tasks]

    work = functools.partial(train, slice_=slice_, data_dir=data_dir)
    return train_stacks("uci", waiting, len(planned), work, path, FIELDS, stop_after, jobs)


def train_stacks(what, waiting, total, work, path, fields, stop_after=None, processes=None):
    """Does the jobs that are waiting in several processes, and adds the rows of each to a CSV as it ends.

    Args:
        what: Begins the lines of progress.
        waiting: A function without arguments: the jobs that are left, with a
            `cost`. It is called once no other process can add rows.
        total: How many stacks there are with those that are done.
        work: Makes rows of a job; goes to other processes.
        path: Of the CSV.
        fields: Its columns.
        stop_after: Minutes after which no further stack is begun.
        processes: By default one per core.

    Returns:
        The path.

    Raises:
        Interrupted: `stop_after` or Ctrl-C came before the end.
        BlockingIOError: another process trains for this folder.
    """
    with only_run_in(path.parent):  # two would train the same, and a task with rows twice is left out of the report
        jobs = waiting()
        progress = _Progress(what, total, jobs)
        deadline = None if stop_after is None else time.monotonic() + 60 * stop_after
        try:
            for job, rows in _results(jobs, work, processes or cores(), deadline):
                _append(path, fields, rows)
                progress.ended(job)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; {progress}; {path}") from None
    if progress.left:
        raise Interrupted(f"{progress}; {path}")
    return path


def plan(slice_, methods=None, tasks=None, seeds=None):
    """The stacks to train, tasks with few rows first, all methods of some tasks before the next tasks."""
    settings = slice_.settings
    methods, tasks = methods or list(settings["methods"]), tasks or _tasks_at_hand()
    check_names(methods, settings["methods"], "method")
    check_names(tasks, uci.tasks(), "task")
    jobs = []
    for group in _groups(settings, tasks):
        shape, batch_size = shape_of(group[0]), batch_size_of(settings, group[0])
        for seed, method in itertools.product(seeds or settings["seeds"], methods):
            for network in settings["methods"][method]:
                cost = cost_of(settings, network, group, shape)
                jobs.append(Job(method, network, tuple(group), seed, shape, batch_size, cost))
    return jobs


def _tasks_at_hand():
    return [task for task, known in uci.facts().items() if known.sha256]


def _groups(settings, tasks):
    """Tasks of one shape and batch size, a stack each, in the order of their rows.

    Cut from all tasks, whichever were asked for, so that the same ones go
    together.
    """

    def kind(task):
        return shape_of(task), batch_size_of(settings, task)

    by_size = sorted(uci.tasks(), key=lambda task: (kind(task), uci.facts()[task].train, task))
    groups = []
    for (_, batch_size), members in itertools.groupby(by_size, key=kind):
        members = list(members)
        count = -(-len(members) // TASKS_IN_STACK[batch_size])
        cuts = [round(number * len(members) / count) for number in range(count + 1)]
        groups += [members[first:last] for first, last in itertools.pairwise(cuts)]
    groups = [[task for task in group if task in tasks] for group in groups]
    return sorted(filter(None, groups), key=lambda group: max(uci.facts()[task].train for task in group))


def shape_of(task):
    """Columns and classes that a task is filled up to."""
    known = uci.facts()[task]
    return next(shape for shape in SHAPES if known.features <= shape[0] and len(known.class_counts) <= shape[1])


def batch_size_of(settings, task):
    return settings["batch_sizes"]["up to 500 training rows" if uci.facts()[task].train <= 500 else "more"]


def cost_of(settings, network, tasks, shape):
    """Six operations for each weight and training row, two for each validation row; for the time that is left."""
    width, layers = settings["width"], network["depth"]
    if network["arch"] == "residual_mlp":
        layers *= 2
    weights = width * (shape[0] + shape[1] + (layers - 1) * width * (2 if network["arch"] == "highway_mlp" else 1))
    rows = sum(
        6 * min(uci.facts()[task].train, settings["rows_per_period"])
        + 2 * min(uci.facts()[task].validation, settings["validation_rows"])
        for task in tasks
    )
    return weights * rows * settings["periods"] * len(settings["learning_rates"])


def _left(job, slice_, done):
    """The job without the tasks whose rows are in runs.csv."""
    network = [str(job.network.get(name, "")) for name in ("arch", "depth", "form", "dropout")]
    rates = slice_.settings["learning_rates"]
    tasks = tuple(
        task
        for task in job.tasks
        if not done.issuperset((job.method, task, str(job.seed), *network, str(rate)) for rate in rates)
    )
    return job._replace(tasks=tasks, cost=cost_of(slice_.settings, job.network, tasks, job.shape))


def rows_of(path, slice_, fields):
    """The rows of a CSV of the slice, as dictionaries; none where there is no file.

    Raises:
        ValueError: it has rows of another slice, or other columns than `fields`.
    """
    if not path.exists():
        return []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows, found = list(reader), list(reader.fieldnames or ())
    if found != list(fields):  # rows that are added to it would stand under the wrong names
        missing = [name for name in fields if name not in found]
        unknown = [name for name in found if name not in fields]
        raise ValueError(
            f"{path} has other columns than are written now (missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown) or 'none'}); move it away, and the command that made it makes it anew"
        )
    if others := {row["slice"] for row in rows} - {slice_.name}:
        raise ValueError(
            f"{path} has rows of another slice ({', '.join(sorted(others))}) than the slice.json beside it "
            f"({slice_.name}); move it away, or give another --out with that slice.json"
        )
    return rows


def _append(path, fields, rows):
    """Adds the rows of a stack at once, so that a kill leaves none of them or all."""
    new = not path.exists()
    text = [",".join(fields)] if new else []
    text += [",".join(str(row[field]) for field in fields) for row in rows]
    with open(path, "a", newline="") as file:
        file.write("\n".join(text) + "\n")


def _results(jobs, work, processes, deadline):
    """(job, rows) as the stacks end; none is begun after the deadline."""

    def in_time():
        return deadline is None or time.monotonic() < deadline

    if processes == 1:
        for job in jobs:
            if in_time():
                yield job, work(job)
        return
    # One thread each: two processes use two cores better than two threads do one small matrix.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
        waiting, running = iter(jobs), {}
        while True:
            while len(running) < processes and in_time() and (job := next(waiting, None)):
                running[pool.submit(work, job)] = job
            if not running:
                return
            for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def train(job, slice_, data_dir=None):
    """Trains a stack and reads its test rows once: a row for each task and learning rate."""
    started = time.monotonic()
    settings = slice_.settings
    rates = settings["learning_rates"]
    members, tables = members_of(job, settings, data_dir)
    stack = trained_stack(program_of(job.network, settings["width"], job.shape), members, job.batch_size, settings)
    results = stack.results()
    accuracy = stack.test(tables)[1]
    seconds = (time.monotonic() - started) / len(members)
    rows = []
    for number, (task, rate) in enumerate(itertools.product(job.tasks, rates)):
        result, count, used = results[number], len(tables[number][1]), len(members[number].y)
        right = round(float(accuracy[number]) * count)
        rows.append(
            {
                "slice": slice_.name,
                "method": job.method,
                "task": task,
                "seed": job.seed,
                **{name: job.network.get(name, "") for name in ("arch", "depth", "form", "dropout")},
                "learning_rate": rate,
                "batch_size": job.batch_size,
                "epochs": round(settings["periods"] * min(used, settings["rows_per_period"]) / used, 2),
                "period": result.period,
                "validation_rows": len(members[number].y_held),
                "validation_loss": f"{result.loss:.6g}",
                "validation_accuracy": f"{result.accuracy:.6f}",
                "test_rows": count,
                "test_right": right,
                "test_accuracy": f"{right / count:.6f}",
                "seconds": f"{seconds:.2f}",
                "keras": keras.__version__,
            }
        )
    return rows


def trained_stack(program, members, batch_size, settings):
    """The members at the end of the slice's periods."""
    stack = Stack(program, members, batch_size, settings["rows_per_period"], settings["window"])
    for _ in range(settings["periods"]):
        stack.advance()
    return stack


def members_of(job, settings, data_dir=None):
    """The members of a stack, and the test rows of each."""
    members, tables = [], []
    for task in job.tasks:
        data = load_dataset(f"uci/{task}", data_dir)
        split = data.split(settings["column"])
        for rate in settings["learning_rates"]:
            members.append(member_of(data, settings, rate, job.seed))
            tables.append((split.x_test, split.y_test))
    return members, tables


def member_of(data, settings, rate, seed):
    """A network on the training rows of the slice's column of a task, stopped by its validation rows."""
    split = data.split(settings["column"])
    held = curve_rows(split.x_validation, split.y_validation, settings["validation_rows"])
    return Member(split.x_train, split.y_train, *held, len(data.class_counts), rate, seed)


def curve_rows(x, y, most):
    """The rows of the curve: all, or so many of them, drawn once for all networks."""
    rows = np.random.default_rng(0).permutation(len(y))[:most]
    return x[rows], y[rows]


def program_of(network, width, shape):
    """The compiled steps of a network, made once in a process."""
    return _program(tuple(sorted({**network, "width": width}.items())), shape)


@functools.lru_cache(maxsize=64)
def _program(options, shape):
    options = dict(options)
    return Program(options.pop("arch"), *shape, **options)


def select(rows):
    """The configuration of each task, method and seed, by validation accuracy alone.

    Of equals the one with more layers, then the lower learning rate, then the
    higher dropout, as in the paper; then the rectangular one, the earlier in
    slice.json.

    Args:
        rows: Rows of runs.csv, as dictionaries.

    Returns:
        `{(method, task, seed): row}`.
    """
    chosen = {}
    for row in rows:
        rank = (
            float(row["validation_accuracy"]),
            int(row["depth"]),
            -float(row["learning_rate"]),
            float(row["dropout"] or 0),
            row["form"] in ("", "rectangular"),
        )
        key = row["method"], row["task"], int(row["seed"])
        if key not in chosen or rank > chosen[key][0]:
            chosen[key] = rank, row
    return {key: row for key, (_, row) in chosen.items()}


def selected(folder, slice_, method, seed, tasks=None):
    """The selected rows of a method and seed in runs.csv, `{task: row}`.

    Args:
        folder: Of runs.csv.
        slice_: A `Slice`.
        method: Name in the slice.
        seed: One seed.
        tasks: Names without `uci/`; by default all that are complete.

    Raises:
        ValueError: a task is unknown, or its runs are not complete.
    """
    check_names(tasks or (), uci.tasks(), "task")
    path = folder / "runs.csv"
    rows = [row for row in rows_of(path, slice_, FIELDS) if (row["method"], row["seed"]) == (method, str(seed))]
    count = collections.Counter(row["task"] for row in rows)
    size = len(slice_.settings["learning_rates"]) * len(slice_.settings["methods"][method])
    complete = [task for task in count if count[task] == size]
    if missing := [task for task in tasks or () if task not in complete]:
        raise ValueError(
            f"{path}: {missing[0]} has {count[missing[0]]} of the {size} configurations of {method} at seed {seed}; "
            f"first python -m training benchmark uci --methods {method} --tasks {missing[0]}"
        )
    chosen = select(rows)
    return {task: chosen[method, task, seed] for task in tasks or complete}


class _Progress:
    """A line for every stack, with the time left by the work that it was."""

    def __init__(self, what, total, waiting):
        self.what, self.total, self.left = what, total, len(waiting)
        self.work_left, self.work_done = sum(job.cost for job in waiting), 0.0
        self.started = time.monotonic()
        print(f"{what}: {self}", file=sys.stderr, flush=True)

    def __str__(self):
        return f"{self.total - self.left} of {self.total} stacks are done"

    def ended(self, job):
        self.left -= 1
        self.work_done += job.cost
        self.work_left -= job.cost
        minutes = (time.monotonic() - self.started) / 60 * self.work_left / self.work_done
        print(f"{self.what}: {self}; {job}; {minutes:.0f} min left", file=sys.stderr, flush=True)
