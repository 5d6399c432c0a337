"""The picture of a training run."""

import io

import numpy as np

PANELS = (
    ("loss", "training loss (nats)"),
    ("accuracy", "training accuracy"),
    ("learning_rate", "learning rate at the end of the epoch"),
)


def curves_png(history, title, alpha_beta=(), panels=PANELS):
    """Loss, accuracy and learning rate by epoch; alpha and beta by depth and epoch if there are any.

    Args:
        history: List of one dictionary per epoch, as `training.loop.fit` returns.
        title: Title of the picture.
        alpha_beta: Mean alpha and beta of every MPELU layer after every epoch,
            (epochs, layers, 2), as `training.loop.fit` returns.

        panels: Three keys of the history, each with its label.

    Returns:
        The bytes of a PNG file.
    """
    from matplotlib.figure import Figure

    learned = np.asarray(alpha_beta, "float64")
    learned = learned if learned.size else None
    figure = Figure(figsize=(12, 3.2 if learned is None else 6.4), layout="constrained")
    grid = figure.add_gridspec(1 if learned is None else 2, 6)
    epochs = [row["epoch"] for row in history]
    for column, (key, label) in enumerate(panels):
        panel = figure.add_subplot(grid[0, 2 * column : 2 * column + 2])
        panel.plot(epochs, [row[key] for row in history], color="tab:blue")
        panel.set(xlabel="epoch", title=label)
    if learned is not None:
        for column, name in enumerate(("alpha", "beta")):
            panel = figure.add_subplot(grid[1, 3 * column : 3 * column + 3])
            # Diverging around the start, 1: what grew is red, what shrank is blue.
            reach = max(1e-3, float(np.abs(learned[:, :, column] - 1).max()))
            image = panel.imshow(
                learned[:, :, column].T,
                aspect="auto",
                origin="lower",
                cmap="coolwarm",
                vmin=1 - reach,
                vmax=1 + reach,
                extent=(0.5, len(learned) + 0.5, 0.5, learned.shape[1] + 0.5),
            )
            panel.set(xlabel="epoch", ylabel="MPELU layer, from the input", title=f"{name} (mean of the channels)")
            figure.colorbar(image, ax=panel)
    figure.suptitle(title)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80)
    return png.getvalue()
