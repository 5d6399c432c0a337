"""The 121 classification tasks from the UCI repository, in the files of the SNN authors.

Klambauer et al., 2017 (https://arxiv.org/abs/1706.02515) took the tasks of
Fernandez-Delgado et al., 2014, and published them as `data_py.zip`. A task has
four files: the columns (standardised already, without names), the labels 0 to
K-1, four columns of test folds (1 is a test row) and four of validation folds
(1 is a validation row among the others). The figures of the paper's Table A11
are of one column each; 0 is the one that others compare with.

`uci.csv` says what each task contains. `python -m zoo.uci DIR` makes it anew
from the files under `DIR/uci`, and keeps the rows of tasks that are not there.
"""

import csv
import dataclasses
import functools
import http.client
import importlib.resources
import os
import pathlib
import shutil
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from zoo.datasets import Dataset
from zoo.datasets import sha256_of
from zoo.messages import first_line

ARCHIVE = "http://www.bioinf.jku.at/people/klambauer/data_py.zip"
COLUMNS = 4  # of the folds

# The names come from the SNN paper's audit of its own files: what makes a comparison on them meaningless.
TRAIN_SCALED_BY_TEST = "its training rows were standardised with the test rows' mean and deviation, the test rows not"
DEFECTS = {
    "annealing": "its test rows are not standardised, the training rows are",
    "monks-1": TRAIN_SCALED_BY_TEST,
    "monks-2": TRAIN_SCALED_BY_TEST,
    "monks-3": TRAIN_SCALED_BY_TEST,
    "spectf": TRAIN_SCALED_BY_TEST,
    "trains": "it has 10 rows, of which 2 are for testing; the paper has no figure of four of its methods",
}


class Facts(NamedTuple):
    """A row of uci.csv: sizes, rows of each class, rows of column 0, and the sum of the content."""

    task: str
    rows: int
    features: int
    class_counts: tuple
    train: int
    validation: int
    test: int
    fixed_test: bool  # the four columns have the same test rows, those of the original source
    scaling: str  # how the authors standardised: "together", "apart", or neither; see `scaling_of`
    sha256: str  # empty where no copy was at hand: sizes and class counts are checked instead


class Split(NamedTuple):
    """The rows of one column of the folds."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class UCIDataset(Dataset):
    """A UCI task: a `Dataset` of column 0 of the folds, with all that the files hold.

    `x_train` are the rows that are not for testing; the validation rows are
    among them.

    Attributes:
        x: All rows, float32 `(N, F)`.
        y: All labels, int64 `(N,)`.
        folds: bool `(N, 4)`: test rows.
        validation_folds: bool `(N, 4)`: validation rows, none of them a test
            row of the same column.
        validation: bool, the validation rows among `x_train`.
        class_counts: Rows of each class.
        defect: Why no comparison should count on this task; empty if nothing
            is wrong with it.

    Example:

    >>> from zoo.uci import facts
    >>> facts()["iris"].class_counts
    (50, 50, 50)
    """

    x: np.ndarray = dataclasses.field(repr=False)
    y: np.ndarray = dataclasses.field(repr=False)
    folds: np.ndarray = dataclasses.field(repr=False)
    validation_folds: np.ndarray = dataclasses.field(repr=False)
    validation: np.ndarray = dataclasses.field(repr=False)
    class_counts: tuple = dataclasses.field(repr=False)
    defect: str = ""

    def split(self, column=0):
        """Training, validation and test rows of a column of the folds, apart.

        Raises:
            ValueError: there is no such column.
        """
        if column not in range(COLUMNS):
            raise ValueError(f"{self.name} has the columns 0 to {COLUMNS - 1}; received {column!r}")
        test, validation = self.folds[:, column], self.validation_folds[:, column]
        parts = (~(test | validation), validation, test)
        return Split(*(array[rows] for rows in parts for array in (self.x, self.y)))


@functools.cache
def facts():
    """What uci.csv says, as `{task: Facts}`."""
    lines = importlib.resources.files("zoo").joinpath("uci.csv").read_text(encoding="utf-8").splitlines()
    return {
        row["task"]: Facts(
            task=row["task"],
            class_counts=tuple(map(int, row["class_counts"].split())),
            fixed_test=row["fixed_test"] == "1",
            scaling=row["scaling"],
            sha256=row["sha256"],
            **{key: int(row[key]) for key in ("rows", "features", "train", "validation", "test")},
        )
        for row in csv.DictReader(lines)
    }


def tasks():
    """The names of all tasks, without `uci/`."""
    return list(facts())


def sound_tasks():
    """The tasks of which the files are at hand to check, and that have no defect: 114."""
    return [task for task, known in facts().items() if known.sha256 and task not in DEFECTS]


def file_names(task):
    return f"{task}_py.dat", "labels_py.dat", "folds_py.dat", "validation_folds_py.dat"


def load_uci(task, folder=None, download=True):
    """One task, checked; `zoo.load_dataset("uci/TASK")` calls this.

    Args:
        task: Such as `"iris"`.
        folder: Where `uci/TASK/` is, or is put; by default `~/.keras/datasets`.
        download: Whether the authors' archive may be fetched where the files
            are not there.

    Returns:
        A `UCIDataset`.

    Raises:
        FileNotFoundError: the files are not there and cannot be had.
        ValueError: they are not the authors'.
    """
    home = default_folder() if folder is None else pathlib.Path(folder)
    place = home / "uci" / task
    missing = [place / name for name in file_names(task) if not (place / name).is_file()]
    if missing:
        if not download:
            raise FileNotFoundError(f"uci/{task}: no file {missing[0]}, and download=False; {_mend(task, home)}")
        fetch_archive(home / "uci", task)
    return check(read(task, place), facts()[task], place)


def default_folder():
    return pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"


def _mend(task, home):
    return f"unpack the SNN authors' {ARCHIVE} so that {home / 'uci' / task} holds {', '.join(file_names(task))}"


def read(task, place):
    """The files of a task as a `UCIDataset`, after the checks that need no known sums."""
    names = [place / name for name in file_names(task)]
    x, y = read_numbers(names[0], np.float32), read_numbers(names[1], np.int64)[:, 0]
    folds, validation = (read_numbers(name, np.int64) for name in names[2:])
    again = f"delete {place} and run again"
    if not len(x) == len(y) == len(folds) == len(validation) > 0:
        raise ValueError(
            f"{place}: {len(x)} rows of features, {len(y)} of labels, {len(folds)} of folds and {len(validation)} of "
            f"validation folds, expected as many of each; {again}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{names[0]}: values that are not finite numbers; {again}")
    if set(y) != set(range(y.max() + 1)):
        raise ValueError(f"{names[1]}: labels {y.min()} to {y.max()} with gaps, expected 0 to K-1; {again}")
    for name, array in zip(names[2:], (folds, validation), strict=True):
        if array.shape[1] != COLUMNS or not np.isin(array, (0, 1)).all():
            found = f"{array.shape[1]} columns of values {array.min()} to {array.max()}"
            raise ValueError(f"{name}: {found}, expected {COLUMNS} columns of 0 and 1; {again}")
    folds, validation = folds.astype(bool), validation.astype(bool)
    if (folds & validation).any():
        raise ValueError(f"{names[3]}: rows for validation that are for testing too; {again}")
    test = folds[:, 0]
    if test.all() or not test.any():
        raise ValueError(f"{names[2]}: column 0 has {test.sum()} test rows of {len(test)}, expected some; {again}")
    arrays = x[~test], y[~test], x[test], y[test]
    counts = tuple(np.bincount(y).tolist())
    return UCIDataset(
        f"uci/{task}",
        *arrays,
        class_names=tuple(map(str, range(len(counts)))),
        feature_names=tuple(f"column {column}" for column in range(x.shape[1])),
        sha256=sha256_of(*arrays),
        x=x,
        y=y,
        folds=folds,
        validation_folds=validation,
        validation=validation[~test, 0],
        class_counts=counts,
        defect=DEFECTS.get(task, ""),
    )


def read_numbers(path, dtype):
    """A comma-separated table without header, always of two dimensions."""
    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        return np.loadtxt(path, dtype, delimiter=",", ndmin=2)
    except ValueError as error:
        reason = first_line(error)
        raise ValueError(f"{path}: not a table of numbers ({reason}); delete {path.parent} and run again") from None


def content_sum(dataset):
    """sha256 of columns, labels and folds as numbers, so that line ends and spaces do not matter."""
    return sha256_of(dataset.x, dataset.y, dataset.folds, dataset.validation_folds)


def scaling_of(dataset):
    """How the columns were standardised, seen from their means and deviations.

    Returns:
        `"together"`: over all rows, those for testing too; `"apart"`: the
        training rows and the test rows each over themselves; `""`: neither.
    """

    def standardised(rows):
        mean, deviation = rows.mean(axis=0, dtype="float64"), rows.std(axis=0, ddof=1, dtype="float64")
        # The files have six digits. A column that does not vary has no deviation.
        return np.allclose(mean, 0, atol=1e-4) and np.allclose(deviation[deviation > 0], 1, atol=1e-4)

    if standardised(dataset.x_train):  # in large tasks all rows are nearly so too
        # Of the test rows the mean alone tells: a column may not vary among them.
        return "apart" if np.allclose(dataset.x_test.mean(axis=0, dtype="float64"), 0, atol=1e-4) else ""
    return "together" if standardised(dataset.x) else ""


def describe(dataset):
    """The row of uci.csv of a data set."""
    split = dataset.split(0)
    return Facts(
        task=dataset.name.removeprefix("uci/"),
        rows=len(dataset.x),
        features=dataset.x.shape[1],
        class_counts=dataset.class_counts,
        train=len(split.x_train),
        validation=len(split.x_validation),
        test=len(split.x_test),
        fixed_test=bool((dataset.folds == dataset.folds[:, :1]).all()),
        scaling=scaling_of(dataset),
        sha256=content_sum(dataset),
    )


def check(dataset, known, place):
    """The data set, if it is what uci.csv says."""
    found = describe(dataset)
    # Without a copy the order of the classes is not known, their sizes are.
    ordered = tuple if known.sha256 else sorted
    for what in ("rows", "features", "train", "validation", "test", "fixed_test", "class_counts", "sha256"):
        got, expected = getattr(found, what), getattr(known, what)
        if what == "class_counts":
            got, expected = ordered(got), ordered(expected)
        if what == "sha256" and not expected:
            continue
        if got != expected:
            raise ValueError(
                f"{place}: {what} is {got}, expected {expected}; these are not the SNN authors' files: delete {place} "
                "and run again"
            )
    return dataset


# The authors' archive


def fetch_archive(folder, task):
    """Puts every task of the authors' archive that is not in `folder` there; each file appears whole or not at all."""
    wanted = f"{folder.parent} cannot take the SNN authors' files"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".data_py-", suffix=".zip") as file:
            _download(file, task)
            _unpack(file, folder, task)
    except PermissionError as error:
        raise PermissionError(f"{wanted} ({first_line(error)}); name another folder by data_dir") from None


def _download(file, task):
    """The archive into an open file, with lines of progress."""
    mend = f"connect to the network and run again, or {_mend(task, pathlib.Path('DATA_DIR'))}"
    shown = time.monotonic()
    try:
        with urllib.request.urlopen(ARCHIVE, timeout=30) as answer:
            size, done = int(answer.headers.get("Content-Length") or 0), 0
            print(f"uci: fetching {ARCHIVE} ({size / 1e6:.0f} MB)", file=sys.stderr)
            while block := answer.read(1 << 16):
                file.write(block)
                done += len(block)
                if time.monotonic() > shown + 5:
                    shown = time.monotonic()
                    print(f"uci: {done / 1e6:.1f} of {size / 1e6:.1f} MB", file=sys.stderr)
    except (OSError, http.client.HTTPException) as error:
        raise FileNotFoundError(f"uci/{task}: cannot fetch {ARCHIVE} ({first_line(error)}); {mend}") from None
    if size and done != size:
        raise FileNotFoundError(f"uci/{task}: {ARCHIVE} ended after {done} of {size} bytes; {mend}")
    file.flush()


def _unpack(file, folder, task):
    """All tasks from the archive; a stray file beside their folders is left out."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {pathlib.PurePosixPath(name).parts[-2:]: name for name in archive.namelist()}
            for other in tasks():
                found = {name: members.get((other, name)) for name in file_names(other)}
                if None in found.values():
                    if other == task:
                        raise ValueError(f"{ARCHIVE} has no complete task {task!r}; the archive has changed")
                    continue
                for name, member in found.items():
                    target = folder / other / name
                    if not target.exists():
                        _extract(archive, member, target)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{ARCHIVE} is no sound zip archive ({first_line(error)}); run again") from None


def _extract(archive, member, target):
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")  # of this process: another may do the same
    try:
        with archive.open(member) as source, open(partial, "wb") as copy:
            shutil.copyfileobj(source, copy)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_facts(data_dir):
    """Makes uci.csv anew from the files under `data_dir/uci`; rows of tasks that are not there stay."""
    rows = []
    for task, known in facts().items():
        place = pathlib.Path(data_dir) / "uci" / task
        rows.append(describe(read(task, place)) if (place / file_names(task)[0]).is_file() else known)
    path = pathlib.Path(__file__).with_name("uci.csv")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Facts._fields)
        for row in rows:
            cells = row._replace(class_counts=" ".join(map(str, row.class_counts)), fixed_test=int(row.fixed_test))
            writer.writerow(cells)
    return path


if __name__ == "__main__":
    print(write_facts(sys.argv[1]))
