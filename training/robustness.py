"""Training loss of self-normalizing networks and of batch norm by depth: Figure 1 of Klambauer et al. (2017).

The paper has MNIST and CIFAR-10; here are the optical digits of the UCI
repository, in the same protocol: hidden layers as wide as the input, columns
standardised by the training rows, plain gradient descent with a rate of 1e-5 on
the summed loss of 128 rows (1.28e-3 on their mean), no dropout. An epoch has 30
steps, the last of fewer rows, where MNIST has 468, and there are 1000 epochs
where the paper has 2000. The loss of an epoch is the mean over its batches in
training mode, as it goes.
"""

import csv
import functools
import math

import keras

from training.standardisation import builder_arguments
from zoo.datasets import load_dataset
from zoo.registry import create_model

DATASET = "uci/optical"
BATCH, RATE, EPOCHS, EVERY = 128, 1.28e-3, 1000, 10
NETS = {"SNN": "snn_mlp8", "BatchNorm": "batchnorm_mlp"}
DEPTHS = (8, 16, 32)


def jobs(epochs=EPOCHS):
    """`(key, function that measures)` for each network and depth."""
    for net, arch in NETS.items():
        for depth in DEPTHS:
            yield {"net": net, "depth": depth, "data": DATASET}, functools.partial(losses, arch, depth, epochs)


def losses(arch, depth, epochs, seed=0):
    """The training loss of every tenth epoch."""
    dataset = load_dataset(DATASET)
    x = dataset.x_train.astype("float32")
    keras.utils.set_random_seed(seed)
    model = create_model(
        arch,
        depth=depth,
        width=x.shape[1],
        dropout=0.0,
        num_classes=len(dataset.class_names),
        classifier_activation=None,
        **builder_arguments(dataset),
    )
    steps = math.ceil(len(x) / BATCH)
    model.compile(
        keras.optimizers.SGD(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=1 if keras.backend.backend() == "torch" else steps,  # which cannot
    )
    history = model.fit(x, dataset.y_train, batch_size=BATCH, epochs=epochs, verbose=0)
    return [
        {"epoch": epoch, "steps": epoch * steps, "loss": f"{loss:.4g}"}
        for epoch, loss in enumerate(history.history["loss"], start=1)
        if epoch % EVERY == 0 or epoch == 1
    ]


def draw(path):
    """Draws the picture beside the CSV."""
    from matplotlib.figure import Figure

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.add_subplot()
    for net, color in zip(NETS, ("tab:blue", "tab:orange"), strict=True):
        for depth, style in zip(DEPTHS, (":", "--", "-"), strict=True):
            points = [
                (int(row["epoch"]), float(row["loss"]))
                for row in rows
                if (row["net"], row["depth"]) == (net, str(depth))
            ]
            axis.plot(*zip(*points, strict=True), style, color=color, label=f"{net}, {depth} layers", linewidth=1)
    axis.set(xlabel="epoch", ylabel="training cross-entropy (nats)", yscale="log", title=DATASET)
    axis.legend(ncol=2)
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=100, metadata={"Software": None})
    return picture
