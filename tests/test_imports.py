"""Arrows point one way: keras <- keras_mpelu <- zoo <- training."""

import ast
import pathlib
import shutil
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ALLOWED = {"keras_mpelu": {"keras_mpelu"}, "zoo": {"keras_mpelu", "zoo"}}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_loads_none_above_it(package):
    """Every module of the package, in a fresh interpreter."""
    modules = sorted(f"{package}.{path.stem}" for path in (ROOT / package).glob("*.py") if path.stem != "__main__")
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name.removesuffix('.__init__'))\n"
    code += "print(*{name.partition('.')[0] for name in sys.modules} & {'keras_mpelu', 'zoo', 'training'})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == ALLOWED[package]


@pytest.mark.parametrize("package", ALLOWED)
def test_nor_does_a_function_of_it(package):
    """What is imported within functions, or in a file that no test above loads, is seen in the text alone."""
    for path in (ROOT / package).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        assert {name.partition(".")[0] for name in names} & {"keras_mpelu", "zoo", "training"} <= ALLOWED[package], path


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="of a checkout by git")
def test_git_gives_what_is_held_to_sums_as_it_is():
    """Git for Windows gives texts other line ends, after which no bundled model would be the published one."""
    patterns = ("zoo/weights", "tests/folders", "tests/snapshots", "zoo/uci.csv")
    command = ["git", "ls-files", "--eol", *patterns]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"git: {result.stderr.strip()}")
    lines = result.stdout.splitlines()
    assert len(lines) > 300 and all("attr/-text" in line for line in lines)


def test_the_wheel_has_every_package():
    """Tests of a checkout would not miss what pyproject.toml leaves out."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops = [*ALLOWED, "training"]
    found = [path.parent.relative_to(ROOT) for top in tops for path in ROOT.glob(f"{top}/**/__init__.py")]
    assert sorted(settings["packages"]) == sorted(".".join(path.parts) for path in found)
