"""Folders of weights: finding, checking, loading and saving them.

A folder is Keras's own directory format (config.json, metadata.json,
model.weights.h5) with a card, the recipe, the history, golden outputs, the
logits on the test set, the same weights as model.safetensors, and SHA256SUMS. It
is exactly what goes to the Hub (zoo/hub.py), but for model.safetensors: folders in
the package have only its sum, and training/publishing.py makes the file again. What
may be in a folder is checked before Keras reads it (zoo/safety.py).
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile

import keras
import numpy as np

from keras_mpelu import OneHotColumns  # with the other layers that the folders name, which are registered
from zoo.card import example_shape
from zoo.card import short_card
from zoo.deploy import deploy as deployed
from zoo.details import check_details
from zoo.graphs import deep_graphs
from zoo.graphs import functional_model
from zoo.graphs import without_collection
from zoo.hub import NEEDED
from zoo.hub import SCHEME
from zoo.hub import SUMS
from zoo.hub import Address
from zoo.hub import digest
from zoo.hub import fetch
from zoo.hub import parse_address
from zoo.hub import read_sums
from zoo.hub import repository_of
from zoo.hub import tag_of
from zoo.options import check_integer
from zoo.registry import BUNDLED
from zoo.registry import list_models
from zoo.registry import published_weights
from zoo.registry import quoted
from zoo.registry import read_index
from zoo.registry import unknown_name
from zoo.restoring import read_model
from zoo.safety import Refused
from zoo.safety import check_contents
from zoo.storage import store_compactly

# Best of five on the validation splits of `python -m training benchmark finetuning` (results/finetuning.csv).
FINETUNING_RATE = 1e-3
VERY_DEEP = 1000  # layers of Keras; nopre-1001 has 2,676, ResNet-164 some 440
OWN = "the model's own"  # default of classifier_activation
LINEAR = (  # layers behind which logits still are logits
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Rescaling,
    keras.layers.Reshape,
)


def load_model(
    name,
    num_classes=None,
    classifier_activation=OWN,
    features=False,
    revision=None,
    compile=True,
    deploy=False,
):
    """Loads a pretrained model by name, from a folder, or from anyone's Hub repository.

    A published name is looked for in the wheel, then in the Hub's cache, then
    on the Hub (`ZOO_HUB_NAMESPACE`, default `keras-mpelu`). Its files are
    checked against the sums pinned in this package, on every load; those of
    another repository against the sums that the Hub reports, offline too.
    Nothing falls back to random weights, and nothing in a file is run: a model
    with a Lambda, with an unknown class or with sizes that its weights do not
    bear out is refused.

    Args:
        name: A name from `zoo.list_models(pretrained=True)`, or the path of a
            folder (where it is called like a published model, `"./name"` or a
            `pathlib.Path`), or `hf://namespace/name` or
            `hf://namespace/name@revision` for a model on the Hub in Keras's
            directory format.
        num_classes: Classes of the head. Another number than the model's own
            gives a new, randomly initialised head, and a line on stderr that
            says which weights are new. A head of 1 takes another activation
            than softmax: `"sigmoid"` for two classes, `None` for a number.
        classifier_activation: `"softmax"`, `None` for logits, or the name of
            another Keras activation, such as `"sigmoid"` for labels of which
            several may hold. By default the model's own, which is softmax for
            every published model.
        features: `True` gives the model up to its pooled features, without
            head and not compiled.
        revision: Revision of the Hub repository: a branch, a tag or a commit.
            For a published name it skips the bundled folder, and its files must
            be those pinned here all the same. A folder has none.
        compile: Whether to compile for fine-tuning: sparse cross-entropy,
            accuracy and Adam with a rate of 1e-3. (A model that ends in a
            sigmoid gets the binary cross-entropy, a model of numbers, by
            `python -m training finetune`, the mean squared error; another that
            does not end in softmax or logits is left as it is, and a line on
            stderr says so.)
        deploy: `True` gives the model for inference only, by `zoo.deploy`:
            batch norms are folded into the convolutions, the weights are
            frozen, nothing is compiled for training, and outputs are the same
            to 1e-4. It goes with `classifier_activation` and `features`, not
            with a `num_classes` that makes a new head, which could not be
            trained any more: fine-tune without, and deploy what came of it.

    Returns:
        A functional `keras.Model`, in the dtype that it was saved in, whatever
        Keras's dtype policy: float32 for every published model. Under another
        policy `create_model`, with the same options, builds the network, and
        its `set_weights` takes what `get_weights` of this one gives.

    Raises:
        ValueError: unknown name, damaged or foreign files; `deploy` with a new
            head.
        OSError: no such folder, or the Hub cannot be reached.

    Example:

    >>> model = zoo.load_model("snn_mlp4.digits")
    >>> model.predict(np.zeros((1, 64)), verbose=0).shape
    (1, 10)
    """
    return load_folder(*find_folder(name, revision), num_classes, classifier_activation, features, compile, deploy)


def load_folder(
    folder,
    pin=None,
    num_classes=None,
    classifier_activation=OWN,
    features=False,
    compile=True,
    deploy=False,
):
    """`load_model` for what `find_folder` returned, so that what stands beside the weights is of the same version."""
    if features and (num_classes is not None or classifier_activation != OWN):
        raise ValueError("features=True leaves the classifier out; leave out num_classes and classifier_activation too")
    check_folder(folder, pin)
    try:
        model = read_model(folder, known=pin is not None)
    except Refused:
        raise
    except Exception as error:  # a foreign or broken folder fails in Keras in any of a dozen ways
        version = keras.__version__
        raise ValueError(f"{folder} is not a model that Keras {version} can load: {words_of_keras(error)}") from error
    if features:
        outputs = head_layers(model)[0].input
        if len(outputs.shape) == 4:  # a network that classifies a map before it pools it
            outputs = keras.layers.GlobalAveragePooling2D("channels_last", name="features")(outputs)
        model = functional_model(_inputs(model), outputs, f"{model.name}_features")
        return deployed(model) if deploy else model
    if deploy and num_classes not in (None, model.output_shape[-1]):
        raise ValueError(
            f"num_classes={num_classes!r} gives {model.name} a new head, with random weights, and deploy=True freezes "
            "it; fine-tune without deploy=True, then deploy the fine-tuned model: zoo.deploy.deploy(model)"
        )
    model = _with_head(model, num_classes, classifier_activation)
    if deploy:
        return deployed(model)
    if compile:
        try:
            compile_for_finetuning(model)
        except ValueError as error:  # anyone's model may be something else, and is as usable without
            print(f"not compiled: {error}", file=sys.stderr)
    return model


def words_of_keras(error):
    """Why Keras failed, in one line: the innermost cause, which it puts last, behind the whole config."""
    words = " ".join(str(error).rpartition("Exception encountered: ")[2].split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:300]} ..."


def compile_for_finetuning(model, learning_rate=FINETUNING_RATE):
    """Compiles a model in place, with Adam: cross-entropy and accuracy, or the squared error of numbers.

    Raises:
        ValueError: which loss its outputs are for cannot be told.
    """
    optimizer = keras.optimizers.Adam(learning_rate)
    if predicts_number(model):
        model.compile(optimizer, "mean_squared_error", metrics=["mean_absolute_error"])
        return
    if activation_of(last_operation(model)) == "sigmoid" and len(model.outputs) == 1:
        model.compile(optimizer, "binary_crossentropy", metrics=["binary_accuracy"])
        return
    check_classifier(model)
    if not (ends_in_softmax(model) or ends_in_logits(model)):
        last = last_operation(model)
        raise ValueError(
            f"{model.name} ends in {type(last).__name__} {last.name!r}, of which is not known whether it gives "
            "probabilities or logits; compile it for its own loss"
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not ends_in_softmax(model))
    model.compile(optimizer, loss, metrics=["accuracy"])


def predicts_number(model):
    """Whether the output is one number that is brought to its scale at the end, as `training.finetune` makes it."""
    return isinstance(last_operation(model), keras.layers.Rescaling) and model.output_shape[1:] == (1,)


def last_operation(model, through=()):
    """The layer or operation that a model's output is from, be it in a model within the model.

    Args:
        model: The model.
        through: Layers of one input that are looked through.
    """
    operations = getattr(model, "operations", model.layers)  # a Sequential has layers alone
    last = next((one for one in reversed(operations) if not isinstance(one, through)), operations[0])
    inner = isinstance(last, keras.Model) and len(getattr(last, "outputs", None) or ()) == 1
    return last_operation(last, through) if inner else last


def activation_of(operation):
    """Name of the activation of a layer, or `None`."""
    activation = getattr(operation, "activation", None)
    return getattr(activation, "__name__", activation)


def ends_in_softmax(model):
    """Whether the outputs are known to be probabilities."""
    last = last_operation(model)
    # keras.ops.softmax in a graph is an operation of that name, which Keras has no public class for.
    return type(last).__name__ == "Softmax" or activation_of(last) == "softmax"


def ends_in_logits(model):
    """Whether the outputs are known to be what a softmax takes: linear ones of a kernel, or called linear."""
    last = last_operation(model, through=LINEAR)
    return activation_of(last) == "linear" and (hasattr(last, "kernel") or isinstance(last, keras.layers.Activation))


def gives_probabilities(model, outputs):
    """Whether outputs of a model are probabilities of classes, else logits; where its graph does not tell, they do."""
    if ends_in_softmax(model) or ends_in_logits(model):
        return ends_in_softmax(model)
    return sum_to_one(outputs)  # such as the mean of several networks' probabilities


def sum_to_one(outputs):
    """Whether every row is of numbers from 0 that sum to 1, to the digits of bfloat16."""
    return bool((outputs >= 0).all() and np.allclose(outputs.astype("float64").sum(axis=-1), 1, atol=1e-2))


def check_classifier(model):
    """Raises ValueError unless the outputs may be the probabilities or the logits of two or more classes."""
    activation = activation_of(last_operation(model))
    shape = model.output_shape
    of_classes = isinstance(shape, tuple) and len(shape) == 2 and shape[-1] >= 2
    if not of_classes or activation not in ("softmax", "linear", None):
        raise ValueError(
            f"{model.name} has outputs of shape {shape} from activation {activation}; expected softmax or logits of "
            "two or more classes, (batch, classes); predict with model.predict, and compile it for its own loss"
        )


def with_logits(model):
    """The model without the softmax of its last layer; any other as it is, one that ends in a Softmax layer too."""
    last = last_operation(model)
    if activation_of(last) == "softmax" and last is model.layers[-1] and _head_start(model) is not None:
        return _with_head(model, None, None)
    return model


def _inputs(model):
    """One tensor where there is one: a model made of a list of one warns when it is called with an array."""
    return model.inputs[0] if len(model.inputs) == 1 else model.inputs


def _head_start(model):
    """Index of the first layer of the classifier, or `None`: a Dense at the end, else the layer of that name."""
    if isinstance(model.layers[-1], keras.layers.Dense):
        return len(model.layers) - 1
    return next((index for index, layer in enumerate(model.layers) if layer.name == "classifier"), None)


def head_layers(model):
    """The layers of the classifier, in order: one Dense, or in Network in Network a convolution and what follows it.

    Raises:
        ValueError: the model has no such head.
    """
    start = _head_start(model)
    if start is None:
        last = model.layers[-1]
        raise ValueError(
            f"model {model.name!r} ends in a {type(last).__name__} layer {last.name!r}, not in a Dense classifier; "
            "load it without num_classes, classifier_activation or features"
        )
    return model.layers[start:]


def _with_head(model, num_classes, classifier_activation):
    """The model with the asked head: its own, or a new one for other classes or another activation."""
    if classifier_activation != OWN:
        try:
            keras.activations.get(classifier_activation)
        except (TypeError, ValueError):
            raise ValueError(
                "classifier_activation is 'softmax', None for logits, or another activation of Keras, such as "
                f"'sigmoid'; received {classifier_activation!r}"
            ) from None
    if num_classes is None and classifier_activation == OWN:
        return model
    if predicts_number(model):
        raise ValueError(
            f"model {model.name!r} predicts a number, so it has no classes; load it without num_classes and "
            "classifier_activation"
        )
    head = head_layers(model)
    own_classes = model.output_shape[-1]
    if num_classes is None:
        num_classes = own_classes
    check_integer("num_classes", num_classes)
    num_classes = int(num_classes)  # NumPy's integers are none to Keras
    softmax = classifier_activation == "softmax" or (classifier_activation == OWN and ends_in_softmax(model))
    if num_classes == 1 and softmax:
        raise ValueError(
            "num_classes=1 with a softmax has the output 1 for everything; give classifier_activation='sigmoid' for "
            "two classes, or None for a number"
        )
    outputs = head[0].input
    new = []
    for layer in head:
        config = layer.get_config()
        config.update({size: num_classes for size in ("units", "filters") if size in config})
        if layer is head[-1] and classifier_activation != OWN:
            if "activation" not in config:
                raise ValueError(
                    f"model {model.name!r} ends in a {type(layer).__name__} layer {layer.name!r}, which has no "
                    "activation to replace; load it without classifier_activation"
                )
            config["activation"] = keras.activations.serialize(keras.activations.get(classifier_activation))
        new_layer = type(layer).from_config(config)
        outputs = new_layer(outputs)
        if num_classes == own_classes:
            new_layer.set_weights(layer.get_weights())
        new += new_layer.weights
    if num_classes != own_classes:
        names = ", ".join(f"{w.path} {tuple(w.shape)}" for w in new)
        kept = len(model.weights) - len(new)
        print(f"{model.name}: new head for {num_classes} classes; new weights: {names}; {kept} kept", file=sys.stderr)
    return functional_model(_inputs(model), outputs, model.name)


def find_folder(name, revision=None):
    """Where the files of a model are, downloaded if need be.

    Returns:
        `(folder, pin)`; `pin` is the sha256 of SHA256SUMS for a published
        model, `None` for a folder given by path and for another's repository.
    """
    is_path = isinstance(name, os.PathLike)  # a folder in any case: pathlib drops the "./" of "./name"
    name = os.fspath(name)
    if not name:
        raise ValueError("the name is empty; give one of `python -m zoo list --pretrained`, or the path of a folder")
    if name.startswith(SCHEME):
        return _fetch(_with_revision(parse_address(name), revision), None), None
    published = name in read_index()["models"]
    if is_path or (not published and (os.path.exists(name) or os.sep in name)):
        if os.path.isfile(name):
            raise NotADirectoryError(
                f"{quoted(name)} is a file; a model of zoo.save_model is a folder. A .keras file is for "
                "keras.saving.load_model, after import keras_mpelu"
            )
        if not os.path.isdir(name):
            raise FileNotFoundError(
                f"no folder {quoted(name)}; give an existing folder, or a name from `python -m zoo list`"
            )
        if revision is not None:
            raise ValueError(f"revision {quoted(revision)} is of a repository on the Hub; {quoted(name)} is a folder")
        return pathlib.Path(name), None
    if not published:
        if name in read_index()["architectures"]:
            own = ", ".join(list_models(f"{name}.*", pretrained=True)) or "none yet"
            raise ValueError(
                f"{name!r} is an architecture; with pretrained weights: {own}. zoo.create_model({name!r}) builds it "
                "with random ones"
            )
        raise unknown_name(name, read_index()["models"], "pretrained model")
    pin = published_weights()[name]
    bundled = BUNDLED / name
    if revision is None and bundled.is_dir():
        return bundled, pin
    return _fetch(Address(repository_of(name), revision or tag_of(pin)), pin), pin


def _with_revision(address, revision):
    if None not in (revision, address.revision) and revision != address.revision:
        raise ValueError(f"the address asks for revision {address.revision!r}, the argument for {revision!r}; give one")
    return Address(address.repository, address.revision or revision)


def _fetch(address, pin):
    try:
        return fetch(address, pin)
    except OSError as error:
        raise OSError(f"{error}; or give the path of a folder") from error


def check_folder(folder, pin=None):
    """Checks a folder against its SHA256SUMS, and that against its pin.

    Args:
        folder: The folder.
        pin: Expected sha256 of SHA256SUMS. `None` for a folder of the user's
            own, where SHA256SUMS may be missing.

    Raises:
        ValueError: a file is missing or differs from its sum.
    """
    folder = pathlib.Path(folder)
    mend = "reinstall keras-mpelu, or delete the folder and load again" if pin else "save the model again"
    for file in NEEDED:
        if not (folder / file).is_file():
            raise ValueError(f"{folder} has no {file}; a folder of weights holds {', '.join(NEEDED)}; {mend}")
    if not (folder / SUMS).is_file():
        if pin:
            raise ValueError(f"{folder} has no {SUMS}; {mend}")
        return
    if pin and sha256(folder / SUMS) != pin:
        raise ValueError(
            f"{folder / SUMS} is not the published one: sha256 {sha256(folder / SUMS)}, expected {pin}; {mend}"
        )
    sums = read_sums(folder / SUMS)
    for file in NEEDED:
        if file not in sums:
            raise ValueError(f"{folder / SUMS} has no sum of {file}; {mend}")
    for file, expected in sums.items():
        if (folder / file).is_file() and sha256(folder / file) != expected.digest:
            raise ValueError(
                f"{folder / file} is damaged or altered: sha256 {sha256(folder / file)}, expected {expected.digest}; "
                f"{mend}"
            )


def sha256(path):
    return digest(path, "sha256")


def save_model(model, folder, details=None, card=None, files=None, overwrite=False):
    """Saves a model as a folder that `zoo.load_model` and plain Keras load.

    The folder appears complete or not at all. Kernels all of whose values
    float16 holds exactly lie in it as float16; no value changes.

    Args:
        model: A functional or sequential `keras.Model` of one input and one
            output.
        folder: Folder to make.
        details: What to keep in `recipe.json`; `class_names` and
            `feature_names` are what `python -m zoo predict` prints and expects;
            `base_model` (a published name or `hf://` address), `license` and
            `results` go to the card.
        card: Text of `README.md`; a short one is made if `None`.
        files: `{name: bytes}` of further files.
        overwrite: Whether an existing folder is replaced.

    Returns:
        The path of the folder.

    Raises:
        FileExistsError: the folder exists and `overwrite` is `False`, or it is
            a file.
        ValueError: the model is of another kind or does not run, could not be
            loaded again, or the details do not fit it.

    Example:

    >>> model = zoo.create_model("snn_mlp2", width=8)
    >>> folder = zoo.save_model(model, "my_model")
    >>> zoo.load_model("./my_model").count_params() == model.count_params()
    True
    """
    folder, details = pathlib.Path(folder), _as_json(details or {})
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists; give another folder, or delete it")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, which is never replaced by a folder; give another folder")
    model = _plain(model)
    check_details(details, "details", model)
    inputs = golden_inputs(model)
    outputs = run(model, inputs)
    if outputs.dtype.kind not in "biuf":  # bfloat16, which a file of NumPy does not know
        outputs = outputs.astype("float32")
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with deep_graphs():
            model.save(new, zipped=False)
        _fit_to_weights(new / "config.json")
        store_compactly(new / "model.weights.h5")
        try:
            check_contents(new)
        except Exception as error:  # Keras's words on whatever the model holds
            words = words_of_keras(error).replace(f"{new}{os.sep}", "")
            raise ValueError(
                f"{model.name} could not be loaded again: {words}. Nothing was saved; classes of your own are "
                "registered by keras.saving.register_keras_serializable()"
            ) from error
        np.savez_compressed(new / "golden.npz", inputs=inputs, outputs=outputs)
        (new / "recipe.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
        (new / "README.md").write_text(card or short_card(model, folder.name, details), encoding="utf-8")
        for file, content in (files or {}).items():
            (new / file).write_bytes(content)
        with contextlib.suppress(OSError):  # Keras's folder for assets, where it is empty
            (new / "assets").rmdir()
        write_sums(new)
        new.chmod(0o755)  # mkdtemp makes it private
        put_in_place(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):  # where somebody else has put something
            for parent in made:
                parent.rmdir()
        raise
    return folder


def _fit_to_weights(path):
    """Makes a config fit what Keras saves: LoRA's matrices are in the kernels there, and inner models not compiled."""

    def fitting(part):
        if part.get("compile_config"):
            part["compile_config"] = {}
        if str(part.get("module")).startswith("keras.") and isinstance(part.get("config"), dict):
            for key in ("lora_rank", "lora_alpha"):
                part["config"].pop(key, None)
        return part

    fitted = json.loads(path.read_text(encoding="utf-8"), object_hook=fitting)
    path.write_text(json.dumps(fitted), encoding="utf-8")


def _as_json(details):
    """The details as recipe.json will give them back; NumPy's numbers and arrays become Python's."""

    def of_numpy(value):
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"a {type(value).__name__}")

    try:
        return json.loads(json.dumps(details, default=of_numpy))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"details hold what JSON cannot ({error}); give texts, numbers, truth values, lists and dictionaries"
        ) from error


def _plain(model):
    """The model without compile state, as it is saved: its optimizer may be of a class that a reader does not have.

    Raises:
        ValueError: it is not a graph from one input to one output.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"expected a keras.Model to save, received {type(model).__name__}")
    if not getattr(model, "inputs", None):  # Keras's own attribute; subclassed and unbuilt models lack it
        raise ValueError(
            f"{model.name!r} is a {type(model).__name__} without a graph, which could not be loaded without its code; "
            "make it by keras.Model(inputs, outputs), or begin a Sequential with keras.Input"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"{model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one of each; "
            "Keras's model.save(folder, zipped=False) makes a folder that zoo.load_model loads, without card and sums"
        )
    return functional_model(model.inputs[0], model.outputs[0], model.name)


def write_sums(folder):
    """Writes SHA256SUMS for all other files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    (folder / SUMS).write_text("".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files))


def put_in_place(new, folder):
    """Renames a finished folder to its place; an old one is deleted only after that.

    A kill between the two renames leaves the old one beside its place, as .NAME.old.PROCESS.
    """
    old = folder.with_name(f".{folder.name}.old.{os.getpid()}")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def golden_inputs(model):
    """Four inputs made by code: images of smooth gradients, codes in turn, or rows within two deviations of the means.

    As many as a batch has, where the model fixes that.

    Raises:
        ValueError: the model does not take numbers.
    """
    shape, dtype = (model.inputs[0].shape[0] or 4, *example_shape(model)), model.inputs[0].dtype
    count = int(np.prod(shape))
    if dtype in ("string", "complex64", "complex128"):
        raise ValueError(f"{model.name!r} takes inputs of dtype {dtype}, expected numbers")
    if len(shape) == 4 and dtype not in ("bool", "int8"):
        return (np.arange(count) * 7 // 5 % 256).astype("uint8").reshape(shape)
    whole = dtype == "bool" or dtype.startswith(("int", "uint"))
    if (codes := _codes(model)) or whole:
        return (np.arange(count) % (codes or 2)).astype(dtype if whole else "float32").reshape(shape)
    rows = 2 * np.sin(np.arange(count)).reshape(shape)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and getattr(layer, "mean", None) is not None:
            mean, variance = (keras.ops.convert_to_numpy(value) for value in (layer.mean, layer.variance))
            if mean.size == shape[-1]:
                rows = rows * np.sqrt(variance).reshape(-1) + mean.reshape(-1)
            elif any(isinstance(layer, OneHotColumns) for layer in model.layers):
                rows = _golden_codes(model, rows, mean, np.sqrt(variance))
    return rows.astype("float32")


def _codes(model):
    """How many codes all embeddings of a model know; `None` where it has none."""
    layers, known = list(model.layers), []
    for layer in layers:
        if isinstance(layer, keras.Model):
            layers += layer.layers
        elif isinstance(layer, keras.layers.Embedding):
            known.append(layer.input_dim)
        elif isinstance(layer, keras.layers.CategoryEncoding):
            known.append(layer.num_tokens)
    return min(known, default=None)


def _golden_codes(model, rows, mean, deviation):
    sizes = next(layer.sizes for layer in model.layers if isinstance(layer, OneHotColumns))
    place = 0
    for column, size in enumerate(sizes):
        if size:
            rows[:, column] = np.arange(len(rows)) % size
        else:
            rows[:, column] = rows[:, column] * deviation.flat[place] + mean.flat[place]
        place += max(size, 1)
    return rows


def run(model, inputs):
    """`predict`, where the inputs may not be what the model takes.

    Raises:
        ValueError: it does not run on them.
    """
    try:
        return predict(model, inputs)
    except Exception as error:  # a layer may fail in any way
        raise ValueError(
            f"{model.name} does not run on inputs of shape {inputs.shape[1:]}: {words_of_keras(error)}"
        ) from error


def predict(model, inputs, batch_size=256, progress=False):
    """Outputs of a model, in batches of one size.

    The last batch is padded, so that every backend compiles one shape only. A
    very deep network is not compiled for a single batch: that takes longer
    than to run it layer by layer.

    Raises:
        ValueError: there are no rows.
    """
    if not len(inputs):
        raise ValueError(f"no rows for {model.name}: received inputs of shape {inputs.shape}, expected one row or more")
    if len(inputs) <= batch_size and len(model.layers) >= VERY_DEEP:
        return _layer_by_layer(model, inputs)
    batch_size = model.inputs[0].shape[0] or min(batch_size, len(inputs))
    bar = keras.utils.Progbar(len(inputs), unit_name="row") if progress else None
    outputs = []
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        missing = batch_size - len(batch)
        padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        outputs.append(np.asarray(model.predict_on_batch(padded))[: len(batch)])
        if bar:
            bar.update(start + len(batch))
    return np.concatenate(outputs)


def _layer_by_layer(model, inputs):
    with deep_graphs(), without_collection():
        if keras.backend.backend() != "torch":
            return keras.ops.convert_to_numpy(model(inputs, training=False))
        import torch

        with torch.no_grad():
            return keras.ops.convert_to_numpy(model(inputs, training=False))
