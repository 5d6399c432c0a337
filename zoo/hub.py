"""Reading the Hugging Face Hub: addresses, checked files in its cache, and lists of models.

`huggingface_hub` talks and keeps the cache, so HF_ENDPOINT, HF_TOKEN,
HF_HUB_CACHE and HF_HUB_OFFLINE mean here what they mean there. It checks the
sizes of what it fetches and no more; here every file is held to a sha256. For a
model of this package that is SHA256SUMS, whose own sum is pinned; for anyone
else's it is what the Hub reports at the resolved commit, kept in the cache beside
the files. The client is imported on first use.
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import pathlib
import queue
import tempfile
import threading
import time
from typing import NamedTuple

from zoo.messages import first_line
from zoo.messages import quoted

NAMESPACE = "keras-mpelu"  # of the models of this package
SCHEME = "hf://"
NEEDED = ("config.json", "metadata.json", "model.weights.h5")
OPTIONAL = ("recipe.json",)  # the names of classes and columns, for `python -m zoo predict`
SUMS = "SHA256SUMS"
REPORTED = "zoo_sums"  # our folder in a repository's cache: COMMIT.json, the sums that the Hub reported

ANSWER_SECONDS = 60  # for one file to begin to come
SLOWEST = 10_000  # bytes a second; slower is taken for a server that will never end
PAUSES = (1, 4)  # seconds before the second and the third try
LONGEST_PAUSE = 60  # where the Hub asks for more (429 with Retry-After), the user is told instead
PASSING = {408, 429, 500, 502, 503, 504}  # answers that another try may better


class Address(NamedTuple):
    """A repository on the Hub and the revision in it; `None` is its main branch."""

    repository: str
    revision: str | None = None


class Sum(NamedTuple):
    """What a file is held to. The Hub names small files by git's sha1, large ones by sha256."""

    algorithm: str
    digest: str


def repository_of(name):
    """The repository of a model of this package."""
    return f"{os.environ.get('ZOO_HUB_NAMESPACE') or NAMESPACE}/{name}"


def tag_of(pin):
    """The tag that `training.publish` gives to the commit whose SHA256SUMS has this sum.

    Derived from the content, so a later version moves nothing under a package
    that pins an earlier one.
    """
    return f"sums-{pin[:12]}"


def parse_address(text):
    """`hf://namespace/name` or `hf://namespace/name@revision`, taken apart.

    Raises:
        ValueError: it is not of this form, or a name in it is not the Hub's.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repository, at, revision = text.removeprefix(SCHEME).partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"{quoted(text)} is no address on the Hub: {first_line(error)}") from None
    if "/" not in repository or (at and not revision):
        raise ValueError(
            f"{quoted(text)} is no address on the Hub; expected hf://namespace/name or hf://namespace/name@v1"
        )
    return Address(repository, revision or None)


def check_relative(path, where):
    """Raises ValueError where a path from elsewhere could lead out of its folder."""
    parts = path.split("/")
    if not path or "\\" in path or ":" in path or "\0" in path or {"", ".", ".."} & set(parts):
        raise ValueError(f"{where} names the path {path!r}, which leads out of its folder; do not use this model")
    return path


def fetch(address, pin=None):
    """The folder of a model in the Hub's cache, with the files that a load needs, each checked.

    A file that differs from its sum is fetched once more, which mends a cache
    that was cut short.

    Args:
        address: An `Address`.
        pin: Expected sha256 of SHA256SUMS, for a model of this package.

    Returns:
        The path of the folder.

    Raises:
        ValueError: a file is not what its sum says.
        OSError: a file can be had neither from the Hub nor from the cache.
    """
    repository, revision = address
    check_relative(revision or "main", "the address")
    first = SUMS if pin else NEEDED[0]
    # A pin says what the file must be, so the Hub need not be asked whether a tag has moved.
    path = download(repository, first, revision, moves=not pin)
    if pin:
        path = checked(path, repository, revision, first, Sum("sha256", pin))
    folder = path.parent
    # From here on by commit: a branch that moves meanwhile must not mix two versions.
    sums = read_sums(path) if pin else _reported_sums(repository, folder)
    for file in NEEDED:
        if file not in sums:
            raise ValueError(
                f"{repository} has no {file}, so it is no model in Keras's directory format; fetch a .keras file with "
                "huggingface_hub.hf_hub_download and load it with keras.saving.load_model"
            )
    assets = [file for file in sums if file.startswith("assets/") and not pin]
    for file in (*NEEDED, *(file for file in OPTIONAL if file in sums), *assets):
        checked(download(repository, file, folder.name), repository, folder.name, file, sums[file])
    return folder


def checked(path, repository, revision, file, expected, repo_type="model"):
    """The file, fetched anew if it is not what it should be.

    Raises:
        ValueError: it is not even then.
    """
    if agrees(path, expected):
        return path
    with contextlib.suppress(OSError):  # without a network the message below is the better one
        path = download(repository, file, revision, repo_type, force=True)
    if not agrees(path, expected):
        raise ValueError(
            f"{file} of {repository} is not the one expected: {expected.algorithm} {digest(path, expected.algorithm)}, "
            f"expected {expected.digest}; if it was fetched long ago, delete {path.resolve()} and load again with a "
            "network; else the repository was altered, and should not be used"
        )
    return path


def agrees(path, expected):
    return digest(path, expected.algorithm) == expected.digest


def digest(path, algorithm):
    """Hexadecimal sum of a file; `git-sha1` is git's, which counts the size in."""
    with open(path, "rb") as file:
        if algorithm == "sha256":
            return hashlib.file_digest(file, "sha256").hexdigest()
        header = b"blob %d\0" % os.fstat(file.fileno()).st_size
        return hashlib.file_digest(file, lambda: hashlib.sha1(header)).hexdigest()


def read_sums(path):
    """What a SHA256SUMS file says, as `{file: Sum}`.

    Raises:
        ValueError: a line is not of the form of `sha256sum`, or names a path
            outside the folder.
    """
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found, _, file = line.partition("  ")
        if len(found) != 64 or not set(found) <= set("0123456789abcdef"):
            raise ValueError(f"{path} has the line {line[:80]!r}; expected 64 hexadecimal digits, two spaces, a name")
        sums[check_relative(file, path)] = Sum("sha256", found)
    return sums


def _reported_sums(repository, folder):
    """The sums of all files at a commit: kept ones, else the Hub's, else those by which the cache names its files."""
    kept = folder.parents[1] / REPORTED / f"{folder.name}.json"
    try:
        return {check_relative(file, kept): Sum(*found) for file, found in json.loads(kept.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # there are none yet, or the file was cut short
    import huggingface_hub

    try:
        information = patiently(
            lambda: huggingface_hub.HfApi().model_info(repository, revision=folder.name, files_metadata=True),
            ANSWER_SECONDS,
        )
    except client_errors() as error:
        if sums := _sums_by_cache(folder):
            return sums
        raise OSError(
            f"cannot learn the sums of {repository} from the Hub at {endpoint()}: {explain(error)}"
        ) from error
    sums = sums_of(information)
    for file in sums:
        check_relative(file, repository)
    with contextlib.suppress(OSError):  # a cache that is full or not ours to write still serves
        _write_whole(kept, json.dumps(sums, indent=1))
    return sums


def sums_of(information):
    """`{file: Sum}` of what the Hub answers about a repository with `files_metadata`."""
    return {
        file.rfilename: Sum("sha256", file.lfs.sha256) if file.lfs else Sum("git-sha1", file.blob_id)
        for file in information.siblings or ()
    }


def _sums_by_cache(folder):
    """`{file: Sum}` from the links of a snapshot, whose targets the client names by the Hub's sums."""
    algorithms = {40: "git-sha1", 64: "sha256"}
    names = {file: file.readlink().name for file in folder.rglob("*") if file.is_symlink()}
    return {
        file.relative_to(folder).as_posix(): Sum(algorithms[len(name)], name)
        for file, name in names.items()
        if len(name) in algorithms
    }


def _write_whole(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def download(repository, file, revision=None, repo_type="model", force=False, moves=True):
    """One file in the Hub's cache, fetched if it is not there.

    Args:
        repository: `namespace/name`.
        file: Path in the repository.
        revision: Branch, tag or commit; `None` is the main branch.
        repo_type: `"model"` or `"dataset"`.
        force: Whether to fetch it though the cache has it.
        moves: Whether the Hub is asked if the revision means another commit
            by now. A commit never does.

    Returns:
        The path of the file.

    Raises:
        OSError: it can be had neither from the Hub nor from the cache; the
            message says why and what to do.
    """
    import huggingface_hub as client
    from huggingface_hub import errors

    where = {"repo_type": repo_type, "revision": revision}
    try:
        cached = client.try_to_load_from_cache(repository, file, **where)
        cached = pathlib.Path(cached) if isinstance(cached, str) and not force else None
        if cached and (cached.parents[len(pathlib.PurePath(file).parts) - 1].name == revision or not moves):
            return cached
        # One request first: without a network the download alone would retry for half a minute.
        url = client.hf_hub_url(repository, file, endpoint=endpoint(), **where)
        try:
            size = patiently(lambda: client.get_hf_file_metadata(url), ANSWER_SECONDS).size
        except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError):
            raise
        except client_errors():
            if cached:
                return cached  # as the client itself does: better the last one known than none
            raise
        path = patiently(
            lambda: client.hf_hub_download(repository, file, force_download=force, **where),
            ANSWER_SECONDS + (size or 0) / SLOWEST,
        )
    except (*client_errors(), ValueError) as error:  # ValueError: what the client's own check of names says
        reason = explain(error, cached=True)
        raise OSError(f"cannot fetch {file} of {repository} from the Hub at {endpoint()}: {reason}") from error
    return pathlib.Path(path)


def list_remote(namespace=None, pattern="*"):
    """Addresses of the Keras models in a namespace of the Hub.

    Raises:
        OSError: the Hub cannot be reached, or refuses.
    """
    import huggingface_hub

    namespace = namespace or repository_of("").rstrip("/")
    try:
        found = _in_time(  # the client is patient by itself here
            lambda: [model.id for model in huggingface_hub.HfApi().list_models(author=namespace, filter="keras")],
            ANSWER_SECONDS,
        )
    except client_errors() as error:
        raise OSError(
            f"cannot list the models of {namespace!r} on the Hub at {endpoint()}: {explain(error)}"
        ) from error
    return [f"{SCHEME}{name}" for name in sorted(found) if fnmatch.fnmatch(name.partition("/")[2], pattern)]


def endpoint():
    """The address of the Hub in use."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def client_errors():
    """The exceptions of huggingface_hub and of the HTTP client below it."""
    try:
        from huggingface_hub.utils import httpx  # whichever of httpx and httpx2 this version uses
    except ImportError:
        import httpx
    return OSError, RuntimeError, httpx.HTTPError  # RuntimeError: the client's xet part


def patiently(action, seconds):
    """The result of a request, tried again where that may help, and given up where it never ends.

    Raises:
        TimeoutError: no result after `seconds`.
    """
    for pause in (*PAUSES, None):
        try:
            return _in_time(action, seconds)
        except client_errors() as error:
            pause = _pause_before_retry(error, pause)
            if pause is None:
                raise
        time.sleep(pause)


def _pause_before_retry(error, pause):
    """Seconds to wait, or `None` where another try is of no use."""
    if pause is None:
        return None
    if (response := _response(error)) is not None:
        asked = response.headers.get("Retry-After", "")
        pause = int(asked) if asked.isdigit() else pause
        return pause if response.status_code in PASSING and pause <= LONGEST_PAUSE else None
    # A connection that broke, but not one that was refused: by httpx's names, whichever httpx it is.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    broke = "TransportError" in kinds and "ConnectError" not in kinds
    changed = str(error).startswith("Consistency check failed")  # another size than announced: the branch has moved
    return pause if broke or changed else None


def _in_time(action, seconds):
    """Runs an action in a thread, so that a server that sends a byte now and then cannot hold us for ever."""
    results = queue.SimpleQueue()

    def work():
        try:
            results.put((action(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=work, name="hub", daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        import huggingface_hub

        huggingface_hub.close_session()  # ends the thread's request; the client opens another session by itself
        raise TimeoutError(f"no end after {seconds:.0f} s, slower than {SLOWEST / 1000:g} kB/s") from None
    if error is not None:
        raise error
    return result


def _causes(error):
    """The exception, its cause, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _response(error):
    """The HTTP response behind an exception, if there is one."""
    responses = (getattr(one, "response", None) for one in _causes(error))
    return next((response for response in responses if response is not None), None)


def explain(error, cached=False):
    """Why a request failed and how to mend it, in one line; `cached` where a copy in the cache would have served."""
    from huggingface_hub import errors

    def caused_by(*kinds):
        return any(isinstance(one, kinds) for one in _causes(error))

    response = _response(error)
    status = getattr(response, "status_code", None)
    login = "log in with `hf auth login`, or set HF_TOKEN to a token that may do this"
    if caused_by(errors.OfflineModeIsEnabled):
        if cached:
            return "it is not in the cache and HF_HUB_OFFLINE is set; unset it and load the model once with a network"
        return "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"
    if status == 401:
        return f"answer 401 (not logged in, or no such repository); check the name, or {login}"
    if status == 403 or caused_by(errors.GatedRepoError):
        return f"answer 403 (not allowed); ask the owner for access, and {login}"
    if caused_by(errors.RevisionNotFoundError):
        return "answer 404 (no such revision); check it on the repository's page"
    if caused_by(errors.RepositoryNotFoundError):
        return f"answer 404 (no such repository, or a private one); check the name, or {login}"
    if caused_by(errors.EntryNotFoundError) and status == 404:
        return "answer 404 (no such file in it)"
    if status == 429:
        wait = response.headers.get("Retry-After")
        return f"answer 429 (too many requests); try again in {wait or 'some'} seconds"
    if status is not None:
        return f"answer {status}: {first_line(error)}"
    return f"{first_line(error)}; check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
