"""`dvc.yaml` declares all that a stage reads and writes: DVC neither follows imports nor reads scripts."""

import ast
import re
from pathlib import Path

import pytest

from genie.core.yaml_files import read_yaml
from tests.conftest import ROOT
from tools import dvc_deps
from tools.dvc_deps import modules_imported, modules_run, wanted_deps

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
PARAMS = read_yaml(ROOT / "params.yaml")
NAMES = list(STAGES)
MODULES = sorted(ROOT.glob("genie/**/*.py"))

# A package may import itself and packages of lower layers.
LAYERS = {
    "core": 0,
    "distributed": 1,
    "models": 2,
    "world": 3,
    "data": 4,
    "training": 5,
    "sources": 5,
    "evaluation": 6,
    "pipeline": 6,
    "reporting": 7,
    "play": 7,
    "bench": 7,
    "cli": 8,
}


# Imports within a layer: bench opens a world as play does.
SIBLINGS = {"bench": {"play"}}


def declared(stage: str, *kinds: str) -> set[str]:
    """Returns the paths under some of a stage's keys (`deps`, `outs`, `metrics`)."""
    entries = [entry for kind in kinds for entry in STAGES[stage].get(kind, ())]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


@pytest.mark.parametrize("stage", NAMES)
def test_deps_are_the_modules_a_stage_runs(stage):
    assert STAGES[stage]["deps"] == wanted_deps(stage, STAGES[stage]["deps"]), "python -m tools.dvc_deps --write"


def test_the_tool_that_writes_them_finds_what_is_missing(tmp_path, monkeypatch, capsys):
    text = (ROOT / "dvc.yaml").read_text()
    spoilt = text.replace("      - genie/models/dynamics.py\n", "", 1)
    (tmp_path / "dvc.yaml").write_text(spoilt)
    monkeypatch.setattr(dvc_deps, "DVC_YAML", tmp_path / "dvc.yaml")
    monkeypatch.setattr("sys.argv", ["dvc_deps"])
    with pytest.raises(SystemExit, match="--write mends this"):
        dvc_deps.main()
    assert capsys.readouterr().out == "train_dynamics: missing ['genie/models/dynamics.py'], needless []\n"
    monkeypatch.setattr("sys.argv", ["dvc_deps", "--write"])
    dvc_deps.main()
    assert (tmp_path / "dvc.yaml").read_text() == text, "comments and all else stay"


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        (
            "genie/sources/simulator.py",
            {"collect", "train_probe", "train_lam", "label_actions", "train_steering", "evaluate"},
        ),
        ("genie/models/tokenizer.py", {"train_tokenizer", "tokenize", "train_dynamics", "evaluate"}),
        ("genie/models/motion_encoder.py", {"train_probe", "train_lam", "label_actions", "evaluate"}),
        ("genie/models/probe.py", {"train_probe", "train_lam", "evaluate"}),
        ("genie/models/surprise_lam.py", {"train_lam", "label_actions", "evaluate"}),
        ("genie/training/sprite.py", {"train_lam"}),
        ("genie/models/motion_predictor.py", {"train_motion", "train_dynamics", "evaluate"}),
        ("genie/models/steering.py", {"train_steering", "evaluate"}),
        ("genie/models/dynamics.py", {"train_dynamics", "evaluate"}),
        ("genie/evaluation/report.py", {"evaluate"}),
        ("genie/world/world_model.py", {"evaluate"}),
    ],
)
def test_a_change_reruns_only_what_depends_on_it(module, stages):
    assert {stage for stage in NAMES if module in modules_run(f"stages/{stage}.py")} <= stages


@pytest.mark.parametrize("stage", NAMES)
def test_params_are_the_sections_or_keys_a_script_reads(stage):
    script = ast.unparse(ast.parse((ROOT / f"stages/{stage}.py").read_text()))
    expected = set()
    for section, key in re.findall(r"\bparams\.(\w+)(?:\.(\w+))?", script):
        # In `runtime` only the precision changes results, and in training the compiler; the simulator uses integers.
        key = "precision" if section == "runtime" else key
        if section == "runtime" and stage.startswith("train_"):
            expected.add("runtime.compile")
        # `of_kind` reads all of the latent action model's section: kind, seed and shape.
        expected.add(f"{section}.{key}" if key in PARAMS[section] and section != "lam" else section)
    assert set(STAGES[stage]["params"]) == expected - ({"runtime.precision"} if stage == "collect" else set())


@pytest.mark.parametrize("stage", NAMES)
def test_every_data_path_in_a_script_is_declared(stage):
    known = declared(stage, "deps", "outs", "metrics")
    for node in ast.walk(ast.parse((ROOT / f"stages/{stage}.py").read_text())):
        if isinstance(node, ast.Constant) and str(node.value).startswith("data/"):
            path = node.value.rstrip("/")
            assert any(f"{path}/".startswith(f"{k}/") or k.startswith(f"{path}/") for k in known), path


@pytest.mark.parametrize("stage", NAMES)
def test_a_stage_runs_as_the_module_of_its_name(stage):
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    assert "desc" in STAGES[stage]
    assert "persist" not in str(STAGES[stage])  # it would disable the run cache


def test_every_script_is_a_short_stage():
    scripts = {path.stem: path for path in (ROOT / "stages").glob("*.py")}
    assert scripts.keys() == STAGES.keys()
    for path in scripts.values():
        assert len(path.read_text().splitlines()) <= 80, f"{path.name}: stages call genie, they are not it"


def test_package_files_hold_no_code():
    for path in ROOT.glob("genie/**/__init__.py"):
        body = ast.parse(path.read_text()).body
        if path.parent.name != "world":  # re-exports names, so that users need not know their modules
            assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path


def test_the_package_holds_packages():
    entries = {path.name for path in (ROOT / "genie").iterdir() if path.name != "__pycache__"}
    assert entries == {"__init__.py", "cli.py", *LAYERS} - {"cli"}


def test_no_two_modules_are_easily_confused():
    modules = [path for path in MODULES if path.name != "__init__.py"]
    stems = {re.sub(r"(ers?|ing|ed|s|e)$", "", path.stem): [] for path in modules}
    for path in modules:
        stems[re.sub(r"(ers?|ing|ed|s|e)$", "", path.stem)].append(str(path.relative_to(ROOT)))
    assert [alike for alike in stems.values() if len(alike) > 1] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "genie")))
def test_imports_go_one_way(path):
    if path.name == "__init__.py":
        return
    here = path.relative_to(ROOT / "genie").with_suffix("").parts[0]
    imported = {Path(module).with_suffix("").parts[1] for module in modules_imported(path)}
    assert all(LAYERS[name] < LAYERS[here] or name == here for name in imported - SIBLINGS.get(here, set()))
    if here == "models":
        assert imported <= {"models", "distributed", "core"}, "models know nothing of files, DVC or MLflow"


@pytest.mark.parametrize("path", sorted(ROOT.glob("genie/core/*.py")), ids=lambda path: path.stem)
def test_the_core_does_without_torch(path):
    assert not re.search(r"^\s*(import|from) torch", path.read_text(), re.MULTILINE)
