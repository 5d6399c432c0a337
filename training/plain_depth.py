"""Plain networks of 15, 30 and 52 layers on CIFAR-100: which begin to train (Li et al., 2018, sections 3.2 and 4.4).

The paper shows it on ImageNet; here are the siblings of CIFAR's size, for an
epoch. Without batch norm: 30 layers by activation and initialisation, 52 layers
of ELU by LSUV and by the Taylor rule. With it: MPELU at depth 15 and 30. The
rest is the paper's: batches of 64, rate 0.01, momentum 0.9, coupled L2 of 5e-4,
dropout 0.5 in the dense layers without batch norm. Biases learn like the other
weights; the paper's files give them twice the rate and no L2. bfloat16 with float32 weights is ours. 5,000 of the
training images are held out and measured at the end.
"""

import csv
import functools
import math

import keras
import numpy as np

from keras_mpelu import lsuv
from training.loop import dtype_policy
from training.optimizer import CoupledSGD
from zoo.datasets import load_dataset
from zoo.registry import create_model

DATASET = "cifar100"
BATCH, RATE, L2, HELD, EVERY = 64, 0.01, 5e-4, 5000, 20
FANS = ("fan_in", "fan_out", "fan_avg")
GAUSSIAN, LSUV = "gaussian 0.01", "lsuv"
TAYLOR, HE = ([f"{rule} {fan}" for fan in FANS] for rule in ("taylor", "he"))
# (layers, batch norm, activation) -> initialisations; a panel of the picture for each.
NETS = {
    (30, False, "relu"): HE,
    (30, False, "prelu"): HE,
    (30, False, "elu"): [GAUSSIAN, *TAYLOR],
    (30, False, "mpelu"): [GAUSSIAN, *TAYLOR],
    (52, False, "elu"): ["taylor fan_in", LSUV],
    (15, True, "mpelu"): [GAUSSIAN, "taylor fan_in"],
    (30, True, "mpelu"): [GAUSSIAN, "taylor fan_in"],
}


def jobs(nets=NETS, steps=None):
    """`(key, function that measures)` for each network and initialisation."""
    for (depth, batch_norm, activation), initializers in nets.items():
        for initializer in initializers:
            key = {
                "layers": depth,
                "batch norm": "with" if batch_norm else "without",
                "activation": activation,
                "initializer": initializer,
            }
            yield key, functools.partial(losses, depth, batch_norm, activation, initializer, steps)


def losses(depth, batch_norm, activation, initializer, steps=None, seed=0, dtype="mixed_bfloat16"):
    """The training loss of every 20 steps, as it goes, and the held-out accuracy at the end."""
    dataset = load_dataset(DATASET)
    order = np.random.default_rng(seed).permutation(len(dataset.y_train))
    held, order = order[:HELD], order[HELD:]
    steps = steps or len(order) // BATCH
    with dtype_policy(dtype):
        model = _network(dataset, depth, batch_norm, activation, initializer, seed)
    if initializer == LSUV:
        lsuv(model, dataset.x_train[order[:256]], seed=seed)
    model.compile(
        CoupledSGD(RATE, nesterov=False, l2=L2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pieces = (order[first : first + BATCH] for first in range(0, len(order), BATCH))
    batches = ((dataset.x_train[rows], dataset.y_train[rows]) for rows in pieces)
    # An "epoch" of Keras is 20 steps here, so that its history has the mean loss of each.
    history = model.fit(batches, steps_per_epoch=EVERY, epochs=steps // EVERY, shuffle=False, verbose=0)
    accuracy = model.evaluate(dataset.x_train[held], dataset.y_train[held], batch_size=500, verbose=0)[1]
    return [
        {"step": EVERY * number, "loss": f"{loss:.4f}", "held-out accuracy at the end": f"{accuracy:.4f}"}
        for number, loss in enumerate(history.history["loss"], start=1)
    ]


def _network(dataset, depth, batch_norm, activation, initializer, seed):
    keras.utils.set_random_seed(seed)
    rule, _, fan = initializer.partition(" ")
    options = {"initializer": rule, "fan_mode": fan} if fan in FANS else {}
    if initializer == GAUSSIAN:
        options = {"initializer": "gaussian"}
    return create_model(
        f"{activation}_small_plain{depth}",
        batch_norm=batch_norm,
        num_classes=len(dataset.class_names),
        classifier_activation=None,
        **options,
    )


def draw(path):
    """Draws the picture beside the CSV, a panel for each network."""
    from matplotlib.figure import Figure

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    nets = list(dict.fromkeys((row["layers"], row["batch norm"], row["activation"]) for row in rows))
    colors = {GAUSSIAN: "tab:gray", LSUV: "tab:purple"}
    for rule in (TAYLOR, HE):
        colors |= dict(zip(rule, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    columns = min(4, len(nets))
    figure = Figure(figsize=(3.2 * columns, 2.8 * math.ceil(len(nets) / columns)), layout="constrained")
    panels = figure.subplots(math.ceil(len(nets) / columns), columns, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(nets) :]:
        panel.set_axis_off()
    for panel, net in zip(panels.flat, nets, strict=False):
        curves = [row for row in rows if (row["layers"], row["batch norm"], row["activation"]) == net]
        for initializer in dict.fromkeys(row["initializer"] for row in curves):
            points = [(int(row["step"]), float(row["loss"])) for row in curves if row["initializer"] == initializer]
            diverged = next((f" (not finite at {step})" for step, loss in points if not math.isfinite(loss)), "")
            panel.plot(*zip(*points, strict=True), color=colors[initializer], label=initializer + diverged, linewidth=1)
        panel.axhline(math.log(100), color="black", linewidth=0.5, linestyle=":")
        panel.set(title=f"{net[2]}, {net[0]} layers, {net[1]} batch norm", xlabel="step", ylim=(2.5, 5.2))
        panel.title.set_fontsize(9)
        panel.legend(fontsize=7)
    panels[0, 0].set_ylabel("training loss (nats; dotted: chance)")
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=100, metadata={"Software": None})
    return picture
