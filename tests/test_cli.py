import shutil

import pytest
from typer.testing import CliRunner

from genie.cli import app
from genie.core.scales import load_scale, scale_flags
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's params and scales to work in."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "scales", tmp_path / "scales")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def genie(*words):
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("words", [["--help"], ["scale", "--help"]])
def test_help_tells_of_scales(words):
    ran = genie(*words)
    assert ran.exit_code == 0
    assert "params.yaml" in ran.stdout


def test_scale_writes_params(project):
    _, wanted = load_scale("gpu")
    ran = genie("scale", "gpu")
    assert ran.exit_code == 0
    assert ran.stdout.count("\n") == 1
    assert load_scale("gpu")[1] == wanted
    assert "train: 1000000" in (project / "params.yaml").read_text()


def test_flags_are_printed_and_params_left_alone(project):
    before = (project / "params.yaml").read_bytes()
    ran = genie("scale", "gpu", "--flags")
    assert ran.stdout == scale_flags("gpu") + "\n"
    assert (project / "params.yaml").read_bytes() == before


def test_a_fault_is_one_line(project):
    ran = genie("scale", "galaxy")
    assert ran.exit_code == 1
    assert ran.stderr == "genie scale: no scale 'galaxy' in scales/ (there: cpu_long, gpu, gpu_long, paper, shipped)\n"


def test_a_command_that_is_none_exits_2():
    assert genie("fly").exit_code == 2
