"""`params.yaml` is the single source of truth: all of it is typed, explained and used."""

import ast
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode

from genie.core.params import Params, load_params, parse_params
from genie.core.yaml_files import read_yaml
from tests.conftest import ROOT, merged

TEXT = (ROOT / "params.yaml").read_text()
TREE = read_yaml(ROOT / "params.yaml")


def leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    """Returns every value by its dotted key."""
    flat = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yields every typed key, dotted, and whether it has no default."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        yield prefix + name, field.is_required()


def outside_validators(node: ast.AST) -> Iterator[ast.AST]:
    """Yields a syntax tree's nodes except those of pydantic's validators, which only compare values."""
    decorators = getattr(node, "decorator_list", [])
    if not any("model_validator" in ast.unparse(decorator) for decorator in decorators):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from outside_validators(child)


def test_params_load():
    assert load_params(ROOT / "params.yaml").collect.env_name == "coinrun"


def test_no_type_has_a_default():
    assert [key for key, required in fields(Params) if not required] == []


def test_every_leaf_is_explained_on_its_line():
    lines = TEXT.splitlines()

    def unexplained(node: MappingNode) -> Iterator[str]:
        for key, value in node.value:
            if isinstance(value, MappingNode) and not value.flow_style:
                yield from unexplained(value)
            elif not lines[key.start_mark.line].partition(" # ")[2].strip():
                yield key.value

    assert list(unexplained(YAML().compose(TEXT))) == []


def test_every_key_is_used():
    used = {
        node.attr
        for path in [*ROOT.glob("stages/*.py"), *ROOT.glob("genie/**/*.py")]
        for node in outside_validators(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert sorted(key for key in leaves(TREE) if not set(key.split(".")[1:]) & used) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("scales/*.yaml")), ids=lambda path: path.stem)
def test_a_scale_holds_only_what_differs(path):
    scale = read_yaml(path)
    ours, theirs = leaves(TREE), leaves(scale)
    assert theirs.keys() <= ours.keys()
    assert [key for key, value in theirs.items() if value == ours[key]] == []
    parse_params(merged(TREE, scale), path.name)
