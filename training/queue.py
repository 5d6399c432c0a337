"""The queue: a Markdown table of training commands, worked through from the top."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

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
    run that has ended is noted in `ended.txt` of the folder `--out`, and passed
    over from then on.
    """
    started, failed = time.monotonic(), []
    ended = pathlib.Path(args.out) / "ended.txt"
    for arguments in read_queue(args.queue):
        run = shlex.join(arguments)
        if ended.exists() and run in ended.read_text().splitlines():
            print(f"queue: {run} has ended in {args.out}", flush=True)
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
        status, told_to_stop = _run(command)
        if status == 0:
            ended.parent.mkdir(parents=True, exist_ok=True)
            with open(ended, "a") as file:
                file.write(f"{run}\n")
        if status == TEMPFAIL or told_to_stop:
            _stopped()
        if status:
            failed.append(run)
            print(f"queue: {run} failed with exit status {status}; going on", flush=True)
    if failed:
        raise ValueError(f"{len(failed)} of the queue's runs failed: {', '.join(failed)}; their messages are above")
    print("queue: nothing left to run", flush=True)


def _run(command):
    """Runs a command to its end: its exit status, and whether Ctrl-C or SIGTERM came in that time.

    Both are the run's to obey: it saves, where it has begun to train.
    """
    received = []

    def note(number, frame):
        received.append(number)
        if number == signal.SIGTERM:  # a terminal sends Ctrl-C to the process itself
            process.terminate()

    old = {}
    process = subprocess.Popen(command)
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, note)
        return process.wait(), bool(received)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _stopped():
    print("queue: stopped in time; the same command goes on", flush=True)
    raise SystemExit(TEMPFAIL)
