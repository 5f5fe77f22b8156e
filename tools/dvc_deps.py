"""Writes the lists of modules in dvc.yaml: all that each stage's script imports, directly or not.

DVC does not follow imports. Other deps, such as data, are written by hand and stay as they are.

    python -m tools.dvc_deps          # says what is wrong, and ends with 1 if anything is
    python -m tools.dvc_deps --write
"""

import argparse
import ast
import sys
from pathlib import Path

from ruamel.yaml import YAML

from genie.core.files import replacing

ROOT = Path(__file__).resolve().parents[1]
DVC_YAML = ROOT / "dvc.yaml"

# No dep of any stage, since a change in them cannot change a result: values are tracked as params, and params.py holds
# no default (test_params.py); the others report, refuse to start, or name what parts ask of one another. What only they
# import is none either.
EXEMPT = {
    "genie/core/params.py",
    "genie/core/protocols.py",
    "genie/distributed/progress.py",
    "genie/pipeline/mlflow_runs.py",
    "genie/pipeline/stage.py",
}


def modules_imported(path: Path) -> set[str]:
    """The project's own modules that a file names in an import anywhere in it, as paths from the root."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide from this tool"
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            assert node.module != "genie.world" or all(map(_file, named)), (
                f"{path}: genie.world hides its modules from this tool; import from genie.world.world_model"
            )
            names |= {node.module} | named
    return {file for name in names if (file := _file(name))}


def modules_run(script: str) -> set[str]:
    """All of the project's own modules that a stage's script imports, directly or not, but for the exempt."""
    found, waiting = set(), {script}
    while waiting:
        imported = modules_imported(ROOT / waiting.pop()) - EXEMPT
        waiting |= imported - found
        found |= imported
    return found


def wanted_deps(stage: str, deps: list[str]) -> list[str]:
    """The deps of a stage, its modules those that it runs; in alphabetical order, data first."""
    script = f"stages/{stage}.py"
    kept = {dep for dep in deps if not dep.endswith(".py")}
    return sorted(kept) + sorted({script} | modules_run(script))


def _file(name: str) -> str | None:
    file = name.replace(".", "/") + ".py"
    return file if name.split(".")[0] in ("genie", "stages") and (ROOT / file).is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--write", action="store_true", help="write dvc.yaml in place of telling what is wrong")
    write = parser.parse_args().write
    yaml = YAML()
    yaml.width = 4096  # never fold a line
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree, wrong = yaml.load(DVC_YAML), False
    for stage, definition in tree["stages"].items():
        wanted = wanted_deps(stage, definition["deps"])
        missing, needless = set(wanted) - set(definition["deps"]), set(definition["deps"]) - set(wanted)
        if missing or needless:
            wrong = True
            print(f"{stage}: missing {sorted(missing)}, needless {sorted(needless)}")
        definition["deps"][:] = wanted
    if write and wrong:
        with replacing(DVC_YAML) as temporary:
            yaml.dump(tree, temporary)
        print("wrote dvc.yaml")
    elif wrong:
        sys.exit("python -m tools.dvc_deps --write mends this")


if __name__ == "__main__":
    main()
