"""The queue: a Markdown table of training commands, worked through from the top."""

import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

from training.recipes import get_recipe

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
    rows = [line.strip() for line in pathlib.Path(path).read_text().splitlines() if line.strip().startswith("|")]
    found = [(match, row) for row in rows if (match := COMMAND.search(row))]
    if not found:
        raise ValueError(f"{path} has no table row with a command `python -m training train NAME ...`")
    states = [(match, row.strip("|").split("|")[-1].strip()) for match, row in found]
    return [shlex.split(match.group(1))[4:] for match, state in states if not state.startswith("done")]


def train_queue(args):
    """Runs the queue's commands one after the other, each resumed or started, until `stop_after`.

    Each run is a process of its own, so that nothing of one reaches the next. A
    run that has ended in the folder `--out` is passed over.
    """
    started, failed = time.monotonic(), []
    for arguments in read_queue(args.queue):
        if _has_ended(arguments, pathlib.Path(args.out)):
            print(f"queue: {arguments[0]} has ended in {args.out}", flush=True)
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
        status = _run(command)
        if status == TEMPFAIL:
            _stopped()
        if status:
            failed.append(arguments[0])
            print(f"queue: {arguments[0]} failed with exit status {status}; going on", flush=True)
    if failed:
        raise ValueError(f"{len(failed)} of the queue's runs failed: {', '.join(failed)}; their messages are above")
    print("queue: nothing left to run", flush=True)


def _run(command):
    """Runs a command to its end; Ctrl-C and SIGTERM are its to obey: it saves, and says so by its exit status."""
    process = subprocess.Popen(command)
    old = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),  # a terminal sends it to the process itself
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: process.terminate()),
    }
    try:
        return process.wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _stopped():
    print("queue: stopped in time; the same command goes on", flush=True)
    raise SystemExit(TEMPFAIL)


def _name(arguments):
    """Name of the folder that a run makes."""
    if "--data" in arguments:
        return get_recipe(arguments[0]).on_own_data(arguments[arguments.index("--data") + 1]).name
    return arguments[0] if "." in arguments[0] else get_recipe(arguments[0]).name


def _has_ended(arguments, out):
    name = _name(arguments)
    if "--validation" in arguments:
        fraction = float(arguments[arguments.index("--validation") + 1])
        return (out / name / f"validation-{fraction}" / "validation.json").exists()
    recipe = out / name / name / "recipe.json"
    seeds = itertools.takewhile(
        str.isdigit, arguments[arguments.index("--seeds") + 1 :] if "--seeds" in arguments else ()
    )
    wanted = [int(seed) for seed in seeds]
    return recipe.exists() and wanted in ([], json.loads(recipe.read_text())["results"]["seeds"])
