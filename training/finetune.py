"""Fine-tuning on one's own data: a folder of class folders of images, or a CSV."""

import contextlib
import pathlib

import keras
import numpy as np

from training.card import own_card
from training.curves import curves_png
from training.finetune_table import finetune_table
from training.folder_files import training_files
from training.interrupting import interruptible
from training.own_data import check_writable
from training.own_data import hold_out
from training.own_data import loadable
from training.own_data import read_labelled_csv
from training.own_data import rows_of_a_step
from training.recipes import own_name
from zoo.details import read_details
from zoo.evaluation import evaluate
from zoo.folders import find_folder
from zoo.graphs import functional_model
from zoo.heads import OF_ONE_CLASS
from zoo.heads import activation_of
from zoo.heads import head_layers
from zoo.heads import last_operation
from zoo.labelled_files import read_image_folders
from zoo.messages import some
from zoo.messages import unknown_name
from zoo.prediction import feature_names
from zoo.pretrained import FINETUNING_RATE
from zoo.pretrained import compile_for_finetuning
from zoo.pretrained import load_folder
from zoo.registry import list_models
from zoo.saving import save_model

EPOCHS = 30


def finetune(
    name,
    data,
    out,
    label="label",
    epochs=None,
    learning_rate=None,
    validation=0.2,
    seed=0,
    batch_size=None,
    freeze=False,
    flip=False,
    image_size=None,
    **table_options,
):
    """Fine-tunes a pretrained model and saves it as a folder.

    Part of the rows of every class is held out and evaluated after the last
    epoch; nothing is chosen on it. All input is read and checked
    before the first step. The first Ctrl-C ends the training after the step,
    and what was learned so far is evaluated and saved.

    An architecture and a CSV of any columns: see `training.finetune_table`.

    Args:
        name: A pretrained model. For a CSV also an architecture (such as
            `"snn_mlp4"`), which is then trained anew on the columns of the CSV.
        data: A folder with one folder of images per class, each image of which
            is stretched to the network's size, or a CSV file.
        out: Folder to make; `zoo.load_model(out)` loads it.
        label: Column of the label in the CSV; its values are the class names.
        epochs: Passes over the training rows; 30 by default.
        learning_rate: Of Adam; by default that of `zoo.load_model`.
        validation: Fraction of each class to hold out, 0 < fraction < 1.
        seed: Seed of the split, the head, the order, the dropout and the flips.
        batch_size: Rows of a step; by default 32, or all where there are fewer.
        freeze: Whether only the head learns: all other weights stay as they are,
            the statistics of batch norms too.
        flip: Whether the images are mirrored at random, left to right, as they
            are trained on. Neither the held-out ones nor the saved model are.
        image_size: Height and width of the images in pixels, by default the
            network's own; the saved model is of that size. Twice the size takes
            four times as long.
        table_options: Further arguments of `finetune_table`.

    Returns:
        The figures of `zoo.evaluate` on the held-out rows.

    Raises:
        ValueError: the data are not usable, or do not fit the model.
        OSError: the data cannot be read, or `out` cannot be written.
    """
    out, data = pathlib.Path(out), pathlib.Path(data)
    if out.exists():
        raise FileExistsError(f"{out} exists; give another --out, or delete it")
    if not 0 < validation < 1:
        raise ValueError(f"validation is a fraction between 0 and 1; received {validation}")
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs is 1 or more; received {epochs}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is 1 or more; received {batch_size}")
    if not data.exists():
        raise FileNotFoundError(f"no folder or CSV file {str(data)!r}")
    if flip and not data.is_dir():
        raise ValueError(f"flip mirrors images; {data} is a table: leave --flip out, or give a folder of class folders")
    if image_size is not None and not data.is_dir():
        raise ValueError(f"image_size is for images; {data} is a table: leave --image-size out")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size is 1 pixel or more; received {image_size}")
    learning_rate = FINETUNING_RATE if learning_rate is None else learning_rate
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is above 0; received {learning_rate}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is a whole number from 0 to 2**32 - 1; received {seed}")
    check_writable(out)
    architecture = name in list_models()
    if not architecture and not {".", "/"} & set(name) and not pathlib.Path(name).is_dir():
        raise unknown_name(name, list_models(), "architecture")
    if architecture and not data.is_dir():
        if freeze:
            raise ValueError(
                f"freeze keeps what was learned before, and the architecture {name!r} learned nothing yet: leave "
                "--freeze out, or give a pretrained model"
            )
        options = {"learning_rate": learning_rate, "validation": validation, "seed": seed, "batch_size": batch_size}
        return finetune_table(name, data, out, label, epochs=epochs, **options, **table_options)
    if table_options:
        raise ValueError(f"{next(iter(table_options))} is for training an architecture, such as 'snn_mlp4', on a table")

    keras.utils.set_random_seed(seed)
    if architecture:
        raise ValueError(f"{name!r} has no weights to fine-tune; `python -m zoo list --pretrained` shows those that do")
    folder, pin = find_folder(name)  # once, so that the names and the weights are of one version
    body = load_folder(folder, pin, compile=False)
    known = read_details(folder, body)
    if "table" in known:
        arch = known.get("base_model", "snn_mlp4")
        raise ValueError(f"{name!r} was made of a table of one's own; give its architecture, {arch!r}, to train anew")
    shape = body.input_shape
    rank = len(shape) if isinstance(shape, tuple) else 0  # of several inputs it is a list
    of_images = rank == 4
    if not of_images and (rank != 2 or shape[1] is None):
        raise ValueError(
            f"{name!r} takes inputs of shape {shape}, expected images or rows of a fixed number of columns; train it "
            "by its own fit: zoo.load_model(...).fit(...)"
        )
    activation = activation_of(last_operation(body))
    if activation not in OF_ONE_CLASS:
        raise ValueError(
            f"{name!r} ends in a {activation}, expected softmax or logits of classes of which one holds; train it by "
            "its own fit: zoo.load_model(...).fit(...)"
        )
    if data.is_dir():
        if not of_images:
            raise ValueError(
                f"{name!r} takes the columns of a table; {data} is a folder: give a CSV, or an image model"
            )
        shape = shape[1:] if image_size is None else (image_size, image_size, shape[-1])
        if None in shape[:2]:
            raise ValueError(f"{name!r} takes images of any size; say to which yours are scaled: give --image-size")
        if image_size:
            load_folder(folder, pin, compile=False, input_shape=shape)  # refused, if it is, before the images are read
        x, y, class_names = read_image_folders(data, shape)
        columns = []
    else:
        if of_images:
            raise ValueError(f"{name!r} takes images; {data} is a table: give a folder of class folders")
        x, y, class_names, columns = read_labelled_csv(data, label)
    if not of_images:  # in the model's order
        expected = feature_names(body, known)
        _check_columns(name, data, columns, expected)
        x = x[:, [columns.index(column) for column in expected]]
        columns = expected
    same_classes = sorted(known.get("class_names", [])) == list(class_names)
    if same_classes:  # in the model's own order, so that its head stays right
        y = np.array([known["class_names"].index(name) for name in class_names])[y]
        class_names = tuple(known["class_names"])
    dataset = hold_out(x, y, class_names, columns, validation, seed)
    settings = {
        "learning_rate": learning_rate,
        "batch_size": rows_of_a_step(batch_size, len(dataset.x_train)),
        "epochs": EPOCHS if epochs is None else epochs,
        "validation": validation,
        "freeze": freeze,
        **({"flip": flip} if of_images else {}),
        **({"image_size": image_size} if image_size else {}),
    }

    model = load_folder(
        folder, pin, num_classes=len(class_names), compile=False, input_shape=shape if image_size else None
    )
    if not same_classes and len(class_names) == len(known.get("class_names", [])):
        _reinitialise_head(model)
    with frozen_body(model) if freeze else contextlib.nullcontext(), interruptible() as interruption:
        compile_for_finetuning(model, learning_rate)
        learner = _flipping(model) if flip else model
        history = learner.fit(
            dataset.x_train,
            dataset.y_train,
            batch_size=settings["batch_size"],
            epochs=settings["epochs"],
            callbacks=[keras.callbacks.TerminateOnNaN(), interruption],  # `evaluate` then says that it diverged
            verbose=2,
        ).history
    figures = evaluate(model, dataset)
    details = {
        "name": out.name,
        "base_model": name,
        "data": {"name": own_name(data), "train_rows": len(dataset.x_train), "test_rows": len(dataset.x_test)},
        "class_names": list(class_names),
        "feature_names": list(columns),
        "recipe": settings,
        "results": {**figures, "epochs": len(history["loss"]), "seeds": [seed]},
    }
    rows = [
        {"epoch": epoch, "loss": loss, "accuracy": accuracy, "learning_rate": learning_rate}
        for epoch, (loss, accuracy) in enumerate(zip(history["loss"], history["accuracy"], strict=True), start=1)
    ]
    files = training_files(model, rows, "curves.png", lambda: curves_png(rows, f"{out.name}, seed {seed}"))
    save_model(model, out, details=details, card=own_card(model, details, files), files=files)
    print(
        f"{out}: top-1 {100 * figures['top1']:.2f} % on {figures['rows']} held-out rows of {len(class_names)} classes "
        f"({len(dataset.x_train)} for training); load it with zoo.load_model({loadable(out)!r})"
    )
    return figures


def _check_columns(name, data, columns, expected):
    missing = [column for column in expected if column not in columns]
    further = [column for column in columns if column not in expected]
    if missing or further:
        arch = name.partition(".")[0]
        raise ValueError(
            f"{data} has other columns than {name!r} was trained on (missing: {some(missing) or 'none'}; further: "
            f"{some(further) or 'none'}), so its weights mean nothing there; rename them if they are the same, or give "
            f"an architecture, such as {arch if arch in list_models() else 'snn_mlp4'!r}, to train it anew"
        )


def _reinitialise_head(model):
    """New head weights where the number of classes is the same but the classes are not."""
    for layer in head_layers(model):
        fresh = type(layer).from_config(layer.get_config())
        fresh.build(layer.input.shape)
        layer.set_weights(fresh.get_weights())


@contextlib.contextmanager
def frozen_body(model):
    """All before the head learns nothing meanwhile, and is as trainable as before after it: what is saved can train."""
    head = head_layers(model)
    # Also what lies in nested models, wrappers and activations, the outer ones first; Keras tells it in this way alone.
    layers = [inner for layer in model.layers if layer not in head for inner in layer._flatten_layers()]
    before = [layer.trainable for layer in layers]
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer, trainable in zip(layers, before, strict=True):
            layer.trainable = trainable


def _flipping(model):
    """A model, compiled likewise, that trains the given one on images of which it flips about half, anew each time."""
    inputs = keras.Input(model.input_shape[1:])
    flip = keras.layers.RandomFlip("horizontal", data_format="channels_last", dtype="float32")
    flipping = functional_model(inputs, model(flip(inputs)), f"flipping_{model.name}")
    flipping.compile_from_config(model.get_compile_config())
    return flipping
