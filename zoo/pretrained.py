"""Pretrained models by name, ready to predict, to be fine-tuned and to be deployed.

Where the files are and that they are whole: zoo/folders.py; what may be in them:
zoo/safety.py; how Keras gets them: zoo/restoring.py.
"""

import sys

import keras

from zoo.adaptation import Unadaptable
from zoo.deploy import deploy as deployed
from zoo.details import read_details
from zoo.folders import check_folder
from zoo.folders import find_folder
from zoo.heads import OWN
from zoo.heads import activation_of
from zoo.heads import check_classifier
from zoo.heads import ends_in_logits
from zoo.heads import ends_in_softmax
from zoo.heads import last_operation
from zoo.heads import predicts_number
from zoo.heads import with_head
from zoo.heads import without_head
from zoo.messages import words_of_keras
from zoo.restoring import read_model
from zoo.safety import Refused

# Best of five on the validation splits of `python -m training benchmark finetuning` (results/finetuning.csv).
FINETUNING_RATE = 1e-3


def load_model(
    name,
    num_classes=None,
    classifier_activation=OWN,
    features=False,
    revision=None,
    compile=True,
    deploy=False,
    input_shape=None,
    dtype=None,
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
        input_shape: Height, width and channels of the images where they are not
            the model's own, such as `(64, 64, 3)`; height and width may be
            `None`, for any. The weights are the same, so it is for fine-tuning
            on larger images: the figures of the card are of its own size.
        dtype: A dtype policy in place of the model's own, which is float32 for
            every published model, whatever Keras's global one:
            `"mixed_bfloat16"` to fine-tune or predict faster on a GPU. What
            scales the inputs and the classifier keep theirs.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: unknown name, damaged or foreign files; `deploy` with a new
            head; an `input_shape` or a `dtype` that the model cannot have.
        OSError: no such folder, or the Hub cannot be reached.

    Example:

    >>> model = zoo.load_model("snn_mlp4.digits")
    >>> model.predict(np.zeros((1, 64)), verbose=0).shape
    (1, 10)
    """
    found = find_folder(name, revision)
    return load_folder(
        *found, num_classes, classifier_activation, features, compile, deploy, input_shape=input_shape, dtype=dtype
    )


def load_folder(
    folder,
    pin=None,
    num_classes=None,
    classifier_activation=OWN,
    features=False,
    compile=True,
    deploy=False,
    input_shape=None,
    dtype=None,
):
    """`load_model` for what `find_folder` returned, so that what stands beside the weights is of the same version."""
    if features and (num_classes is not None or classifier_activation != OWN):
        raise ValueError("features=True leaves the classifier out; leave out num_classes and classifier_activation too")
    check_folder(folder, pin)
    try:
        model = read_model(folder, pin is not None, input_shape, dtype)
    except (Refused, Unadaptable):
        raise
    except Exception as error:  # a foreign or broken folder fails in Keras in any of a dozen ways
        asked = "" if input_shape is None else f" for images of shape {input_shape!r}"
        asked += "" if dtype is None else f" in {dtype!r}"
        version = keras.__version__
        raise ValueError(
            f"{folder} is not a model that Keras {version} can load{asked}: {words_of_keras(error)}"
        ) from error
    if deploy and num_classes not in (None, model.output_shape[-1]):
        raise ValueError(
            f"num_classes={num_classes!r} gives {model.name} a new head, with random weights, and deploy=True freezes "
            "it; fine-tune without deploy=True, then deploy the fine-tuned model: zoo.deploy.deploy(model)"
        )
    model = without_head(model) if features else with_head(model, num_classes, classifier_activation)
    if dtype is None and any(layer.dtype_policy.name == "mixed_float16" for layer in model._flatten_layers()):
        dtype = "mixed_float16"  # as it was saved; a config has none of the model itself
    if dtype is not None:  # by which `compile` scales the loss in float16
        model.dtype_policy = dtype
    if deploy:
        return deployed(model)
    if compile and not features:
        try:
            # Of a single linear unit nothing tells whether it gives a number or a logit, but that it was asked for.
            compile_for_finetuning(model, number=num_classes == 1 and classifier_activation is None)
        except ValueError as error:  # anyone's model may be something else, and is as usable without
            print(f"not compiled: {error}", file=sys.stderr)
    return model


def load_with_details(name):
    """A model, not compiled, and what recipe.json says of it (`zoo.details`), from one and the same folder."""
    folder, pin = find_folder(name)
    model = load_folder(folder, pin, compile=False)
    return model, read_details(folder, model)


def compile_for_finetuning(model, learning_rate=FINETUNING_RATE, number=False):
    """Compiles a model in place, with Adam: cross-entropy and accuracy, or the squared error of numbers.

    Args:
        model: The model.
        learning_rate: That of Adam.
        number: Whether the output is known to be a number.

    Raises:
        ValueError: which loss its outputs are for cannot be told.
    """
    optimizer = keras.optimizers.Adam(learning_rate)
    if number or predicts_number(model):
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
