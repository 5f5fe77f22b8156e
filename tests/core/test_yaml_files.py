import pytest
from ruamel.yaml import YAML

from genie.core.yaml_files import YamlError, read_yaml
from tests.conftest import ROOT

FILES = [ROOT / "params.yaml", ROOT / "dvc.yaml", ROOT / "dvc.lock", *sorted(ROOT.glob("scales/*.yaml"))]
VALUES = [
    *("1e-4", "-1.5E3", "3e5", ".5", "1.", "0.25", ".inf", "017", "0o17", "0x1F", "+12", "1_000"),
    *("on", "no", "y", "true", "False", "~", "", "null", "1:20", "word", "'1'", "[1, 2.0]", "{a: 1}"),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_project_is_read_as_dvc_reads_it(path):
    assert read_yaml(path) == YAML(typ="safe").load(path)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_what_it_is_to_dvc(value, tmp_path):
    (tmp_path / "a.yaml").write_text(f"key: {value}\n")
    ours, theirs = read_yaml(tmp_path / "a.yaml")["key"], YAML(typ="safe").load(tmp_path / "a.yaml")["key"]
    assert (type(ours), ours) == (type(theirs), theirs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "key 'a' is there twice"),
        ("a: {b: 1, b: 1}\n", "key 'b' is there twice"),
        ("a: {\n", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_fault_is_named(text, message, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(YamlError, match=message) as fault:
        read_yaml(tmp_path / "a.yaml")
    assert str(fault.value).startswith(str(tmp_path / "a.yaml"))
