"""Recipes: everything that decides a training run, under the name of the model it makes."""

import dataclasses
import functools
import json
import pathlib
import re

from zoo.datasets import SCIKIT_LEARN
from zoo.messages import unknown_name
from zoo.registry import list_models
from zoo.registry import model_info
from zoo.uci import tasks

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
        learning_rate: Peak learning rate, or the first one of `"steps"`.
        schedule: `"cosine"` to 0, or `"steps"`: `learning_rate`, then `rates`.
        rates: `((epoch, rate), ...)`: the rate after so many epochs.
        warmup_epochs: Epochs of linear warm-up from 0, before a cosine.
        momentum: Momentum.
        nesterov: Whether in Nesterov's form.
        l2: Coupled L2 on every weight (`training.CoupledSGD`).
        multipliers: Rate and decay multipliers by pattern, likewise.
        augmentation: `"pad_crop_flip"` or `"none"`.
        erase: Side in pixels of a square that is blanked; 0 is none.
        mixup: Parameter of mixup's Beta distribution; 0 is none.
        cutmix: The same of CutMix; with both, each batch gets one of the two.
        label_smoothing: Share of each target spread over all classes.
        teachers: Names of pretrained models of the same classes whose softened
            outputs are learnt too (`training.distillation`).
        distillation: Share of the loss that is the divergence from the
            teachers, `temperature^2 * KL(theirs, the network's)`.
        temperature: By what the logits of both are divided there.
        average: Momentum of a moving average of the weights; 0 is none.
        publish: `"last"` weights or their `"average"`; chosen on a validation
            split.
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
    schedule: str = "cosine"
    rates: tuple = ()
    warmup_epochs: float = 0
    momentum: float = 0.9
    nesterov: bool = True
    l2: float = 0.0
    multipliers: tuple = ()
    augmentation: str = "none"
    erase: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    teachers: tuple = ()
    distillation: float = 0.0
    temperature: float = 1.0
    average: float = 0.0
    publish: str = "last"
    dtype: str = "float32"
    seeds: tuple = (0,)
    overrides: dict = dataclasses.field(default_factory=dict)
    notes: str = ""

    def __post_init__(self):
        for field in ("epochs", "batch_size", "learning_rate", "temperature"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{self.name}: {field} is above 0; received {getattr(self, field)!r}")
        for field, values in (
            ("augmentation", ("none", "pad_crop_flip")),
            ("schedule", ("cosine", "steps")),
            ("publish", ("last", "average")),
            # float64 is for tests/test_backends.py; float16 would need a scaled loss.
            ("dtype", ("float32", "float64", "mixed_bfloat16")),
        ):
            if getattr(self, field) not in values:
                raise ValueError(f"{self.name}: {field} is one of {values}; received {getattr(self, field)!r}")
        for field in ("average", "label_smoothing"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} is at least 0 and below 1; received {getattr(self, field)!r}")
        if self.rates and self.schedule != "steps":
            raise ValueError(f"{self.name}: rates belong to schedule='steps'; received {self.schedule!r}")
        if self.warmup_epochs and self.schedule != "cosine":
            raise ValueError(f"{self.name}: warmup_epochs belong to schedule='cosine'; received {self.schedule!r}")
        if not 0 <= self.distillation <= 1 or bool(self.distillation) != bool(self.teachers):
            raise ValueError(
                f"{self.name}: distillation is a share of the loss, above 0 with teachers and 0 without; received "
                f"{self.distillation!r} and teachers {self.teachers!r}"
            )
        if not isinstance(self.teachers, tuple) or len(set(self.teachers)) < len(self.teachers):
            raise ValueError(f"{self.name}: teachers is a tuple of different names; received {self.teachers!r}")
        if self.teachers and (self.mixup or self.cutmix):
            raise ValueError(
                f"{self.name}: teachers are asked about rows, not about mixtures of two; leave mixup and cutmix out"
            )
        if self.publish == "average" and not self.average:
            raise ValueError(f"{self.name}: publish='average' needs average > 0; received {self.average!r}")

    @property
    def arch(self):
        return self.name.partition(".")[0]

    @property
    def dataset(self):
        """Name of the data set: the tag up to its recipe, `-` for `/` after uci."""
        tag = self.name.partition(".")[2]
        return tag.replace("uci-", "uci/", 1) if tag.startswith("uci-") else tag.partition("-")[0]

    def on_own_data(self, path):
        """The same recipe for data of one's own, under their name; `-RECIPE` stays part of it."""
        if self.teachers:
            raise ValueError(
                f"{self.name}: its teachers ({', '.join(self.teachers)}) know the classes of {self.dataset}, not those "
                "of other data; give another recipe"
            )
        variant = "" if self.dataset.startswith("uci/") else "".join(self.name.partition(".")[2].partition("-")[1:])
        overrides = {key: value for key, value in self.overrides.items() if key not in CIFAR10_STATISTICS}
        notes = f"The recipe of {self.name}, whose values were set for other data. {self.notes}"
        return dataclasses.replace(
            self, name=f"{self.arch}.{own_name(path)}{variant}", overrides=overrides, notes=notes
        )

    def given(self, **fields):
        """The same recipe with these fields in place of its own, but for those that are `None`."""
        return dataclasses.replace(self, **{field: value for field, value in fields.items() if value is not None})

    def rescaled(self, epochs):
        """The same recipe in another number of epochs: rates and warm-up move in proportion, the notes say so."""
        if epochs == self.epochs:
            return self
        rates = tuple((epoch * epochs / self.epochs, rate) for epoch, rate in self.rates)
        warmup = self.warmup_epochs * epochs / self.epochs
        notes = f"Rescaled from {self.epochs} to {epochs} epochs. {self.notes}"
        return dataclasses.replace(self, epochs=epochs, rates=rates, warmup_epochs=warmup, notes=notes)


NOT_DECISIVE = ("notes", "seeds", "publish")  # none changes the weights of a seed


def decisive(fields):
    """The fields of a recipe that decide its training, as JSON gives them back.

    A field that is newer than the stored ones counts with its default, where it has one.

    >>> decisive(dataclasses.asdict(get_recipe("snn_mlp2.wine")))["notes"]
    """
    missing = [field for field in dataclasses.fields(Recipe) if field.name not in fields]
    defaults = {field.name: field.default for field in missing if field.default is not dataclasses.MISSING}
    return json.loads(json.dumps({**defaults, **fields, **dict.fromkeys(NOT_DECISIVE)}))


def differences(stored, here, also=()):
    """What decides the training, and what else is asked, where two recipes (their fields) differ in it, in words."""

    def asked(fields):
        return {**decisive(fields), **{key: fields.get(key, getattr(Recipe, key)) for key in also}}

    stored, here = asked(stored), asked(here)
    differ = [key for key in {**here, **stored} if stored.get(key) != here.get(key)]  # also what is unknown here
    return "; ".join(f"{key} {stored.get(key)!r}, here {here.get(key)!r}" for key in differ)


def same_choice(facts, recipe, seeds):
    """Whether stored facts (recipe.json, validation.json) are of this training and these seeds, in this order."""
    same = "recipe" in facts and not differences(facts["recipe"], dataclasses.asdict(recipe))
    return same and stored_seeds(facts) == list(seeds)


def stored_seeds(facts):
    if "runs" in facts:
        return [run["seed"] for run in facts["runs"]]
    return facts.get("results", {}).get("seeds", [])


def added_seeds(facts):
    """Of the seeds in recipe.json those whose figures were added to a folder that there was."""
    return [seed for run in facts.get("results", {}).get("added", ()) for seed in run["seeds"]]


def own_name(path):
    """Name of a data set of one's own, from that of its folder or file.

    >>> own_name("pictures/my flowers")
    'own_my_flowers'
    """
    return "own_" + re.sub(r"\W+", "_", pathlib.Path(path).stem)


# Of the training images of CIFAR-10, 0-255, as fb.resnet.torch has them; the builders' own are CIFAR-100's.
CIFAR10_STATISTICS = {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)}

# What followed from it was seen in the pictures of the runs; a recipe is not changed after its test set was read.
MPELU_DECAY = (
    " alpha and beta have rate multiplier 5 and L2 of 1e-3 (2 x 5e-4): 10 x 1e-4 in the authors' code for networks "
    "without pre-activation; for basic blocks (Table 9) the paper has L2 on them too and names no multipliers. "
    "In the first run of depth 20 this decay drove alpha and beta to 0 in most layers; without it (-nodecay) the "
    "network was no better on held-out rows (results/modern_choices.csv of the repository)."
)


def _cifar_resnet(name):
    """50 epochs, for two CPU cores: a short schedule in place of the paper's 200 epochs.

    Batch 128, momentum 0.9 and peak rate 0.1 are the paper's (appendix). L2 of
    5e-4 with a cosine schedule is common for short CIFAR-100 schedules (the
    paper: 1e-4 and steps).
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
        notes=" ".join(_cifar_resnet.__doc__.split()) + (MPELU_DECAY if mpelu else ""),
    )


def _short(name):
    """50 epochs in place of the paper's 200, for deep residual networks: the short recipe of basic blocks.

    Batch 128, momentum 0.9 and peak rate 0.1 are the paper's (appendix), and the rate multiplier 5 and the L2 of 1e-3
    of alpha and beta those of the authors' code. A cosine in place of steps and L2 of 5e-4 in place of 1e-4 are common
    for short schedules. On no validation split compared with the paper's.
    """
    return dataclasses.replace(_cifar_resnet(name), notes=" ".join(_short.__doc__.split()))


def _no_decay(name):
    """The short recipe without L2 on alpha and beta, as PReLU's authors have it for their slopes.

    For in the short recipe alpha and beta decay to 0. It was run before the two were compared on held-out rows, where
    it was one standard error behind (58.72 against 59.68 % in 15 epochs, results/modern_choices.csv).
    """
    notes = f"{' '.join(_no_decay.__doc__.split())} Else: {' '.join(_cifar_resnet.__doc__.split())}"
    return dataclasses.replace(_cifar_resnet(name), multipliers=_mpelu_multipliers(name, 0.0), notes=notes)


OF_TABLE_9 = re.compile(r"mpelu_(b_)?resnet\d+\.")


def _paper(name):
    """The appendix of Li et al.: 200 epochs, rate 0.1, a tenth of it after epochs 80 and 121 ("at 81 and 122").

    Batch 128, Nesterov momentum 0.9 and coupled L2 of 1e-4 on every weight. bfloat16 with float32 weights is ours.
    """
    multipliers, of_units = (), ""
    if OF_TABLE_9.match(name):
        of_units = (
            " alpha and beta are as the other weights: for Table 9's networks the paper has L2, and no multipliers."
        )
    elif name.startswith("mpelu"):
        multipliers = _mpelu_multipliers(name, 10.0)
        of_units = " alpha and beta have 5 times the rate and 10 times the decay, as in the authors' code."
    return Recipe(
        name=name,
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        schedule="steps",
        rates=((80, 0.01), (121, 0.001)),
        l2=1e-4,
        multipliers=multipliers,
        augmentation="pad_crop_flip",
        dtype="mixed_bfloat16",
        notes=" ".join(_paper.__doc__.split()) + of_units,
    )


def _paper_warmup(name):
    """The paper's appendix with the warm-up that Fig. 5a and 5c needed: one epoch at 0.01."""
    notes = f"{' '.join(_paper_warmup.__doc__.split())} Else: {_paper(name).notes}"
    rates = ((1, 0.1), *_paper(name).rates)
    return dataclasses.replace(_paper(name), learning_rate=0.01, rates=rates, notes=notes)


def _dagger(name):
    """The paper's dagger strategy (Table 12): 300 epochs, batch 64, a tenth of the rate after epochs 149 and 224.

    The rest is as in the paper's appendix. There batch norm saw 32 images on each of two GPUs, here all 64.
    """
    notes = f"{' '.join(_dagger.__doc__.split())} Else: {_paper(name).notes}"
    return dataclasses.replace(_paper(name), epochs=300, batch_size=64, rates=((149, 0.01), (224, 0.001)), notes=notes)


# Tried one by one and together with ResNet-20, on held-out rows, by `python -m training benchmark modern`.
MODERN = {
    "label_smoothing": 0.1,
    "mixup": 0.2,
    "cutmix": 1.0,
    "erase": 8,
    "stochastic_depth": 0.1,
}


def with_parts(recipe, parts):
    """The recipe with some of `MODERN`; stochastic depth is an option of the builder, the others are fields.

    >>> with_parts(get_recipe("relu_resnet20.cifar100"), {"erase": 8, "stochastic_depth": 0.1}).overrides
    {'stochastic_depth': 0.1}
    """
    fields = dict(parts)
    options = {name: fields.pop(name) for name in ("stochastic_depth",) if name in fields}
    return dataclasses.replace(recipe, overrides={**recipe.overrides, **options}, **fields)


def _modern(name, paper):
    """Made to win rather than to reproduce: cosine, label smoothing, mixup or CutMix, erasing, a moving average.

    Residual networks also have stochastic depth. Peak rate, batch and momentum are those of the network's paper.
    Not yet chosen on a validation split; nothing is published from it before that.
    """
    residual = model_info(paper.arch)["family"] in RESIDUAL
    parts = {part: value for part, value in MODERN.items() if residual or part != "stochastic_depth"}
    recipe = dataclasses.replace(
        paper,
        name=name,
        epochs=300,
        learning_rate=max(paper.learning_rate, *(rate for _, rate in paper.rates)),
        schedule="cosine",
        rates=(),
        warmup_epochs=5,
        nesterov=True,
        l2=5e-4,
        multipliers=_mpelu_multipliers(name, 0.0),
        average=0.999,
        dtype="mixed_bfloat16",
        notes=" ".join(_modern.__doc__.split()),
    )
    return with_parts(recipe, parts)


def _modern_small(name):
    """Made to win with fewer than a million parameters: the short recipe in 200 epochs, with a moving average.

    Chosen with ResNet-20 and MPELU, one seed, 15 epochs, on a tenth of the training rows (results/modern_choices.csv):
    label smoothing, erasing, stochastic depth, mixup or CutMix, each alone and all together, did not raise the accuracy
    of the network without L2 on alpha and beta and were left out; that L2 did not lower it. In those five runs the
    moving average was behind the last weights, so the last are published. Nothing was compared again in 200 epochs.
    """
    return dataclasses.replace(
        _cifar_resnet(name),
        epochs=200,
        warmup_epochs=5,
        average=0.999,
        notes=" ".join(_modern_small.__doc__.split()),
    )


# All published CIFAR-100 networks that were larger than ResNet-20 in November 2026; which are the best was not asked.
TEACHERS = (
    "mpelu_nopre_resnet29.cifar100",
    "mpelu_resnet32.cifar100",
    "mpelu_resnet32.cifar100-modern",
    "elu_net11.cifar100",
)


def _distilled(name):
    """The modern recipe of small networks, which also learns what four larger published ones say of the images.

    A tenth of the loss is cross-entropy of the classes, the rest of the teachers' mean softened outputs: temperature 4
    and these shares are those that Tian et al. (2020, Contrastive Representation Distillation) have for Hinton et al.'s
    distillation on CIFAR-100. The teachers were trained on the training rows, and were asked about each of them,
    as it is and mirrored, before the run. Nothing of this was chosen here.
    """
    return dataclasses.replace(
        _modern_small(name),
        teachers=TEACHERS,
        distillation=0.9,
        temperature=4.0,
        notes=f"{' '.join(_distilled.__doc__.split())} Else: {_modern_small(name).notes}",
    )


def _clevert(name):
    """Clevert et al., section 4.2: rate 0.01 falling to 0.005, 5e-4 and 5e-5; 165,000 steps, L2 5e-4.

    The batch of 100 images is that of their section 4.3. In epochs of 500 steps: new rates after 70, 170 and 270 of
    330. The paper's global contrast normalisation and ZCA whitening are left out.
    """
    return Recipe(
        name=name,
        epochs=330,
        batch_size=100,
        learning_rate=0.01,
        schedule="steps",
        rates=((70, 0.005), (170, 5e-4), (270, 5e-5)),
        nesterov=False,
        l2=5e-4,
        augmentation="pad_crop_flip",
        notes=" ".join(_clevert.__doc__.split()),
    )


def _clevert18(name):
    """Clevert et al., section 4.3, the main phase: rate 0.01, a tenth of it after 35,000 steps of 100 images, L2 5e-4.

    In epochs of 500 steps: after 70. Its length is not stated; 330 epochs are those of the 11-layer network. The two
    phases that follow in the paper, with dropout in every layer (`dropout_in_stacks`) and then 1.5 times as much, and
    its preprocessing are left out.
    """
    notes = " ".join(_clevert18.__doc__.split())
    return dataclasses.replace(_clevert(name), rates=((70, 0.001),), notes=notes)


def _clevert_imagenet(name):
    """Clevert et al., section 4.4: L2 5e-4 and dropout 0.5; its batch, rates and length are not stated.

    They are those of the plain networks of Li et al.: 38 epochs of batches of 64, rate 0.01, a tenth of it after 5 and
    30, but the biases as the other weights. The images are to be given (`--data`); they are scaled to the network's
    size, padded by 4 pixels, cropped and flipped, where the paper crops 224 pixels from 256.
    """
    return dataclasses.replace(_plain(name), multipliers=(), notes=" ".join(_clevert_imagenet.__doc__.split()))


def _nin(name):
    """Li et al.'s Caffe files: 120,000 steps of 128 images, rate 0.1, a tenth of it after 100,000, L2 1e-4.

    In epochs of 390 steps: 308, the new rate after 256. Momentum 0.9, not Nesterov's. Biases have twice the rate and no
    L2, the last convolution a tenth of the rate; alpha and beta twice the rate and, by the paper, no L2 (the files: 5
    times). The paper crops 28 of 32 pixels and whitens (ZCA); here images are padded by 4 pixels and cropped to 32,
    and not whitened.
    """
    mpelu = ((MPELU_WEIGHTS, 2.0, 0.0),) if name.startswith("mpelu") else ()
    return Recipe(
        name=name,
        epochs=308,
        batch_size=128,
        learning_rate=0.1,
        schedule="steps",
        rates=((256, 0.01),),
        nesterov=False,
        l2=1e-4,
        multipliers=(
            *mpelu,
            (r"(^|/)classifier/kernel$", 0.1, 1.0),
            (r"(^|/)classifier/bias$", 0.1, 0.0),
            (r"_conv\d+/bias$", 2.0, 0.0),
        ),
        augmentation="pad_crop_flip",
        notes=" ".join(_nin.__doc__.split()),
    )


def _plain(name):
    """Li et al.'s Caffe files: 750,000 steps of 64 images, rate 0.01, a tenth of it after 100,000 and 600,000, L2 5e-4.

    In epochs of ImageNet's 20,000 steps: 37.5, here 38; new rates after 5 and 30. Momentum 0.9, not Nesterov's. Biases
    have twice the rate and no L2. alpha and beta have twice the rate, with the common L2 at depth 15; deeper the common
    rate and no L2. ImageNet is to be given (`--data`, a folder of class folders); images are scaled to the network's
    size, padded by 4 pixels, cropped and flipped, where the paper crops 224 pixels from 256. The small siblings are
    ours and take the same on CIFAR.
    """
    rate, decay = (2.0, 1.0) if "plain15" in name else (1.0, 0.0)
    return Recipe(
        name=name,
        epochs=38,
        batch_size=64,
        learning_rate=0.01,
        schedule="steps",
        rates=((5, 0.001), (30, 1e-4)),
        nesterov=False,
        l2=5e-4,
        multipliers=(
            *(((MPELU_WEIGHTS, rate, decay),) if name.startswith("mpelu") else ()),
            (r"(^|/)(conv\d+|fc\d+|classifier)/bias$", 2.0, 0.0),
        ),
        augmentation="pad_crop_flip",
        notes=" ".join(_plain.__doc__.split()),
    )


def _mpelu_multipliers(name, decay):
    return ((MPELU_WEIGHTS, 5.0, decay),) if name.startswith("mpelu") else ()


# (depth, data set) -> width, epochs, peak rate, dropout. Depth and epochs were set beforehand; the others are the best
# on a validation split of the training rows, by `python -m training benchmark tabular` (results/tabular_choices.csv);
# of equals the narrowest, then the lowest rate, then the higher dropout.
TABULAR = {
    (4, "digits"): (64, 60, 0.003, 0.05),
    (2, "wine"): (64, 100, 0.001, 0.05),
    (4, "breast_cancer"): (64, 60, 0.01, 0.05),
}


def is_tuned(name):
    """Whether the recipe of that name is one of `TABULAR`."""
    return any(name == f"snn_mlp{depth}.{dataset}" for depth, dataset in TABULAR)


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


def _tabular_untuned(name):
    """SGD with momentum 0.9, a cosine schedule, 60 epochs, batch 16, width 64: set beforehand, nothing was chosen."""
    tuned = _tabular(name, 64, 60, 0.003, 0.05)
    overrides = tuned.overrides if name.startswith("snn") else {"width": 64}
    return dataclasses.replace(tuned, overrides=overrides, notes=" ".join(_tabular_untuned.__doc__.split()))


def _uci(name):
    """Klambauer et al.: plain SGD at a constant rate for 100 epochs, rate 0.01 of their grid, 256 units.

    The paper chooses width, depth, form, rate, dropout and the number of epochs for each task on its validation rows;
    here they are fixed. Its batch is not stated: 16, and 8 for the two tasks with fewer rows.
    """
    return Recipe(
        name=name,
        epochs=100,
        batch_size=8 if name.endswith((".uci-trains", ".uci-balloons")) else 16,
        learning_rate=0.01,
        schedule="steps",
        momentum=0.0,
        nesterov=False,
        notes=" ".join(_uci.__doc__.split()),
    )


CIFAR = ("cifar100", "cifar10")
# Family -> its data sets, the first by default, and its recipe: the paper's own but for the short ones of basic blocks.
IMAGES = {
    "resnet": (CIFAR, _cifar_resnet),
    "elu_resnet": (CIFAR, _cifar_resnet),
    "preact": (CIFAR, _paper),
    "nopre": (CIFAR, _paper),
    "elu_net": (CIFAR, _clevert),
    "nin": (("cifar10", "cifar100"), _nin),
    "plain": (CIFAR, _plain),
}
SMALL = 1_000_000  # parameters: what was found with ResNet-20 is taken for what has its short recipe, up to depth 56
RESIDUAL = ("resnet", "elu_resnet", "preact", "nopre")
# Networks that differ from their family.
EXCEPTIONS = {
    "elu_net18": (CIFAR, _clevert18),
    "elu_net15": (("imagenet",), _clevert_imagenet),
    "mpelu_nopre_resnet29": (CIFAR, _cifar_resnet),
    **{
        f"{kind}_plain{depth}": (("imagenet",), _plain)
        for kind in ("relu", "prelu", "elu", "mpelu")
        for depth in (15, 30, 52)
    },
    # Fig. 5a and 5c, the two that diverged without a warm-up.
    **{
        f"mpelu_{kind}_resnet{depth}": (CIFAR, _paper_warmup)
        for kind in ("onlypreact_bn", "nopre_endbn")
        for depth in (164, 1001)
    },
}


def _image_recipes(arch, family):
    datasets, own = EXCEPTIONS.get(arch, IMAGES[family])
    for dataset in datasets:
        name = f"{arch}.{dataset}"
        paper = own
        yield own(name)
        if family in RESIDUAL:
            paper = _paper
            if own is _cifar_resnet and arch.startswith("mpelu"):
                yield _no_decay(f"{name}-nodecay")
            if own is not _cifar_resnet:
                yield _short(f"{name}-short")
            for tag, make in (("paper", _paper), ("warmup", _paper_warmup), ("dagger", _dagger)):
                yield make(f"{name}-{tag}")
        small = own is _cifar_resnet and model_info(arch)["parameters"] < SMALL
        yield _modern_small(f"{name}-modern") if small else _modern(f"{name}-modern", paper(name))
        if dataset == "cifar100" and arch.endswith("_resnet20") and small:
            yield _distilled(f"{name}-distilled")


@functools.cache
def _recipes():
    """All recipes by name; read from the index, so no backend is imported."""
    table = {}
    for arch in list_models():
        family = model_info(arch)["family"]
        if family in IMAGES:
            for recipe in _image_recipes(arch, family):
                if recipe.dataset == "cifar10":
                    recipe = dataclasses.replace(recipe, overrides={**CIFAR10_STATISTICS, **recipe.overrides})
                table[recipe.name] = recipe
            continue
        if len(model_info(arch)["input_shape"]) == 3:  # of a new family: see `get_recipe`
            continue
        for name in (f"{arch}.{dataset}" for dataset in SCIKIT_LEARN):
            table[name] = _tabular_untuned(name)
        for name in (f"{arch}.uci-{task}" for task in tasks()):
            table[name] = _uci(name)
    for (depth, dataset), choice in TABULAR.items():
        name = f"snn_mlp{depth}.{dataset}"
        table[name] = _tabular(name, *choice)
    return table


def get_recipe(name):
    """The recipe of a pretrained model.

    Args:
        name: `arch.tag`, such as `"mpelu_resnet20.cifar100"`; an architecture
            alone stands for its default.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: there is no such recipe; close names are listed.

    Example:

    >>> get_recipe("mpelu_resnet20.cifar100").epochs
    50
    """
    table = _recipes()
    arch = str(name).partition(".")[0]
    if name == arch:  # the default of an architecture
        name = next((known for known in table if known.startswith(f"{arch}.")), name)
    if name not in table:
        if arch in list_models() and not any(known.startswith(f"{arch}.") for known in table):
            family = model_info(arch)["family"]
            raise ValueError(
                f"{arch} has no recipe: give its family, {family!r}, a line in IMAGES of training/recipes.py"
            )
        raise unknown_name(name, table, "recipe")
    return table[name]
