"""Recipes: everything that decides a training run, under the name of the model it makes."""

import dataclasses

from zoo.registry import list_models
from zoo.registry import unknown_name

# MPELU's own weights; anchored at our layer names because batch norm has a `beta` too.
MPELU_WEIGHTS = r"_act\d*/(alpha|beta)$"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a pretrained model is made.

    A field that does not exist is a TypeError; `dataclasses.replace` makes a
    variant. The name is `arch.tag`; the data set is derived from it.

    Args:
        name: `arch.tag`, such as `"mpelu_resnet20.cifar100"`.
        epochs: Passes over the training set; the schedule is made for them.
        batch_size: Rows in a step; a last, smaller batch is left out.
        learning_rate: Peak learning rate.
        warmup_epochs: Epochs of linear warm-up from 0; then cosine to 0.
        momentum: Momentum, in Nesterov's form.
        l2: Coupled L2 on every weight (`training.CoupledSGD`).
        multipliers: Rate and decay multipliers by pattern, likewise.
        augmentation: `"pad_crop_flip"` or `"none"`.
        dtype: Keras dtype policy of the training; published weights are
            float32 in any case.
        seeds: Named before the runs; the first one is published.
        overrides: Arguments of the builder.
        notes: Where the values come from, and what differs from the paper.

    Example:

    >>> get_recipe("mpelu_resnet20.cifar100").dataset
    'cifar100'
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: int = 0
    momentum: float = 0.9
    l2: float = 0.0
    multipliers: tuple = ()
    augmentation: str = "none"
    dtype: str = "float32"
    seeds: tuple = (0,)
    overrides: dict = dataclasses.field(default_factory=dict)
    notes: str = ""

    def __post_init__(self):
        for field in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{self.name}: {field} is above 0; received {getattr(self, field)!r}")
        if self.augmentation not in ("none", "pad_crop_flip"):
            raise ValueError(f"augmentation is 'none' or 'pad_crop_flip'; received {self.augmentation!r}")

    @property
    def arch(self):
        return self.name.partition(".")[0]

    @property
    def dataset(self):
        """Name of the data set: the tag up to its recipe, `-` for `/` after uci."""
        tag = self.name.partition(".")[2]
        return tag.replace("uci-", "uci/", 1) if tag.startswith("uci-") else tag.partition("-")[0]


# Seen in the pictures of the runs, and left as it was: a recipe is not changed after its test set was read.
MPELU_FOUND = (
    " In the published run of depth 20 this decay drove alpha and beta to 0 in most layers (curves.png), so the "
    "network ended close to a ReLU one; a smaller decay multiplier is the next thing to try, on a validation split."
)


def _cifar_resnet(name):
    """50 epochs, for two CPU cores: a short schedule in place of the paper's 200 epochs.

    Batch 128, momentum 0.9 and peak rate 0.1 are the paper's (appendix). L2 of
    5e-4 with a cosine schedule is common for short CIFAR-100 schedules (the
    paper: 1e-4 and steps). alpha and beta have the paper's rate multiplier 5
    and the paper's own L2 of 1e-3 (there 10 x 1e-4, here 2 x 5e-4).
    """
    mpelu = name.startswith("mpelu")
    return Recipe(
        name=name,
        epochs=50,
        batch_size=128,
        learning_rate=0.1,
        warmup_epochs=1,
        l2=5e-4,
        multipliers=((MPELU_WEIGHTS, 5.0, 2.0),) if mpelu else (),
        augmentation="pad_crop_flip",
        dtype="mixed_bfloat16",
        notes=" ".join(_cifar_resnet.__doc__.split()) + (MPELU_FOUND if mpelu else ""),
    )


def _cifar_nopre(name):
    """The paper's appendix: 200 epochs, here with a cosine in place of two steps.

    Batch 128, L2 1e-4, peak rate 0.1; alpha and beta at 5 times the rate and 10
    times the decay, as in the authors' code.
    """
    return Recipe(
        name=name,
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        warmup_epochs=1,
        l2=1e-4,
        multipliers=((MPELU_WEIGHTS, 5.0, 10.0),),
        augmentation="pad_crop_flip",
        dtype="mixed_bfloat16",
        notes=" ".join(_cifar_nopre.__doc__.split()),
    )


# (depth, data set) -> width, epochs, peak rate, dropout. Depth and epochs were set beforehand; the others are the best
# on a validation split of the training rows, by `python -m training benchmark tabular` (results/tabular_choices.csv);
# of equals the narrowest, then the lowest rate, then the higher dropout.
TABULAR = {
    (4, "digits"): (64, 60, 0.003, 0.05),
    (2, "wine"): (64, 100, 0.001, 0.05),
    (4, "breast_cancer"): (64, 60, 0.01, 0.05),
}


def _tabular(name, width, epochs, rate, dropout):
    """The paper's network and plain SGD (here with momentum 0.9 and a cosine schedule), batch 16.

    Width, rate and dropout were chosen on a validation split of the training rows; the rest was set beforehand.
    """
    return Recipe(
        name=name,
        epochs=epochs,
        batch_size=16,
        learning_rate=rate,
        l2=1e-4,
        overrides={"width": width, "dropout": dropout},
        notes=" ".join(_tabular.__doc__.split()),
    )


def _recipes():
    """All recipes by name; read from the index, so no backend is imported."""
    table = {}
    for arch in list_models("*_resnet*"):
        name = f"{arch}.cifar100"
        table[name] = _cifar_nopre(name) if "nopre" in arch else _cifar_resnet(name)
    for (depth, dataset), choice in TABULAR.items():
        name = f"snn_mlp{depth}.{dataset}"
        table[name] = _tabular(name, *choice)
    return table


def get_recipe(name):
    """The recipe of a pretrained model.

    Args:
        name: `arch.tag`, such as `"mpelu_resnet20.cifar100"`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: there is no such recipe; close names are listed.

    Example:

    >>> get_recipe("mpelu_resnet20.cifar100").epochs
    50
    """
    table = _recipes()
    if name not in table:
        raise unknown_name(name, table, "recipe")
    return table[name]
