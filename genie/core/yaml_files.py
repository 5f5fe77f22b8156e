"""YAML reader that follows DVC: the core schema of YAML 1.2, which PyYAML does not support."""

import re
from pathlib import Path

import yaml


class YamlError(ValueError):
    """A file is missing or not valid YAML; the message names the file and the error."""


def read_yaml(path: str | Path) -> dict:
    """Reads a YAML file as plain values; `1e-4` is a number, and `on` and `no` are strings.

    Raises:
        YamlError: the file is missing, not valid YAML, or contains a duplicate key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise YamlError(f"{path}: cannot be read ({error.strerror}); run from the project's root") from None
    except UnicodeDecodeError as error:
        raise YamlError(f"{path}: not valid YAML: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> dict:
    """Same as `read_yaml` for a text; `source` names it in error messages."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise YamlError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without the YAML 1.1 rules for numbers, booleans and dates."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if key.value in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
        return super().construct_mapping(node, deep)


# Core schema (YAML 1.2.2, section 10.3.2), with the first characters that each type allows.
for kind, pattern, first in (
    ("null", r"null|Null|NULL|~|", [*"nN~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$"), first)
# In YAML 1.2, `0o17` is octal and `017` is seventeen.
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)
)
