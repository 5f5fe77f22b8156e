"""The set-up and the dependencies agree with the code."""

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()

RUN_NOT_IMPORTED = {"dvc", "websockets", "nvidia-ml-py"}  # websockets by uvicorn, nvidia-ml-py by MLflow
SIMULATORS = {"procgen", "procgen-mirror", "procgen-gym"}  # one per Python version


def declared_dependencies(*extras: str) -> set[str]:
    """Returns names in `dependencies` and these extras; Python 3.10 has no TOML parser, and these lists need none."""
    names = set()
    for key in ("dependencies", *extras):
        listed = PYPROJECT.partition(f"\n{key} = [\n")[2].partition("\n]")[0]
        names |= set(re.findall(r'^ +"([\w.-]+)', listed, re.MULTILINE))
    return names - {"mini-genie"}


def third_party_imports() -> dict[str, set[str]]:
    """Returns what the package and the stages import, each with the distributions that provide it."""
    roots = set()
    for path in [*ROOT.glob("genie/**/*.py"), *ROOT.glob("stages/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add(node.module.split(".")[0])
    roots -= sys.stdlib_module_names | {"genie", "stages"}
    provided = packages_distributions()
    return {root: {name.lower().replace("_", "-") for name in provided.get(root, [root])} for root in roots}


def fake_python(path: Path, version: str) -> None:
    """Writes a script that acts as a Python of that version and logs what it installs to `log`."""
    path.write_text(f"""#!/bin/sh
case "$*" in
    -c*) echo {version};;
    *venv*) echo venv >> log; mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
    *pip*) echo pip >> log;;
esac
""")
    path.chmod(0o755)


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs the Makefile in a folder that holds nothing else of the project."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        if not (folder / name).exists():
            shutil.copy(ROOT / name, folder)
    command = ["make", "-C", folder, *arguments]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "CUDA"))
    } | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_dependencies_are_those_imported():
    declared, imports = declared_dependencies("play", "train"), third_party_imports()
    assert [root for root, providers in imports.items() if not (providers | {root.replace("_", "-")}) & declared] == []
    assert declared - set().union(*imports.values()) <= RUN_NOT_IMPORTED | SIMULATORS


def test_constraints_pin_exactly_and_name_no_address():
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.+]+( ; .+)?$", line) for line in lines)
    pinned = {line.partition("==")[0] for line in lines}
    assert {name.replace(".", "-") for name in declared_dependencies("play", "train")} <= pinned
    assert "://" not in CONSTRAINTS + PYPROJECT + MAKEFILE


def test_make_help_lists_every_target(tmp_path):
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    assert re.findall(r"^make ([\w-]+) ", make(tmp_path, "help").stdout, re.MULTILINE) == targets


def test_unsupported_python_ends_in_one_line(tmp_path):
    fake_python(tmp_path / "python", "3.9")
    run = make(tmp_path, "--no-print-directory", "repro", f"PYTHON={tmp_path}/python")
    message = "Python 3.10 to 3.13 is needed, found 3.9: PYTHON=python3.11 make repro"
    assert run.returncode != 0
    assert message in run.stderr
    assert len((run.stdout + run.stderr).splitlines()) == 1


def test_a_second_set_up_installs_nothing(tmp_path):
    folder = tmp_path / "a folder"  # with a space, as a user may have
    folder.mkdir()
    fake_python(folder / "python 3", "3.11")
    target = [".venv/installed-3.11", f"PYTHON={folder}/python 3", "CUDA=1"]

    assert make(folder, *target).returncode == 0
    assert (folder / "log").read_text().split() == ["venv", "pip"]
    assert make(folder, *target).returncode == 0
    assert (folder / "log").read_text().split() == ["venv", "pip"]

    make(folder, "--assume-new=constraints.txt", *target)
    assert (folder / "log").read_text().split() == ["venv", "pip", "pip"]
    fake_python(folder / "python 3", "3.12")
    make(folder, ".venv/installed-3.12", *target[1:])
    assert (folder / "log").read_text().split() == ["venv", "pip", "pip", "venv", "pip"]


def test_make_films_stops_before_the_films_of_others(tmp_path):
    fake_python(tmp_path / "python", "3.11")
    (tmp_path / "data/films").mkdir(parents=True)
    (tmp_path / "data/films/my film.mp4").touch()
    run = make(tmp_path, "--no-print-directory", "films", f"PYTHON={tmp_path}/python", "CUDA=1")
    assert run.returncode != 0
    assert "my film.mp4 is not in films/freeway: move it elsewhere first" in run.stderr
    assert not (tmp_path / "films").exists()


@pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None or platform.machine() != "x86_64", reason="CUDA is of use here"
)
def test_gigabytes_of_cuda_are_downloaded_only_on_request(tmp_path):
    fake_python(tmp_path / "python", "3.11")
    target = ["--no-print-directory", ".venv/installed-3.11", f"PYTHON={tmp_path}/python"]
    run = make(tmp_path, *target)
    assert run.returncode != 0
    assert "PyTorch's default build downloads 2.7 GB of CUDA" in run.stderr
    assert "make .venv/installed-3.11 CUDA=1" in run.stderr
    assert not (tmp_path / "log").exists()
    assert make(tmp_path, *target, PIP_EXTRA_INDEX_URL="an index").returncode == 0
    assert (tmp_path / "log").read_text().split() == ["venv", "pip"]
