"""The queue: a Markdown table of training commands, worked through from the top."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

COMMAND = re.compile(r"`(python -m training train [^`]+)`")
GRACE = 1 / 3  # minutes kept back: a run needs them to start and to write its last checkpoint


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
    started = time.monotonic()
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
                break
            command += ["--stop-after", f"{left:.2f}"]
        print(f"queue: {shlex.join(command[1:])}", flush=True)
        result = subprocess.run(command)
        if result.returncode == os.EX_TEMPFAIL:
            print("queue: stopped in time; the same command goes on", flush=True)
            raise SystemExit(os.EX_TEMPFAIL)
        if result.returncode:
            raise SystemExit(result.returncode)
    print("queue: nothing left to run", flush=True)


def _has_ended(arguments, out):
    name = arguments[0]
    if "--validation" in arguments:
        fraction = float(arguments[arguments.index("--validation") + 1])
        return (out / name / f"validation-{fraction}" / "validation.json").exists()
    return (out / name / name / "SHA256SUMS").exists()
