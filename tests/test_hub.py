"""Models from the Hub: the real client against a stand-in on 127.0.0.1, and everything that may go wrong."""

import contextlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import subprocess
import sys
import time

import h5py
import huggingface_hub
import keras
import numpy as np
import pytest
from hub_server import Hub
from hub_server import sha256
from huggingface_hub import constants

import zoo
from zoo.folders import find_folder
from zoo.hub import SUMS
from zoo.hub import Address
from zoo.hub import fetch
from zoo.hub import list_remote
from zoo.hub import parse_address
from zoo.hub import tag_of
from zoo.registry import BUNDLED
from zoo.registry import published_weights

SMALL = "snn_mlp2.wine"
REPOSITORY = f"keras-mpelu/{SMALL}"
WEIGHTS = "model.weights.h5"
FOREIGN = Address("somebody/net")
ROOT = pathlib.Path(__file__).parent.parent
CLEAR_REFS = pathlib.Path("/proc/self/clear_refs")  # where the system has it


def memory(name):
    status = pathlib.Path("/proc/self/status")
    return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1]) if status.exists() else None


def files_of(name):
    return {path.name: path.read_bytes() for path in (BUNDLED / name).iterdir()}


def golden(name):
    arrays = np.load(BUNDLED / name / "golden.npz")
    return arrays["inputs"], arrays["outputs"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with the small model, also under somebody's name; an empty cache; a package that bundles nothing."""
    with Hub(lfs=True) as server:
        use(server.address, tmp_path / "cache", monkeypatch)
        commit = server.commit(REPOSITORY, files_of(SMALL))
        server.repositories[REPOSITORY]["tags"][tag_of(published_weights()[SMALL])] = commit
        server.commit(FOREIGN.repository, files_of(SMALL))
        monkeypatch.setattr("zoo.folders.BUNDLED", tmp_path / "nothing")
        yield server
    huggingface_hub.close_session()


def use(address, cache, monkeypatch):
    """Points the client at a server and a cache; it reads its environment only once, so not through that."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("zoo.hub.PAUSES", (0, 0))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")


def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def once(kind, path, answer):
    """A fault: the first request of this kind for this path gets `answer`, the others the truth."""
    left = [answer]

    def fault(request):
        if request.command == kind and request.route.endswith(path) and left:
            return left.pop()(request) is None

    return fault


def always(path, answer):
    return lambda request: request.route.endswith(path) and answer(request) is None


def blob(folder, file):
    return (folder / file).resolve()


# What must work


def test_a_published_model_loads_from_the_hub_with_only_the_files_it_needs(hub, monkeypatch):
    x, y = golden(SMALL)
    np.testing.assert_allclose(zoo.load_model(SMALL).predict(x, verbose=0), y, atol=1e-4)
    fetched = {request.rpartition("/")[2] for request in hub.requests if request.startswith("GET keras-mpelu/")}
    assert fetched == {"config.json", "metadata.json", WEIGHTS, "recipe.json", SUMS}
    hub.requests.clear()
    folder, _ = find_folder(SMALL)  # pinned by content: once in the cache, no request at all
    assert hub.requests == []
    offline(monkeypatch)
    assert find_folder(SMALL)[0] == folder


@pytest.mark.parametrize("revision", [None, "v1", "commit"])
def test_anyones_model_loads_by_its_address(hub, revision, monkeypatch):
    first = hub.commit("somebody/net", files_of(SMALL))
    hub.repositories["somebody/net"]["tags"]["v1"] = first
    if revision:
        hub.commit("somebody/net", {**files_of(SMALL), WEIGHTS: b"a later version"})
    address = "hf://somebody/net" + {None: "", "v1": "@v1", "commit": f"@{first}"}[revision]
    x, y = golden(SMALL)
    np.testing.assert_allclose(zoo.load_model(address).predict(x, verbose=0), y, atol=1e-4)
    offline(monkeypatch)
    assert find_folder(address)[0].name == first


def test_the_address_and_the_argument_must_not_disagree(hub):
    assert find_folder("hf://somebody/net", revision="main") == find_folder("hf://somebody/net@main")
    with pytest.raises(ValueError, match="give one"):
        find_folder("hf://somebody/net@v1", revision="v2")


def test_what_is_no_address_is_refused(hub):
    for address in ("", "net", "a/b/c", "a/b@", "a/..", "a/b@../../up", "a/b@/etc", "a b/c"):
        with pytest.raises(ValueError, match="address"):
            find_folder(f"hf://{address}")
    assert hub.requests == []


def test_parse_address():
    assert parse_address("hf://a/b") == ("a/b", None)
    assert parse_address("hf://a/b@refs/pr/1") == ("a/b", "refs/pr/1")


def test_plain_keras_reads_the_fetched_folder(hub):
    x, y = golden(SMALL)
    model = keras.saving.load_model(fetch(FOREIGN))
    np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=1e-4)


def test_a_branch_is_followed_and_the_old_files_are_not_mixed_in(hub):
    old = fetch(FOREIGN)
    files = {**files_of(SMALL), "recipe.json": b"{}"}
    hub.commit(FOREIGN.repository, files)
    new = fetch(FOREIGN)
    assert old != new and (new / "recipe.json").read_bytes() == b"{}"


def test_a_branch_that_moves_in_the_middle_gives_one_version(hub):
    other = {**files_of(SMALL), "metadata.json": b'{"keras_version": "9"}', "config.json": b"{}"}

    def move(request):
        hub.commit(FOREIGN.repository, other)
        return False  # and lets the Hub answer

    hub.fault = once("GET", "config.json", move)
    folder = fetch(FOREIGN)
    assert folder.name in {commit for commit, _ in hub.repositories[FOREIGN.repository]["commits"]}
    versions = [
        dict(files) for commit, files in hub.repositories[FOREIGN.repository]["commits"] if commit == folder.name
    ]
    assert all(versions[0][file] == content for file, content in contents(folder).items())


def test_a_tag_that_was_moved_is_refused_where_it_is_pinned(hub):
    other = hub.commit(REPOSITORY, {**files_of("snn_mlp4.digits")})
    hub.repositories[REPOSITORY]["tags"] = dict.fromkeys(hub.repositories[REPOSITORY]["tags"], other)
    with pytest.raises(ValueError, match="SHA256SUMS of keras-mpelu/snn_mlp2.wine is not the one expected"):
        zoo.load_model(SMALL)


def test_the_sums_of_others_are_kept_and_checked_offline(hub, monkeypatch):
    folder = fetch(FOREIGN)
    kept = json.loads((folder.parents[1] / "zoo_sums" / f"{folder.name}.json").read_text())
    assert kept[WEIGHTS] == ["sha256", sha256(files_of(SMALL)[WEIGHTS])]
    assert not huggingface_hub.scan_cache_dir().warnings  # the client does not mind them
    offline(monkeypatch)
    assert fetch(FOREIGN) == folder
    content = bytearray(blob(folder, WEIGHTS).read_bytes())
    content[-1] ^= 1
    blob(folder, WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=f"{WEIGHTS} of somebody/net is not the one expected"):
        fetch(FOREIGN)


def test_a_cache_that_another_tool_filled_is_checked_by_the_names_of_its_files(hub, monkeypatch):
    folder = pathlib.Path(huggingface_hub.snapshot_download(FOREIGN.repository))
    offline(monkeypatch)
    assert fetch(FOREIGN) == folder
    blob(folder, "config.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match="config.json of somebody/net is not the one expected: git-sha1"):
        fetch(FOREIGN)


def test_the_namespace_is_listed(hub, capsys, monkeypatch):
    from zoo.__main__ import main

    assert main(["list", "--remote"]) == 0
    assert capsys.readouterr().out == f"hf://{REPOSITORY}\n"
    assert main(["list", "n*", "--remote", "--namespace", "somebody"]) == 0
    assert capsys.readouterr().out == "hf://somebody/net\n"
    assert main(["list", "--remote", "--namespace", "nobody"]) == 1
    hub.fault = always("api/models", lambda request: request.refuse(403, "", "no"))
    assert main(["list", "--remote"]) == 1
    message = capsys.readouterr().err
    assert "answer 403" in message.splitlines()[-1] and "Traceback" not in message


# Weights outlive versions

FOLDERS = sorted((ROOT / "tests" / "folders").glob("keras-*/*"))


def test_there_are_folders_written_by_the_oldest_keras_supported():
    oldest = re.search(r'"keras>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    written_by = {json.loads((folder / "metadata.json").read_text())["keras_version"] for folder in FOLDERS}
    assert any(f"{version}.".startswith(f"{oldest}.0.") for version in written_by), "write one with `zoo.save_model`"
    assert {folder.name for folder in FOLDERS} == {"mpelu_resnet8", "snn_mlp2"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: "/".join(folder.parts[-2:]))
def test_a_folder_written_by_another_version_of_keras_gives_its_outputs(folder):
    arrays = np.load(folder / "golden.npz")
    model = zoo.load_model(folder)
    assert np.ptp(arrays["outputs"], axis=0).max() > 0.01
    np.testing.assert_allclose(model.predict(arrays["inputs"], verbose=0), arrays["outputs"], atol=1e-5)
    # Today's code gives the layers the names that they had.
    depth = {"depth": 8, "input_shape": (8, 8, 3)} if "resnet" in folder.name else {"width": 8, "num_features": 5}
    again = zoo.create_model(folder.name.replace("resnet8", "resnet20"), num_classes=3, **depth)
    assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]


# Faults of the Hub


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "", "answer 401 .*HF_TOKEN"),
        (403, "GatedRepo", "answer 403 .*ask the owner"),
        (404, "RepoNotFound", "answer 404 .no such repository"),
        (404, "RevisionNotFound", "answer 404 .no such revision"),
        (404, "EntryNotFound", "answer 404 .no such file"),
        (429, "", "answer 429 .*in 3600 seconds"),
        (500, "", "answer 500"),
    ],
)
def test_an_answer_that_stays_bad_is_one_clear_line(hub, status, code, words):
    hub.fault = lambda request: request.refuse(status, code, "no", {"Retry-After": "3600"}) is None
    started = time.monotonic()
    for name in (SMALL, "hf://somebody/net"):
        with pytest.raises(OSError, match=words) as error:
            find_folder(name)
        assert "\n" not in str(error.value) and hub.address in str(error.value)
    assert time.monotonic() - started < 30


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its vocabularies are TensorFlow's tables")
def test_a_model_with_a_vocabulary_comes_with_its_assets(hub, tmp_path):
    inputs = keras.Input((3,), dtype="int64")
    lookup = keras.layers.IntegerLookup(output_mode="multi_hot")
    lookup.adapt(np.array([5, 7, 9]))  # one that is given, not adapted, is in the config
    model = keras.Model(inputs, keras.layers.Dense(2)(lookup(inputs)))
    model.save(tmp_path / "codes", zipped=False)
    assert list((tmp_path / "codes" / "assets").rglob("*.txt"))
    hub.commit("somebody/codes", contents(tmp_path / "codes"))
    x = np.array([[5, 7, 1], [9, 9, 5]])
    again = zoo.load_model("hf://somebody/codes", compile=False)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_server_that_is_down_is_one_clear_line(hub, tmp_path, monkeypatch):
    folder = fetch(FOREIGN)
    use("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    assert fetch(FOREIGN) == folder  # from the cache
    with pytest.raises(OSError, match="somebody/other.*at http://127.0.0.1:9: .*check the network"):
        fetch(Address("somebody/other"))


def test_offline_with_an_empty_cache_is_one_clear_line(hub, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(OSError, match="not in the cache and HF_HUB_OFFLINE is set.* load the model once") as error:
        zoo.load_model(SMALL)
    assert str(error.value).count("cannot fetch") == 1
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set, so the Hub is not asked; unset it$"):
        list_remote()
    assert hub.requests == []


@pytest.mark.parametrize("status", [429, 500])
def test_a_passing_fault_is_waited_for(hub, status):
    cases = [(method, file) for method in ("HEAD", "GET") for file in (WEIGHTS, "config.json")]
    for number, (method, file) in enumerate(cases):
        address = Address(f"somebody/net{number}")
        hub.commit(address.repository, files_of(SMALL))
        hub.fault = once(method, file, lambda request: request.refuse(status, "", "soon", {"Retry-After": "0"}))
        assert contents(fetch(address)).items() <= files_of(SMALL).items()


def test_a_listing_that_fails_once_is_asked_again(hub):
    left = [1]

    def fault(request):
        if "/revision/" in request.route and left:
            left.pop()
            request.refuse(503, "", "soon")
            return True

    hub.fault = fault
    fetch(FOREIGN)
    assert not left


def test_a_connection_cut_at_random_bytes_resumes(hub):
    content = files_of(SMALL)[WEIGHTS]
    headers = {"X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}
    rng = random.Random(0)
    for number in range(3):
        address = Address(f"somebody/net{number}")
        hub.commit(address.repository, files_of(SMALL))
        part = content[: rng.randrange(1, len(content))]
        hub.requests.clear()
        hub.fault = once("GET", WEIGHTS, lambda request, part=part: request.cut(part, len(content), headers))
        assert contents(fetch(address)).items() <= files_of(SMALL).items()
        assert [request.partition(" ")[0] for request in hub.requests if request.endswith(WEIGHTS)].count("GET") == 2


def test_a_slow_loris_is_given_up(hub, monkeypatch):
    monkeypatch.setattr("zoo.hub.ANSWER_SECONDS", 1.5)
    monkeypatch.setattr("zoo.hub.SLOWEST", 1e9)
    content = files_of(SMALL)[WEIGHTS]

    def drip(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        with contextlib.suppress(OSError):  # when the client has gone
            for byte in content:  # for two and a half hours
                request.wfile.write(bytes([byte]))
                request.wfile.flush()
                time.sleep(0.2)
        request.close_connection = True

    hub.fault = lambda request: request.command == "GET" and request.route.endswith(WEIGHTS) and drip(request) is None
    started = time.monotonic()
    with pytest.raises(OSError, match="no end after"):
        fetch(FOREIGN)
    assert time.monotonic() - started < 30
    hub.fault = None
    monkeypatch.setattr("zoo.hub.ANSWER_SECONDS", 60)
    assert contents(fetch(FOREIGN)).items() <= files_of(SMALL).items()  # nothing holds the file's lock for long


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
@pytest.mark.parametrize("pinned", [False, True])
def test_wrong_content_of_the_right_size_is_refused(hub, file, pinned):
    content = bytearray(files_of(SMALL)[file])
    content[len(content) // 2] ^= 1

    def lie(request):
        request.send(200, bytes(content), {"X-Repo-Commit": "0" * 40})

    hub.fault = lambda request: request.command == "GET" and request.route.endswith(file) and lie(request) is None
    with pytest.raises(ValueError, match=f"{file} of .* is not the one expected"):
        find_folder(SMALL if pinned else "hf://somebody/net")
    hub.fault = None  # and what was wrong does not stay in the cache
    folder = find_folder(SMALL if pinned else "hf://somebody/net")[0]
    assert contents(folder).items() <= files_of(SMALL).items()


def test_swapped_files_are_refused(hub):
    files = files_of(SMALL)
    pairs = {"config.json": files["metadata.json"], "metadata.json": files["config.json"]}

    def swap(request):
        name = request.route.rpartition("/")[2]
        if request.command == "GET" and name in pairs and "/resolve/" in request.route:
            request.send(200, pairs[name], {"X-Repo-Commit": "0" * 40})
            return True

    hub.fault = swap
    with pytest.raises((ValueError, OSError), match="is not the one expected|Consistency check failed"):
        fetch(FOREIGN)
    hub.fault = None
    assert contents(fetch(FOREIGN)).items() <= files_of(SMALL).items()


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("size", [0, 1000])
def test_a_truncated_file_in_the_cache_is_fetched_again(hub, pinned, size, monkeypatch):
    name = SMALL if pinned else "hf://somebody/net"
    folder = find_folder(name)[0]
    path = blob(folder, WEIGHTS)
    path.write_bytes(path.read_bytes()[:size])
    assert find_folder(name)[0] == folder
    assert contents(folder).items() <= files_of(SMALL).items()
    path.write_bytes(b"")
    offline(monkeypatch)
    with pytest.raises(ValueError, match=f"delete {path} and load again with a network"):
        find_folder(name)


def test_a_full_disk_is_one_clear_line_and_leaves_no_half_file(hub):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the h5 has 46 kB
    try:
        with pytest.raises(OSError, match=f"cannot fetch {WEIGHTS} of somebody/net.*File too large") as error:
            fetch(FOREIGN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert not list(pathlib.Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    assert contents(fetch(FOREIGN)).items() <= files_of(SMALL).items()


def test_two_processes_at_once_both_get_the_right_files(hub, tmp_path):
    code = (
        "import sys\nfrom zoo.hub import Address, fetch, digest\n"
        f"print(digest(fetch(Address('somebody/net')) / '{WEIGHTS}', 'sha256'))"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == 2 * [
        sha256(files_of(SMALL)[WEIGHTS])
    ]


def test_a_path_that_leaves_its_folder_is_refused(hub):
    for number, path in enumerate(("../up.json", "/etc/passwd", "a/../../b", "C:\\x", "a//b", ".")):
        slip = Address(f"somebody/slip{number}")
        hub.commit(slip.repository, {**files_of(SMALL), path: b"x"})
        with pytest.raises(ValueError, match="leads out of its folder"):
            fetch(slip)
        files = files_of(SMALL)
        files[SUMS] += f"{sha256(b'x')}  {path}\n".encode()
        hub.commit(slip.repository, files)
        with pytest.raises(ValueError, match="leads out of its folder"):
            fetch(slip, sha256(files[SUMS]))


def test_a_commit_that_leaves_the_cache_is_refused(hub, tmp_path):
    hub.fault = always(
        "config.json", lambda request: request.send_file(b"{}", "a" * 40, f"../../../../{tmp_path.name}-outside")
    )
    with pytest.raises((OSError, ValueError)) as error:
        fetch(FOREIGN)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}-outside*"))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_a_repository_that_holds_no_folder_of_keras_says_so(hub):
    hub.commit("somebody/zip", {"config.json": b"{}", "model.keras": b"PK"})
    with pytest.raises(ValueError, match="no metadata.json, so it is no model in Keras's directory format"):
        fetch(Address("somebody/zip"))


# What a folder may hold


def foreign_folder(tmp_path, change=None, weights=None):
    """A folder of one's own, without sums, whose config.json was changed by a function."""
    folder = tmp_path / "foreign"
    shutil.copytree(BUNDLED / SMALL, folder)
    (folder / SUMS).unlink()
    if change:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
    if weights:
        with h5py.File(folder / WEIGHTS, "r+") as file:
            weights(file)
    return folder


def first_dense(config):
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense")


def as_lambda(config):
    function = {"class_name": "__lambda__", "config": {"value": "4wEAAAA=", "defaults": None, "closure": None}}
    first_dense(config).update(class_name="Lambda", config={"name": "hidden1", "function": function})


def inner_lambda(config):
    first_dense(config)["config"]["activation"] = {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}


def unknown_class(config):
    first_dense(config).update(class_name="Evil", module="os.path", registered_name="evil>Net")


def module_of_code(config):
    first_dense(config).update(class_name="TorchModuleWrapper")


def huge(config):
    first_dense(config)["config"]["units"] = 10**9


def huge_and_consistent(config):
    """One layer only, so that nothing but the file itself contradicts it."""
    layers = config["config"]["layers"]
    layers[-1]["config"]["units"] = 10**6


def wrong_shape(file):
    group = file["layers/dense/vars"] if "layers/dense/vars" in file else file[find_vars(file)]
    shape = group["0"].shape
    del group["0"]
    group["0"] = np.zeros((shape[0], shape[1] + 1), "float32")


def find_vars(file):
    found = []
    file.visit(lambda name: found.append(name) if name.endswith("vars/0") and len(file[name].shape) == 2 else None)
    return found[0].removesuffix("/0")


def endless(file):
    """An array whose header promises 10^12 numbers, none of them written."""
    file.create_dataset("bomb", shape=(10**6, 10**6), dtype="float32", chunks=(1000, 1000))


def elsewhere(file):
    file["link"] = h5py.ExternalLink("/etc/passwd", "/x")


def in_another_file(file):
    file.create_dataset("outside", shape=(4,), dtype="uint8", external=[("/etc/passwd", 0, 4)])


def replace_kernel(file, **kept_as):
    group = file[find_vars(file)]
    kernel = group["0"][()]
    del group["0"]
    group.create_dataset("0", **{"data": kernel, **kept_as})


def large_chunks(file):
    """A small array in a chunk of 1.6 GB, which gzip could bring to 1.6 MB; never written here."""
    replace_kernel(file, data=None, shape=(13, 64), dtype="float32", chunks=(20_000, 20_000), maxshape=(None, None))


def text(file):
    """Numbers as text, of which every one may name the same megabyte."""
    replace_kernel(file, data=np.full((13, 64), "1.5", dtype=object), dtype=h5py.string_dtype())


def virtual(file):
    layout = h5py.VirtualLayout(shape=(13, 64), dtype="float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(13, 64))
    file.create_virtual_dataset("outside", layout)


def soft_link(file):
    file["link"] = h5py.SoftLink("/layers")


def named_type(file):
    file["type"] = np.dtype("float32")


def a_layer_only(config):
    layer = first_dense(config)
    config.clear()
    config.update(layer)


def no_layers(config):
    config.update(module="keras", class_name="Sequential", registered_name=None, config={"name": "empty", "layers": []})


def function_of(module, name):
    def change(config):
        first_dense(config)["config"]["activation"] = {
            "class_name": "function",
            "module": module,
            "config": name,
            "registered_name": "keras_mpelu>MPELU",  # is registered, but not what Keras looks for
        }

    return change


def named_as_a_class(module, name):
    """A function that Keras would return for a class of its name, and call with the layer's outputs."""

    def change(config):
        first_dense(config)["config"]["activation"] = {
            "class_name": name,
            "module": module,
            "config": {},
            "registered_name": None,
        }

    return change


def with_input(**settings):
    def change(config):
        config["config"]["layers"][0]["config"].update(settings)

    return change


def with_dense(**settings):
    def change(config):
        first_dense(config)["config"].update(settings)

    return change


def nested(depth):
    """Models in models, each with nothing but the next."""

    def change(config):
        inner = dict(config)
        for number in range(depth):
            inner = {
                "module": "keras",
                "class_name": "Sequential",
                "registered_name": None,
                "config": {"name": f"m{number}", "layers": [inner]},
            }
        config.clear()
        config.update(inner)

    return change


def numbers_as_text(config):
    first_dense(config)["config"]["activation"] = {
        "class_name": "__numpy__",
        "config": {"value": ["x"], "dtype": "S1000000000"},
    }


def metric_of_a_square(config):
    metric = {"module": "keras.metrics", "class_name": "MeanIoU", "config": {"num_classes": 10**6}}
    compiled = {"optimizer": "adam", "loss": "mse", "metrics": [{**metric, "registered_name": None}]}
    inner = {**config, "compile_config": compiled}
    outer = {"name": "outer", "layers": [inner]}
    config.clear()
    config.update(module="keras", class_name="Sequential", registered_name=None, config=outer)


def code_among_numbers(config):
    first_dense(config)["config"]["seed"] = {"class_name": "Lambda", "module": "keras.layers", "config": {}}


@pytest.mark.parametrize(
    ("change", "weights", "words"),
    [
        (a_layer_only, None, "describes no model with layers, but a Dense"),
        (no_layers, None, "describes no model with layers, but a Sequential"),
        (function_of("keras.config", "disable_interactive_logging"), None, "names the function .* no part of a model"),
        (function_of("os", "system"), None, "names the class 'system' of os, which is not registered"),
        (function_of("keras.activations", "relu.x"), None, "names the function 'relu.x' .* no part of a model"),
        (named_as_a_class("keras.config", "set_floatx"), None, "'set_floatx' of keras.config, which is a function"),
        (named_as_a_class("keras.utils", "set_random_seed"), None, "'set_random_seed' of keras.utils, which is a func"),
        (named_as_a_class("keras.utils", "model_to_dot"), None, "'model_to_dot' of keras.utils, which is a function"),
        (named_as_a_class("keras", "config.set_floatx"), None, "'config.set_floatx', expected a name without a dot"),
        (named_as_a_class("keras", "layers.TorchModuleWrapper"), None, "expected a name without a dot"),
        (named_as_a_class("keras.callbacks", "CSVLogger"), None, "'CSVLogger' of keras.callbacks, which is a type"),
        (named_as_a_class("keras.nothing", "Dense"), None, "'Dense' of keras.nothing, which Keras does not have here"),
        (with_input(batch_shape=[None, 10**9]), None, "batch_shape = 1000000000, more than"),
        (
            with_input(batch_shape=[None, 2**20]),
            None,
            "is not a model that Keras .*incompatible with the layer",
        ),
        (with_input(batch_shape="x"), None, "is not a model that Keras"),
        (with_input(dtype="float33"), None, "is not a model that Keras .*float33"),
        (with_input(dtype={"a": 1}), None, "is not a model that Keras"),
        (with_dense(name="a/../../b"), None, "is not a model that Keras .*name"),
        (with_dense(name=7), None, "is not a model that Keras"),
        (with_dense(dtype="S1000000000"), None, "is not a model that Keras .*S1000000000"),
        (with_dense(units=-5), None, "is not a model that Keras"),
        (with_dense(kernel_constraint=[[]] * 9), None, "is not a model that Keras"),
        (nested(40), None, "is not a model that Keras"),
        (numbers_as_text, None, "has an array of the type 'S1000000000', expected one of numbers"),
        (metric_of_a_square, None, "num_classes = 1000000, more than"),
        (code_among_numbers, None, "holds a Lambda, which would run code"),
        (None, large_chunks, "in chunks of .20000, 20000., too much for this file"),
        (None, text, "is no array of numbers"),
        (None, virtual, "keeps the array /outside in another file"),
        (None, soft_link, "a link .* that leads elsewhere"),
        (None, named_type, "/type, which is no array of numbers"),
        (as_lambda, None, "holds a Lambda, which would run code"),
        (inner_lambda, None, "holds a __lambda__, which would run code"),
        (module_of_code, None, "holds a TorchModuleWrapper, which would run code"),
        (unknown_class, None, "names the class 'evil>Net' of os.path, which is not registered; import the package"),
        (huge, None, "units = 1000000000, more than model.weights.h5 can hold"),
        (huge_and_consistent, None, "asks for the weight classifier/kernel of shape .64, 1000000., which"),
        (None, wrong_shape, "asks for the weight .*, which model.weights.h5 does not hold"),
        (None, endless, "too much for this file"),
        (None, elsewhere, "a link .* that leads elsewhere"),
        (None, in_another_file, "keeps the array /outside in another file"),
    ],
)
def test_a_folder_that_asks_for_what_it_must_not_have_is_refused(tmp_path, change, weights, words):
    folder = foreign_folder(tmp_path, change, weights)
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")  # the peak so far is that of now
    before = memory("VmRSS")
    with pytest.raises(ValueError, match=words) as error:
        zoo.load_model(folder)
    assert "\n" not in str(error.value)
    if CLEAR_REFS.exists():
        assert memory("VmHWM") - before < 100_000  # kB


@keras.saving.register_keras_serializable(package="test_hub")
class Counted(keras.initializers.Zeros):
    """Says how often Keras made a variable's first values."""

    calls = 0

    def __call__(self, shape, dtype=None):
        Counted.calls += 1
        return super().__call__(shape, dtype)


def test_what_was_refused_is_not_allocated_later_either(tmp_path):
    def change(config):
        config["config"]["layers"][-1]["config"] |= {
            "units": 10**6,
            "kernel_initializer": keras.saving.serialize_keras_object(Counted()),
        }

    Counted.calls = 0
    with pytest.raises(ValueError, match="asks for the weight"):
        zoo.load_model(foreign_folder(tmp_path, change))
    with keras.StatelessScope():  # at whose end Keras gives values to all variables that wait for them
        pass
    assert Counted.calls == 0


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # the inner model's, never used
def test_a_model_around_a_compiled_one_loads(tmp_path):
    inner = zoo.load_model(BUNDLED / SMALL)
    assert inner.compiled
    outer = keras.Sequential([keras.Input((13,)), inner, keras.layers.Dense(2)])
    x, _ = golden(SMALL)
    again = zoo.load_model(zoo.save_model(outer, tmp_path / "outer"))
    np.testing.assert_allclose(again.predict(x, verbose=0), outer.predict(x, verbose=0), atol=1e-6)


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def test_a_class_that_is_known_in_a_scope_only_loads_in_it(tmp_path):
    inputs = keras.Input((13,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="classifier")(Doubled(name="doubled")(inputs)))
    x, _ = golden(SMALL)
    with keras.saving.custom_object_scope({"Doubled": Doubled}):
        folder = zoo.save_model(model, tmp_path / "doubled")
        again = zoo.load_model(folder)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    with pytest.raises(ValueError, match="names the class 'Doubled' of test_hub, which is not registered"):
        zoo.load_model(folder)


@pytest.mark.parametrize("content", ["[" * 10**6, '{"config":' * 10**5, "{" * 10**6 + "}" * 10**6, "1" * 10**6])
def test_a_config_without_end_is_one_line(tmp_path, content):
    folder = foreign_folder(tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match="is not a model that Keras") as error:
        zoo.load_model(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_an_untouched_foreign_folder_loads(tmp_path):
    x, y = golden(SMALL)
    np.testing.assert_allclose(zoo.load_model(foreign_folder(tmp_path)).predict(x, verbose=0), y, atol=1e-4)


def test_code_in_a_config_is_never_run(tmp_path):
    marker = str(tmp_path / "ran")

    def change(config):
        with pytest.warns(UserWarning, match="unsafe"):
            run = keras.saving.serialize_keras_object(lambda x: open(marker, "w") and x)
        first_dense(config)["config"]["activation"] = run

    with pytest.raises(ValueError, match="would run code"):
        zoo.load_model(foreign_folder(tmp_path, change))
    assert not os.path.exists(marker)


MUTATIONS = 200


def mutated(original, number, rng):
    """A content with a bit flipped, cut short, with bytes put in, or with some turned around."""
    content = bytearray(original)
    at = rng.randrange(len(content))
    match number % 4:
        case 0:
            content[at] ^= 1 << rng.randrange(8)
        case 1:
            del content[at:]
        case 2:
            content[at:at] = rng.randbytes(rng.randrange(1, 9))
        case 3:
            content[at : at + 16] = reversed(content[at : at + 16])
    return content


@pytest.mark.parametrize("file", sorted(path.name for path in (BUNDLED / SMALL).iterdir()))
def test_mutations_of_each_file_are_refused_or_make_no_difference(tmp_path, file):
    """Flips, cuts, insertions and swaps of a published folder: the pin, or the sums, see every one that matters."""
    from zoo.folders import check_folder

    folder = tmp_path / SMALL
    shutil.copytree(BUNDLED / SMALL, folder)
    original = (folder / file).read_bytes()
    rng = random.Random(file)
    refused = 0
    for number in range(MUTATIONS):
        content = mutated(original, number, rng)
        (folder / file).write_bytes(content)
        for pin in (published_weights()[SMALL], None):
            try:
                check_folder(folder, pin)
            except ValueError as error:
                refused += 1
                assert "\n" not in str(error)
            else:
                # Accepted: then every file that a load reads is the published one.
                assert all(
                    (folder / name).read_bytes() == content
                    for name, content in files_of(SMALL).items()
                    if name in NEEDED
                )
                assert pin is None or content == original
    assert refused >= 1.5 * MUTATIONS


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", ["config.json", "metadata.json", WEIGHTS])
def test_mutations_that_no_sum_can_see_end_in_one_line_or_a_whole_model(tmp_path, file, count):
    folder = foreign_folder(tmp_path)
    original = (folder / file).read_bytes()
    expected = [tuple(weight.shape) for weight in zoo.load_model(folder).weights]
    rng = random.Random(count)
    refused = 0
    for number in range(count):
        (folder / file).write_bytes(mutated(original, number, rng))
        try:
            model = zoo.load_model(folder)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert [tuple(weight.shape) for weight in model.weights] == expected
    assert file == "metadata.json" or refused >= count / 10


@pytest.fixture
def wine_rows(tmp_path):
    """Two rows of wine as a CSV."""
    data = zoo.load_dataset("wine")
    lines = [",".join(data.feature_names), *(",".join(map(str, row)) for row in data.x_test[:2])]
    (tmp_path / "wine.csv").write_text("\n".join(lines))
    return tmp_path / "wine.csv"


@pytest.fixture
def loaded_once(tmp_path, monkeypatch):
    """A folder of one's own whose weights are read once, for tests of recipe.json alone."""
    folder = foreign_folder(tmp_path)
    model = zoo.load_model(folder, compile=False)
    monkeypatch.setattr("zoo.pretrained.load_folder", lambda *_, **__: model)
    return folder


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutations_of_recipe_json_that_no_sum_can_see_end_in_one_line_or_in_predictions(loaded_once, wine_rows, count):
    from zoo.evaluation import check_same_data
    from zoo.prediction import predict_files
    from zoo.pretrained import load_with_details

    original = (loaded_once / "recipe.json").read_bytes()
    expected = predict_files(loaded_once, [wine_rows])
    probabilities = [[probability for _, probability in row["top5"]] for row in expected]
    rng = random.Random(count)
    refused = 0
    for number in range(count):
        (loaded_once / "recipe.json").write_bytes(mutated(original, number, rng))
        try:
            rows = predict_files(loaded_once, [wine_rows])
            check_same_data(load_with_details(loaded_once)[1], zoo.load_dataset("wine"))
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert [[probability for _, probability in row["top5"]] for row in rows] == probabilities
            assert json.loads(json.dumps(rows)) == [{**row, "top5": list(map(list, row["top5"]))} for row in rows]
    assert refused >= count / 4  # those cut short, at the least


COLUMN = {"name": "a", "kind": "number", "vocabulary": [], "fill": 0.0, "flagged": False, "reason": ""}


def table_of(change, count=13):
    return {"table": {"target": "y", "columns": [{**COLUMN, "name": f"x{k}", **change} for k in range(count)]}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON in UTF-8"),
        ("[" * 10**5, "is not JSON in UTF-8"),
        ("9" * 5000, "is not JSON in UTF-8"),
        ("[]", "expected an object, received a list"),
        ("null", "expected an object, received null"),
        ({"class_names": ["a"]}, "class_names has 1 names, but snn_mlp2 has 3 outputs"),
        ({"class_names": 3}, "expected a list of names as class_names"),
        ({"class_names": ["a", "b", ["c"]]}, "expected a list of names as class_names"),
        ({"class_names": [True, False, True]}, "expected a list of names as class_names"),
        ({"feature_names": ["x"]}, "feature_names has 1 columns, but snn_mlp2 takes inputs of shape .13,"),
        ({"feature_names": ["x"] * 13}, "expected a list of different texts as feature_names"),
        ({"feature_names": "abcdefghijklm"}, "expected a list of different texts as feature_names"),
        ({"data": "x"}, "expected an object as data, received a text"),
        ({"data": {"name": 3}}, "expected a text as name of data, received a number"),
        ({"data": {"name": "wine", "sha256": []}}, "expected a text as sha256 of data, received a list"),
        ({"name": {}}, "expected a text as name, received an object"),
        ({"task": "ranking"}, "expected one of classification, regression as task, received 'ranking'"),
        ({"table": {"columns": 3, "target": "y"}}, "table is not one that `python -m training finetune` writes"),
        ({"table": {"columns": [{}], "target": "y"}}, "table is not one that"),
        ({"table": []}, "expected an object as table"),
        (table_of({}, 12), "table has 12 columns, but snn_mlp2 takes inputs of shape .13,"),
        (table_of({"name": "x"}), "table has two columns of one name"),
        (table_of({"kind": "date"}), "table has a column that is none"),
        (table_of({"kind": "category", "flagged": True}), "table has a column that is none"),
        (table_of({"vocabulary": [1]}), "table has a column that is none"),
        (table_of({"fill": 1e400}), "expected a finite number in place of missing ones"),
    ],
)
def test_a_recipe_that_is_none_is_one_line_that_names_the_file(loaded_once, wine_rows, capsys, content, words):
    from zoo.__main__ import main

    (loaded_once / "recipe.json").write_text(content if isinstance(content, str) else json.dumps(content))
    for command in (["predict", str(loaded_once), str(wine_rows)], ["evaluate", str(loaded_once)]):
        assert main(command) == 1
        printed = capsys.readouterr()
        assert printed.out == "" and len(printed.err.splitlines()) == 1
        assert re.search(f"^error: .*recipe.json: {words}", printed.err) or f"recipe.json {words}" in printed.err


def test_what_recipe_json_leaves_out_or_calls_otherwise_is_no_fault(loaded_once, wine_rows):
    from zoo.evaluation import check_same_data
    from zoo.prediction import predict_files
    from zoo.pretrained import load_with_details

    classes, columns = ["a", "b", "c"], zoo.load_dataset("wine").feature_names
    for content, expected in (
        ({"class_names": [7, 8, 9], "feature_names": columns, "data": None}, {"7", "8", "9"}),
        ({"class_names": classes, **table_of({})}, set(classes)),
        ({"class_names": None, "table": None, "feature_names": columns}, {"0", "1", "2"}),
    ):
        (loaded_once / "recipe.json").write_text(json.dumps(content))
        if "table" in content and content["table"]:
            text = wine_rows.read_text().splitlines()
            wine_rows.with_name("x.csv").write_text("\n".join([",".join(f"x{k}" for k in range(13)), *text[1:]]))
            rows = predict_files(loaded_once, [wine_rows.with_name("x.csv")])
        else:
            rows = predict_files(loaded_once, [wine_rows])
        assert {name for row in rows for name, _ in row["top5"]} == expected
    (loaded_once / "recipe.json").write_text(json.dumps({"data": {"name": "wine", "sha256": "0"}}))
    with pytest.raises(ValueError, match="wine is not split as it was for foreign: sha256"):
        check_same_data(load_with_details(loaded_once)[1], zoo.load_dataset("wine"))


def test_names_and_weights_are_of_one_commit_though_the_branch_moves(hub, wine_rows):
    from zoo.prediction import predict_files

    def named(*names):
        details = json.loads(files_of(SMALL)["recipe.json"])
        return {**files_of(SMALL), "recipe.json": json.dumps({**details, "class_names": names}).encode()}

    hub.commit(FOREIGN.repository, named("a", "b", "c"))

    def move(request):  # as soon as the first load has fetched the last of its files
        hub.commit(FOREIGN.repository, named("x", "y", "z"))
        return False

    hub.fault = once("GET", "recipe.json", move)
    rows = predict_files(f"hf://{FOREIGN.repository}", [wine_rows])
    assert {name for row in rows for name, _ in row["top5"]} == {"a", "b", "c"}
    assert len(hub.repositories[FOREIGN.repository]["commits"]) == 3  # the branch did move


NEEDED = ("config.json", "metadata.json", WEIGHTS, "recipe.json")
