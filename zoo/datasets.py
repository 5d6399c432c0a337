"""Data sets by name, as NumPy arrays whose content is checked.

CIFAR comes from the first source that has it: `data_dir/NAME.npz`, a prepared
TensorFlow Datasets copy, the Hub's parquet files, TFDS's own download (its
server has been slow since June 2026, so it is last). The three bundled sets
are scikit-learn's, the UCI tasks the files of the SNN authors
(https://arxiv.org/abs/1706.02515), which their `data_py.zip` holds.
Every optional package is imported where it is used, so that
`import zoo.datasets` costs no backend.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import os
import pathlib
import sys
import urllib.request
import zipfile
import zlib

import numpy as np

from zoo import hub
from zoo.messages import first_line
from zoo.messages import unknown_name

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Coarse name -> its five fine names, in the official order of the coarse labels.
CIFAR100_SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
# The official order of the fine labels is alphabetical.
CIFAR100_CLASSES = tuple(sorted(fine for group in CIFAR100_SUPERCLASSES.values() for fine in group))


@dataclasses.dataclass(frozen=True)
class Cifar:
    """Where one CIFAR set lies, and what it must contain."""

    class_names: tuple
    repo: str
    revision: str
    files: dict  # split -> file in the Hub repository
    file_sums: dict  # split -> sha256 of that file
    label: str  # the parquet column; the images are in "img"
    counts: dict  # split -> images
    sums: dict  # split -> sha256 of the images and of the labels, uint8, official order


CIFAR = {
    # No copy was at hand to take sums of: the Hub's own sum guards the transfer, sizes and class counts the content.
    "cifar10": Cifar(
        class_names=CIFAR10_CLASSES,
        repo="uoft-cs/cifar10",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
        files={
            "train": "plain_text/train-00000-of-00001.parquet",
            "test": "plain_text/test-00000-of-00001.parquet",
        },
        file_sums={},
        label="label",
        counts={"train": 50000, "test": 10000},
        sums={},
    ),
    "cifar100": Cifar(
        class_names=CIFAR100_CLASSES,
        repo="uoft-cs/cifar100",
        revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
        files={
            "train": "cifar100/train-00000-of-00001.parquet",
            "test": "cifar100/test-00000-of-00001.parquet",
        },
        file_sums={
            "train": "694865d6b990e234804f01268586c41e88bcbbb75e20858432c05ad4081aca23",
            "test": "98776c529bb146a9c791229df74a5cf076be9b43d82dbbd334b6a7788d73dc68",
        },
        label="fine_label",
        counts={"train": 50000, "test": 10000},
        sums={
            "train": (
                "4e457917601a66aed021f5fa37957b56c6319557c0a8ed5484de3c390af45430",
                "9f11b9f97aad759ba6df0a33e3218b01d8deaf4ed3a14aa1185d69b9ad7ebcb3",
            ),
            "test": (
                "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19",
                "4dad7d09c7c97d33f6cb928d705cf4196221316fd6e31bdd978a08ed9103ee0b",
            ),
        },
    ),
}

TFDS_VERSION = "3.0.2"
TFDS_SERVER = "https://www.cs.toronto.edu/~kriz/cifar.html"

SCIKIT_LEARN = ("digits", "wine", "breast_cancer")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One data set in memory.

    Attributes:
        name: The name it was loaded by.
        x_train: Images uint8 `(N, H, W, C)`, or a table float32 `(N, F)`.
        y_train: Labels int64 `(N,)`.
        x_test: As `x_train`.
        y_test: As `y_train`.
        class_names: Tuple of the names of the labels 0, 1, ...
        feature_names: Tuple of the names of a table's columns; empty for
            images.
        sha256: Of the raw little-endian bytes of `x_train`, `y_train`,
            `x_test` and `y_test`, one after the other.

    Example:

    >>> wine = zoo.load_dataset("wine")
    >>> len(wine.x_test), wine.class_names[0], wine.feature_names[0]
    (36, 'class_0', 'alcohol')
    """

    name: str
    x_train: np.ndarray = dataclasses.field(repr=False)
    y_train: np.ndarray = dataclasses.field(repr=False)
    x_test: np.ndarray = dataclasses.field(repr=False)
    y_test: np.ndarray = dataclasses.field(repr=False)
    class_names: tuple = dataclasses.field(repr=False)
    feature_names: tuple = dataclasses.field(repr=False)
    sha256: str


def load_dataset(name, data_dir=None, download=True):
    """Loads a data set by name.

    Args:
        name: A name from `list_datasets()`:

            - `"cifar10"`, `"cifar100"`: the official order. The content of
              CIFAR-100 is checked against known sums whatever its source, that
              of CIFAR-10 for its sizes and class counts.
            - `"digits"`, `"wine"`, `"breast_cancer"`: scikit-learn's bundled
              sets, no download. The split is
              `train_test_split(test_size=0.2, stratify=y, random_state=0)`.
            - `"uci/NAME"`: the SNN authors' files of 121 UCI tasks, column 0 of
              their folds, as a `zoo.uci.UCIDataset`. The training rows include
              the validation rows; `split(column)` gives all three parts of any
              column. The columns are standardised already and have no names.
              The content is checked against known sums (that of miniboone for
              sizes and class counts).
        data_dir: Folder with `NAME.npz` (`x_train`, `y_train`, `x_test`,
            `y_test`), `NAME/3.0.2/` (as prepared by TensorFlow Datasets) or
            `uci/NAME/`. Defaults to the environment variable `ZOO_DATA_DIR`.
        download: Whether CIFAR and the UCI tasks may be fetched where they are
            not at hand. The authors' archive of all tasks (39 MB) is unpacked
            into `data_dir`, or `~/.keras/datasets` where there is none.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: the name is unknown, or the data are damaged.
        FileNotFoundError: no source has the data; the message lists them.
        ImportError: an optional package is missing.

    Example:

    >>> digits = zoo.load_dataset("digits")
    >>> digits.x_train.shape
    (1437, 64)
    """
    if name not in list_datasets():
        raise unknown_name(name, list_datasets(), "dataset")
    folder = data_dir or os.environ.get("ZOO_DATA_DIR")
    folder = pathlib.Path(folder).expanduser() if folder else None
    if name in CIFAR:
        return load_cifar(name, folder, download)
    if name in SCIKIT_LEARN:
        return load_bundled(name)
    from zoo.uci import load_uci  # that module is written in terms of this one

    return load_uci(name.removeprefix("uci/"), folder, download)


def list_datasets():
    """Names that `load_dataset` takes, whether or not the data are here.

    Example:

    >>> zoo.list_datasets()[:3]
    ['cifar10', 'cifar100', 'digits']
    """
    from zoo.uci import tasks

    return [*CIFAR, *SCIKIT_LEARN, *(f"uci/{task}" for task in tasks())]


def make_dataset(name, x_train, y_train, x_test, y_test, class_names, feature_names=()):
    """A `Dataset` of plain arrays, with its sum."""
    x_dtype = np.uint8 if x_train.dtype == np.uint8 else np.float32
    arrays = (
        np.ascontiguousarray(x_train, x_dtype),
        np.ascontiguousarray(y_train, np.int64),
        np.ascontiguousarray(x_test, x_dtype),
        np.ascontiguousarray(y_test, np.int64),
    )
    class_names, feature_names = tuple(map(str, class_names)), tuple(map(str, feature_names))
    return Dataset(name, *arrays, class_names, feature_names, sha256_of(*arrays))


def sha256_of(*arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


class Unavailable(Exception):
    """This source has nothing; the next one is tried."""


def load_cifar(name, folder, download):
    """CIFAR from the first source that has it."""
    failures = []
    remote = (read_hub, download_with_tfds) if download else ()
    for source in (read_npz, read_prepared, *remote):
        try:
            arrays, place = source(name, folder)
        except Unavailable as error:
            failures.append(str(error))
        else:
            arrays = check_cifar(name, arrays, place)
            return make_dataset(name, **arrays, class_names=CIFAR[name].class_names)
    tried = "; ".join(f"({number}) {failure}" for number, failure in enumerate(failures, start=1))
    raise FileNotFoundError(
        f"{name} was found nowhere: {tried}. Connect to the network and run again, "
        f"or put {name}.npz into a folder and name that folder by data_dir or ZOO_DATA_DIR"
    )


def check_cifar(name, arrays, place):
    """The arrays with flat labels, after a check of all that is known of their content."""
    facts = CIFAR[name]
    mend = f"delete {place} and run again"
    checked = {}
    for split, count in facts.counts.items():
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if images.dtype != np.uint8 or images.shape != (count, 32, 32, 3):
            raise ValueError(
                f"{place}: x_{split} is {images.dtype} {images.shape}, expected uint8 {(count, 32, 32, 3)}; {mend}"
            )
        if labels.shape == (count, 1):  # as keras.datasets gives them
            labels = labels[:, 0]
        if labels.dtype.kind not in "iu" or labels.shape != (count,):
            raise ValueError(
                f"{place}: y_{split} is {labels.dtype} {labels.shape}, expected integers {(count,)}; {mend}"
            )
        # The range comes before the sums: as uint8 a label of 256 would pass for 0.
        if labels.min() < 0 or labels.max() >= len(facts.class_names):
            raise ValueError(
                f"{place}: y_{split} has labels {labels.min()} to {labels.max()}, "
                f"expected 0 to {len(facts.class_names) - 1}; {mend}"
            )
        found = sha256_of(images), sha256_of(labels.astype(np.uint8))
        for what, got, expected in zip(("images", "labels"), found, facts.sums.get(split, found), strict=True):
            if got != expected:
                raise ValueError(f"{place}: the {split} {what} have sha256 {got}, expected {expected}; {mend}")
        per_class = np.bincount(labels, minlength=len(facts.class_names))
        if len(set(per_class)) > 1:
            raise ValueError(
                f"{place}: the {split} classes have {per_class.min()} to {per_class.max()} images, "
                f"expected {count // len(facts.class_names)} each; {mend}"
            )
        checked[f"x_{split}"], checked[f"y_{split}"] = images, labels
    return checked


def read_npz(name, folder):
    if folder is None:
        raise Unavailable(f"{name}.npz: no data_dir was given and ZOO_DATA_DIR is not set")
    path = folder / f"{name}.npz"
    if not path.exists():
        raise Unavailable(f"no file {path}")
    mend = f"delete {path} and run again"
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with zipfile.ZipFile(path) as archive:
            found = [member.removesuffix(".npy") for member in archive.namelist()]
        if missing := [key for key in keys if key not in found]:
            raise ValueError(f"{path}: no array {missing[0]!r} among {', '.join(found)}; {mend}")
        with np.load(path, allow_pickle=False) as archive:
            return {key: read_member(path, archive, key) for key in keys}, path
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: a damaged npz file ({first_line(error)}); {mend}") from None


def read_member(path, archive, key):
    try:
        return archive[key]
    except ValueError as error:  # an array of objects, or a header that says more than there is
        raise ValueError(f"{path}: cannot read {key} ({first_line(error)}); delete {path} and run again") from None


def read_prepared(name, folder):
    """A copy that TensorFlow Datasets has prepared before."""
    roots = (folder, os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets")
    places = [pathlib.Path(root).expanduser() / name / TFDS_VERSION for root in roots if root]
    # The import of TensorFlow takes seconds, so it waits until a copy is seen.
    place = next((place for place in places if (place / "dataset_info.json").exists()), None)
    if place is None:
        raise Unavailable(f"no prepared TensorFlow Datasets copy at {' or '.join(map(str, places))}")
    tensorflow, tfds = import_tfds(f"the prepared copy at {place}")
    try:
        return tfds_arrays(tensorflow, tfds.builder_from_directory(place)), place
    except (OSError, ValueError, KeyError, tensorflow.errors.OpError) as error:
        raise ValueError(f"{place}: a damaged copy ({first_line(error)}); delete {place} and run again") from None


def import_tfds(what):
    try:
        import tensorflow
        import tensorflow_datasets
    except ImportError as error:
        raise Unavailable(f"{what} needs tensorflow and tensorflow_datasets ({first_line(error)})") from None
    return tensorflow, tensorflow_datasets


def tfds_arrays(tensorflow, builder):
    arrays = {}
    # TensorFlow only reads here: left alone, it would take the whole GPU from the backend in use.
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError, ValueError):  # it runs already, as the backend
            tensorflow.config.experimental.set_memory_growth(gpu, True)
    with tensorflow.device("CPU:0"):
        for split in ("train", "test"):
            records = builder.as_dataset(split=split, batch_size=-1)
            # TFDS stores the records shuffled; the ids give the official order.
            order = np.argsort(records["id"].numpy())
            arrays[f"x_{split}"] = records["image"].numpy()[order]
            arrays[f"y_{split}"] = records["label"].numpy()[order]
    return arrays


def read_hub(name, folder):
    """The parquet files of the Hub, at a pinned revision, through its client and its cache."""
    facts = CIFAR[name]
    try:
        import huggingface_hub  # noqa: F401 (all three before 140 MB are fetched for nothing)
        import PIL  # noqa: F401
        import pyarrow.parquet
    except ImportError as error:
        raise Unavailable(f"the Hub's {facts.repo} needs {error.name}; pip install 'keras-mpelu[data]'") from None
    arrays = {}
    for split, file in facts.files.items():
        try:
            path = hub.download(facts.repo, file, facts.revision, repo_type="dataset")
        except OSError as error:
            raise Unavailable(str(error)) from None
        if expected := facts.file_sums.get(split) or sum_in_cache(path):
            path = hub.checked(path, facts.repo, facts.revision, file, hub.Sum("sha256", expected), "dataset")
        # Behind the link of the snapshot lies the blob; without deleting that one, the client would link it again.
        blob = path.resolve()
        try:
            table = pyarrow.parquet.read_table(blob, columns=["img", facts.label])
            images = [decode(record["bytes"]) for record in table["img"].to_pylist()]
            arrays[f"x_{split}"] = np.stack(images)
            arrays[f"y_{split}"] = table[facts.label].to_numpy()
        except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's and PIL's are among these
            raise ValueError(
                f"{file} of {facts.repo} cannot be read ({first_line(error)}); delete {blob} and run again"
            ) from None
    return arrays, blob


def sum_in_cache(path):
    """The Hub's sha256 of a large file: the cache names its blob by that."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if len(name) == 64 else None


def decode(png):
    import PIL.Image

    return np.asarray(PIL.Image.open(io.BytesIO(png)).convert("RGB"))


def download_with_tfds(name, folder):
    what = "TensorFlow Datasets' own download"
    # The user's word on the Hub is taken for this host too.
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise Unavailable(f"{what}: HF_HUB_OFFLINE is set")
    try:  # TFDS itself would retry for minutes
        urllib.request.urlopen(urllib.request.Request(TFDS_SERVER, method="HEAD"), timeout=10).close()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{what} from {TFDS_SERVER}: {first_line(error)}") from None
    tensorflow, tfds = import_tfds(what)
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    print(f"{name}: downloading with TensorFlow Datasets; its server can take an hour", file=sys.stderr)
    try:
        builder = tfds.builder(name, data_dir=folder)
        builder.download_and_prepare()
    except (OSError, DownloadError, NonMatchingChecksumError, tensorflow.errors.OpError) as error:
        raise Unavailable(f"{what}: {first_line(error)}") from None
    return tfds_arrays(tensorflow, builder), builder.data_dir


def load_bundled(name):
    """One of scikit-learn's sets, split as the docstring of `load_dataset` says."""
    try:
        from sklearn import datasets
        from sklearn import model_selection
    except ImportError:
        raise ImportError(f"{name} needs scikit-learn; pip install 'keras-mpelu[data]'") from None
    bunch = getattr(datasets, f"load_{name}")()
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        bunch.data, bunch.target, test_size=0.2, stratify=bunch.target, random_state=0
    )
    return make_dataset(name, x_train, y_train, x_test, y_test, bunch.target_names, bunch.feature_names)
