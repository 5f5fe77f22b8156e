"""`dvc.yaml` says all that a stage reads and writes: DVC does not follow imports, nor read scripts."""

import ast
import re
from pathlib import Path

import pytest

from genie.params import read_yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
PARAMS = read_yaml(ROOT / "params.yaml")
NAMES = list(STAGES)

# No dep of any stage, because a change in them cannot change a result: values are tracked as params and
# params.py holds no default (test_params.py); the others only report, or refuse to start. dvc.yaml says the same.
# What only they import is none either.
EXEMPT = {"genie/params.py", "genie/stage.py", "genie/progress.py", "genie/training/tracking.py"}

# Which layer may import which: its own and lower ones.
LAYERS = {
    "params": 0,
    "progress": 0,
    "processes": 0,
    "runtime": 1,
    "launch": 2,
    "data": 1,
    "models": 1,
    "training": 2,
    "cgroups": 0,
    "costs": 2,
    "budget": 3,
    "prompts": 2,
    "pretrained": 3,
    "world": 3,
    "evaluation": 3,
    "env": 4,
    "play": 4,
    "pyfunc": 4,
    "sample": 4,
    "scales": 4,
    "stage": 4,
    "export": 5,
    "plan": 5,
    "results": 5,
    "seeds": 5,
    "bench": 5,
    "cli": 5,
}


def modules_imported(path: Path) -> set[str]:
    """The project's own modules that a file names in an import anywhere in it, as paths from the root."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide from this test"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {name.replace(".", "/") + ".py" for name in names if name.split(".")[0] in ("genie", "stages")}
    return {file for file in files if (ROOT / file).is_file()}


def modules_run(script: str) -> set[str]:
    """All of the project's own modules that a stage's script imports, directly or not."""
    found, waiting = set(), {script}
    while waiting:
        imported = modules_imported(ROOT / waiting.pop())
        waiting |= imported - found - EXEMPT
        found |= imported
    return found


def declared(stage: str, *kinds: str) -> set[str]:
    """The paths under some of a stage's headings (`deps`, `outs`, `metrics`)."""
    entries = [entry for kind in kinds for entry in STAGES[stage].get(kind, ())]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


@pytest.mark.parametrize("stage", NAMES)
def test_deps_are_the_modules_a_stage_runs(stage):
    script = f"stages/{stage}.py"
    listed = {dep for dep in declared(stage, "deps") if dep.endswith(".py")}
    needed = {script} | modules_run(script) - EXEMPT
    assert listed == needed, f"add {sorted(needed - listed)}, remove {sorted(listed - needed)}"


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        (
            "genie/data/simulator.py",
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
        ("genie/world.py", {"evaluate"}),
    ],
)
def test_a_change_reruns_only_what_depends_on_it(module, stages):
    assert {stage for stage in NAMES if module in modules_run(f"stages/{stage}.py")} <= stages


@pytest.mark.parametrize("stage", NAMES)
def test_params_are_the_sections_or_keys_a_script_reads(stage):
    script = ast.unparse(ast.parse((ROOT / f"stages/{stage}.py").read_text()))
    expected = set()
    for section, key in re.findall(r"\bparams\.(\w+)(?:\.(\w+))?", script):
        # Of runtime only precision can change a result, and a training's the compiler; the simulator computes in
        # integers.
        key = "precision" if section == "runtime" else key
        if section == "runtime" and stage.startswith("train_"):
            expected.add("runtime.compile")
        # The latent action model's kind, seed and shape are one thing to `of_kind`, which reads them all.
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
    assert "persist" not in str(STAGES[stage])  # it would switch off the run cache


def test_every_script_is_a_short_stage():
    scripts = {path.stem: path for path in (ROOT / "stages").glob("*.py")}
    assert scripts.keys() == STAGES.keys()
    for path in scripts.values():
        assert len(path.read_text().splitlines()) <= 80, f"{path.name}: stages call genie, they are not it"


def test_package_files_hold_no_code():
    for path in ROOT.glob("genie/**/__init__.py"):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path


@pytest.mark.parametrize("path", sorted(ROOT.glob("genie/**/*.py")), ids=lambda path: path.stem)
def test_imports_go_one_way(path):
    if path.name == "__init__.py":
        return
    here = path.relative_to(ROOT / "genie").with_suffix("").parts[0]
    imported = {Path(module).with_suffix("").parts[1] for module in modules_imported(path)}
    assert all(LAYERS[name] <= LAYERS[here] for name in imported)
    if here == "models":
        assert imported <= {"models", "params"}, "models know nothing of files, DVC or MLflow"
