"""What a builder takes from its data: the statistics of the standardisation inside the model."""

import numpy as np


def builder_arguments(dataset):
    """What a model takes from its data: the columns' mean and variance on the training rows."""
    if dataset.x_train.ndim != 2:
        return {}
    variance = dataset.x_train.var(axis=0, dtype="float64")
    return {
        "num_features": dataset.x_train.shape[1],
        "mean": dataset.x_train.mean(axis=0, dtype="float64").tolist(),
        # A constant column stays constant; 1 keeps it finite.
        "variance": np.where(variance > 0, variance, 1.0).tolist(),
    }


def image_statistics(x):
    """Mean and deviation of each channel of the training images, for the builder."""
    mean = x.mean((0, 1, 2), dtype="float64")
    # An image at a time: np.std would make a copy of all in float64.
    variance = sum(((image - mean) ** 2).sum((0, 1)) for image in x) / x[..., 0].size
    return {"mean": mean.tolist(), "std": np.where(variance > 0, np.sqrt(variance), 1.0).tolist()}
