"""How much faster stacked training is than one `model.fit` at a time, both doing the same work in the same run."""

import os
import pathlib
import time

import keras
import numpy as np

from training import uci
from training.machine import hardware
from training.stacked import Program
from training.text_tables import csv_text


def run(out, methods=("SNN",), tasks=None, stack=0, fits=2, data_dir=None):
    """Times a stack of the grid for the first and the last network of a method, and some `fit`s of its members.

    Both build, compile and train the same networks with the same steps and
    measure them on the validation rows after every period, and on the test rows
    at the end. The members that are fitted lie evenly in the stack; the time of
    all is that of their mean. Processor time is given beside the clock's: on a
    machine that others use, it is the fairer one.

    Args:
        out: Folder of the results; a row per network goes to `out/uci/speed.csv`.
        methods: Names in the slice.
        tasks: The tasks of the stack; by default those of the slice's stack
            of this number, in the order of the plan.
        stack: Number of that stack.
        fits: Members to fit one at a time.
        data_dir: As for `zoo.load_dataset`.

    Returns:
        The path of the CSV.

    Raises:
        ValueError: a name is unknown.
    """
    folder = pathlib.Path(out) / "uci"
    slice_ = uci.read_slice(folder)
    planned = uci.plan(slice_, methods, tasks, slice_.settings["seeds"][:1])
    groups = list(dict.fromkeys(job.tasks for job in planned))
    networks = [slice_.settings["methods"][method][place] for method in methods for place in (0, -1)]
    jobs = [job for job in planned if job.tasks == groups[stack] and job.network in networks]
    rows = [compare(job, slice_, fits, data_dir) for job in jobs]
    path = folder / "speed.csv"
    path.write_text(csv_text(rows), newline="")
    return path


def compare(job, slice_, fits, data_dir):
    settings = slice_.settings
    members, tables = uci.members_of(job, settings, data_dir)
    options = {**job.network, "width": settings["width"]}
    arch = options.pop("arch")

    wall, cpu = time.perf_counter(), time.process_time()
    program = Program(arch, *job.shape, **options)
    stacked = uci.trained_stack(program, members, job.batch_size, settings)
    stacked.results()
    stacked.test(tables)
    ours = time.perf_counter() - wall, time.process_time() - cpu

    chosen = np.linspace(0, len(members) - 1, fits).round().astype(int)
    times = np.array([_fit_alone(program, members[k], tables[k], job.batch_size, settings) for k in chosen])
    alone = times.mean(axis=0) * len(members)
    return {
        "method": job.method,
        "network": " ".join(f"{name} {value}" for name, value in job.network.items() if name != "arch"),
        "tasks": len(job.tasks),
        "largest_training_rows": max(len(member.y) for member in members),
        "networks": len(members),
        "periods": settings["periods"],
        "fitted": fits,
        "stacked_seconds": round(ours[0], 1),
        "fit_seconds": round(alone[0], 1),
        "speed_up": round(alone[0] / ours[0], 1),
        "stacked_cpu_seconds": round(ours[1], 1),
        "fit_cpu_seconds": round(alone[1], 1),
        "cpu_speed_up": round(alone[1] / ours[1], 1),
        "hardware": hardware(),
        "load_average": round(os.getloadavg()[0], 1),
        "keras": keras.__version__,
    }


def _fit_alone(program, member, table, batch_size, settings):
    """Seconds, and processor seconds, of building, compiling, fitting and testing one member by Keras alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    keras.utils.set_random_seed(member.seed)
    model = program.model(member.x.shape[1], member.num_classes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(member.learning_rate), loss, metrics=["accuracy"])
    held = member.x_held, member.y_held
    x, y = (rows[: settings["rows_per_period"]] for rows in (member.x, member.y))  # as many steps as the stack makes
    model.fit(x, y, batch_size=batch_size, epochs=settings["periods"], validation_data=held, verbose=0)
    model.evaluate(*table, batch_size=256, verbose=0)
    return time.perf_counter() - wall, time.process_time() - cpu
