"""What alpha and beta of the trained networks have become, layer by layer."""

import csv
import functools

import numpy as np

from keras_mpelu import MPELU
from zoo.pretrained import load_model
from zoo.registry import list_models

QUANTILES = {"lowest tenth": 0.1, "median": 0.5, "highest tenth": 0.9}


def jobs():
    """`(key, function that measures)` for each pretrained network with MPELU."""
    for name in list_models("mpelu*", pretrained=True):
        yield {"model": name}, functools.partial(by_depth, name)


def by_depth(name):
    """Quantiles over the channels of alpha, beta and their product, the slope below 0, a row for each MPELU layer."""
    rows = []
    found = [layer for layer in load_model(name, compile=False).layers if isinstance(layer, MPELU)]
    for number, layer in enumerate(found, start=1):
        alpha, beta = (np.asarray(weight, "float64").ravel() for weight in (layer.alpha, layer.beta))
        row = {"layer": number, "name": layer.name, "channels": len(alpha)}
        for what, values in (("alpha", alpha), ("beta", beta), ("alpha * beta", alpha * beta)):
            for quantile, share in QUANTILES.items():
                row[f"{what}, {quantile}"] = f"{np.quantile(values, share):.4f}"
        rows.append(row)
    return rows


def draw(path):
    """Draws the picture beside the CSV: medians, and the middle eight tenths of the channels."""
    from matplotlib.figure import Figure

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, what in zip(panels, ("alpha", "beta", "alpha * beta"), strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            mine = [row for row in rows if row["model"] == model]
            depth = [int(row["layer"]) for row in mine]
            low, median, high = ([float(row[f"{what}, {quantile}"]) for row in mine] for quantile in QUANTILES)
            (line,) = panel.plot(depth, median, marker=".", label=model)
            panel.fill_between(depth, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        panel.axhline(1, color="black", linewidth=0.5, linestyle=":")
        panel.set(title=what, xlabel="MPELU layer, from the input")
    panels[0].legend(fontsize=8)
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=100, metadata={"Software": None})
    return picture
