"""The picture of a training run."""

import io

import keras


def curves_png(history, title, model=None):
    """Loss, accuracy and learning rate by epoch; alpha and beta by depth if there are any.

    Args:
        history: List of one dictionary per epoch, as `training.loop.fit` returns.
        title: Title of the picture.
        model: The trained model, for its MPELU layers.

    Returns:
        The bytes of a PNG file.
    """
    from matplotlib.figure import Figure

    learned = _alpha_beta(model) if model else []
    figure = Figure(figsize=(12, 3.2) if not learned else (15, 3.2), layout="constrained")
    panels = figure.subplots(1, 4 if learned else 3)
    epochs = [row["epoch"] for row in history]
    for panel, key, label in zip(
        panels,
        ("loss", "accuracy", "learning_rate"),
        ("training loss (nats)", "training accuracy", "learning rate at the end of the epoch"),
        strict=False,
    ):
        panel.plot(epochs, [row[key] for row in history], color="tab:blue")
        panel.set(xlabel="epoch", title=label)
    if learned:
        depth = range(1, len(learned) + 1)
        for column, (label, color) in enumerate((("alpha", "tab:orange"), ("beta", "tab:green"))):
            mean = [row[2 * column] for row in learned]
            spread = [row[2 * column + 1] for row in learned]
            panels[3].errorbar(depth, mean, spread, label=label, color=color, capsize=2, marker="o", markersize=3)
        panels[3].set(xlabel="MPELU layer", title="learned (mean +- std of channels)")
        panels[3].legend()
    figure.suptitle(title)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80)
    return png.getvalue()


def _alpha_beta(model):
    """(mean, std) of alpha and of beta, for each MPELU layer."""
    rows = []
    for layer in model.layers:
        if hasattr(layer, "alpha") and hasattr(layer, "beta") and hasattr(layer, "alpha_initializer"):
            row = []
            for weight in (layer.alpha, layer.beta):
                values = keras.ops.convert_to_numpy(weight)
                row += [float(values.mean()), float(values.std())]
            rows.append(row)
    return rows
