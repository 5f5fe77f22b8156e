"""Scales: `scales/<name>.yaml` overrides values of `params.yaml` for another size of the same pipeline."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genie.core.files import replacing
from genie.core.params import Params, ParamsError, leaves, load_params, parse_params, read_tree

SCALES_FOLDER = Path("scales")

NULL_TAG = "tag:yaml.org,2002:null"  # written as `null`: ruamel would omit the value


def load_scale(name: str, params_path: str | Path = "params.yaml") -> tuple[dict, Params]:
    """Loads a scale's changes, and all parameters with them applied.

    Raises:
        ParamsError: there is no such scale, or `params.yaml` is not valid with or without it.
    """
    path = _path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SCALES_FOLDER.glob("*.yaml")))
        raise ParamsError(f"no scale {name!r} in {SCALES_FOLDER}/ (there: {known or 'none'})")
    load_params(params_path)  # validated first, so that its errors are not blamed on the scale
    changes, tree = read_tree(path), read_tree(params_path)
    if not isinstance(changes, dict):
        raise ParamsError(f"{path}: must hold sections and keys as params.yaml does")
    _change(tree, changes)
    return changes, parse_params(tree, str(path))


def write_scale(name: str, params_path: str | Path = "params.yaml") -> Params:
    """Writes a scale's values into `params.yaml`; the rest of the file, including comments, is unchanged.

    Raises:
        ParamsError: as `load_scale`; nothing is written.
    """
    _, params = load_scale(name, params_path)
    # Read again to keep the style of its numbers: 3.0e-5, not 3e-05.
    _write_changes(Path(params_path), lambda yaml: yaml.load(_path(name)))
    return params


def write_values(changes: Mapping, params_path: str | Path = "params.yaml") -> None:
    """Writes values into `params.yaml`, which keeps its comments; does nothing if it holds them already.

    Args:
        changes: sections and keys, nested as in the file.

    Raises:
        ParamsError: `params.yaml` is not valid with or without them; nothing is written.
    """
    load_params(params_path)
    tree = read_tree(params_path)
    before = dict(leaves(tree))
    _change(tree, changes)
    parse_params(tree, str(params_path))
    if dict(leaves(tree)) != before:
        _write_changes(Path(params_path), lambda _: changes)


def scale_flags(name: str, params_path: str | Path = "params.yaml") -> str:
    """Formats a scale as options of `dvc exp run`: `-S a.b=1 -S ...`, with no spaces inside values.

    Raises:
        ParamsError: as `load_scale`.
    """
    changes, _ = load_scale(name, params_path)
    return " ".join(f"-S {key}={_word(value)}" for key, value in leaves(changes))


def _write_changes(params_path: Path, read_changes: Callable[[Any], Mapping]) -> None:
    from ruamel.yaml import YAML  # imported here, because only writing needs it

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # never fold a line
    yaml.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(NULL_TAG, "null"))
    tree = yaml.load(params_path)
    _change(tree, read_changes(yaml))
    text = io.StringIO()
    yaml.dump(tree, text)
    with replacing(params_path) as temporary:
        temporary.write_text(text.getvalue())


def _path(name: str) -> Path:
    return SCALES_FOLDER / f"{name}.yaml"


def _change(tree: dict, changes: Mapping) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), Mapping):
            _change(tree[key], value)
        elif isinstance(value, list) and isinstance(tree.get(key), list):
            tree[key][:] = value  # in place, to keep its style
        else:
            tree[key] = value


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
