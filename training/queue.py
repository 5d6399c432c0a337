"""The queue: a Markdown table of training commands, worked through from the top."""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

from training.checkpoints import read_json
from training.checkpoints import timed_epochs
from training.recipes import added_seeds
from training.recipes import get_recipe
from training.recipes import same_choice
from training.recipes import stored_seeds
from zoo.registry import BUNDLED

COMMAND = re.compile(r"`(python -m training train [^`]+)`")
TEMPFAIL = getattr(os, "EX_TEMPFAIL", 75)
GRACE = 0.5  # minutes kept back: a run needs them to start and to write its last checkpoint


def read_queue(path):
    """The commands that are still to be run.

    A row of the table counts if it holds a command `python -m training train
    ...` in backquotes and its last cell, the state, does not begin with `done`.

    Returns:
        A list of argument lists, from the top.

    Raises:
        ValueError: no row holds a command.
    """
    rows = [
        line.strip()
        for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        if line.strip().startswith("|")
    ]
    found = [(match, row) for row in rows if (match := COMMAND.search(row))]
    if not found:
        raise ValueError(f"{path} has no table row with a command `python -m training train NAME ...`")
    states = [(match, row.strip("|").split("|")[-1].strip()) for match, row in found]
    return [shlex.split(match.group(1))[4:] for match, state in states if not state.startswith("done")]


def train_queue(args, parse):
    """Runs the queue's commands one after the other, each resumed or started, until `stop_after`.

    Each run is a process of its own, so that nothing of one reaches the next. A
    run that has ended in the folder `--out` is passed over. Ctrl-C and SIGTERM
    stop the run and the queue.

    Args:
        args: Those of the command with `--queue`.
        parse: Parser of the arguments of `python -m training train`.
    """
    started, failed = time.monotonic(), []
    with _signals_noted() as stop:
        for arguments in read_queue(args.queue):
            name = shlex.join(arguments)
            try:
                if _has_ended(parse(arguments), pathlib.Path(args.out)):
                    print(f"queue: {name} has ended in {args.out}", flush=True)
                    continue
            except (ValueError, SystemExit) as error:  # the parser has told what it was
                failed.append(name)
                print(f"queue: {name} cannot be run{'' if isinstance(error, SystemExit) else f': {error}'}", flush=True)
                continue
            command = [sys.executable, "-m", "training", "train", *arguments, "--out", args.out]
            if args.data_dir:
                command += ["--data-dir", args.data_dir]
            if args.stop_after is not None:
                left = args.stop_after - (time.monotonic() - started) / 60 - GRACE
                if left <= 0:
                    _stopped()
                command += ["--stop-after", f"{left:.2f}"]
            print(f"queue: {shlex.join(command[1:])}", flush=True)
            status = _run(command, stop)
            if status == TEMPFAIL or stop.asked:
                _stopped()
            if status:
                failed.append(name)
                print(f"queue: {name} failed with exit status {status}; going on", flush=True)
    if failed:
        raise ValueError(f"{len(failed)} of the queue's runs failed: {', '.join(failed)}; their messages are above")
    print("queue: nothing left to run", flush=True)


class Stop:
    """Handler of Ctrl-C and SIGTERM: notes that one came, and lets the run obey it.

    Whatever the run's exit status then is (it saves only within its steps), the
    queue is to stop. A terminal sends Ctrl-C to the run itself; SIGTERM is passed on.
    """

    asked, process = False, None

    def __call__(self, number, frame):
        self.asked = True
        if number == signal.SIGTERM and self.process is not None:
            self.process.terminate()


@contextlib.contextmanager
def _signals_noted():
    stop = Stop()
    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _run(command, stop):
    """Runs a command to its end; its exit status."""
    stop.process = subprocess.Popen(command)
    if stop.asked:  # before there was a process to tell
        stop.process.terminate()
    return stop.process.wait()


def _stopped():
    print("queue: stopped; the same command goes on", flush=True)
    raise SystemExit(TEMPFAIL)


def _has_ended(run, out):
    """Whether the folder holds what the command makes: this recipe, in as many epochs, of these seeds.

    Args:
        run: The arguments of `python -m training train`, parsed.
        out: Folder of the runs.
    """
    if run.data:  # its run tells, in which nothing is trained again: folders of one name have runs of one name
        return False
    recipe = get_recipe(run.name)
    home = out / recipe.name
    path = home / recipe.name / "recipe.json"
    if run.validation is not None:
        home = home / f"validation-{run.validation}"
        path = home / "validation.json"
    recipe = recipe.given(dtype=run.dtype, publish=run.publish)
    epochs = run.epochs
    if run.minutes is not None:
        epochs = timed_epochs(home).get(run.minutes)
        if epochs is None:
            return False
    if epochs is not None:
        recipe = recipe.rescaled(epochs)
    made = [path, BUNDLED / recipe.name / "recipe.json"] if run.bundle and run.validation is None else [path]
    if run.add_to:
        made = [pathlib.Path(run.add_to) / "recipe.json"]
    return all(_is_made(path, recipe, run.seeds or recipe.seeds, run) for path in made)


def _is_made(path, recipe, seeds, run):
    if not path.exists():
        return False
    facts = read_json(path)
    stored, later = stored_seeds(facts), added_seeds(facts)
    if not same_choice(facts, recipe, stored):
        return False
    if run.add_to:
        return set(seeds) <= set(later)
    if run.validation is None and facts["recipe"].get("publish", "last") != recipe.publish:
        return False  # the run says that the other weights cannot be had any more
    return list(seeds) in (stored, [seed for seed in stored if seed not in later])
