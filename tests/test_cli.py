import shutil

import pytest
from typer.testing import CliRunner

from genie.cli import app
from genie.core.params import load_params
from genie.core.scales import load_scale, scale_flags
from tests.conftest import ROOT
from tests.films import moving, write_film


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


def test_import_takes_films_and_changes_one_line_of_params(project):
    (project / "my videos").mkdir()
    write_film(project / "my videos/walk.mp4", moving(20))
    before = (project / "params.yaml").read_text().splitlines()
    for _ in range(2):
        ran = genie("import", "my videos")
        assert ran.exit_code == 0
        assert ran.stdout.splitlines()[0] == "walk.mp4: 20 frames of 64x48, 0.0 min at 10 fps"
        assert "dvc repro" in ran.stdout
    assert (project / "data/films/walk.mp4").is_file()
    assert load_params().collect.source == "films"
    after = (project / "params.yaml").read_text().splitlines()
    assert [line.split()[0] for old, line in zip(before, after, strict=True) if old != line] == ["source:"]


def test_import_of_a_broken_film_changes_nothing(project):
    before = (project / "params.yaml").read_text()
    (project / "walk.mp4").write_text("no film")
    ran = genie("import", "walk.mp4")
    assert ran.exit_code == 1
    assert (project / "params.yaml").read_text() == before
    assert not (project / "data").exists()


def test_flags_are_printed_and_params_left_alone(project):
    before = (project / "params.yaml").read_bytes()
    ran = genie("scale", "gpu", "--flags")
    assert ran.stdout == scale_flags("gpu") + "\n"
    assert (project / "params.yaml").read_bytes() == before


def test_a_fault_is_one_line(project):
    ran = genie("scale", "galaxy")
    assert ran.exit_code == 1
    there = "cpu_long, films, gpu, gpu_long, paper, shipped"
    assert ran.stderr == f"genie scale: no scale 'galaxy' in scales/ (there: {there})\n"


def test_a_command_that_is_none_exits_2():
    assert genie("fly").exit_code == 2
