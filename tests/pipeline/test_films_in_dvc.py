"""`data/films` is a dependency of `collect`: empty for the simulator, and what is imported makes `collect` stale."""

import json
import sys

import pytest

from tests.conftest import merged
from tests.films import moving, write_film
from tests.pipeline.conftest import Project

pytestmark = pytest.mark.slow


def test_imported_films_make_collect_stale_and_nothing_else_of_them_is_in_git(tiny_tree, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "videos").mkdir()
    tree = merged(tiny_tree, {"collect": {"films": {"fps": 10.0, "shortest_episode": 10}}})
    project = Project(tmp_path / "project", tree)
    project.dvc("repro", "collect")
    assert "up to date" in project.dvc("status", "collect")
    project.commit("simulator")

    for hue, name in enumerate(("a walk.mp4", "b.mp4", "c.mp4")):
        write_film(tmp_path / "videos" / name, moving(60, hue=hue))
    project.run(sys.executable, "-c", "from genie.cli import app; app()", "import", str(tmp_path / "videos"))
    assert project.run("git", "status", "--porcelain").split() == ["M", "params.yaml"]
    assert "data/films" in project.dvc("status", "collect")
    assert project.stages_run(project.dvc("repro", "collect")) == ["collect"]
    assert "up to date" in project.dvc("status", "collect")
    metrics = json.loads((project.root / "data/metrics/collect.json").read_text())
    assert (metrics["films"], metrics["frames"]) == (3, 180)
    project.commit("films")

    project.dvc("exp", "run", "--set-param", "collect.films.fps=5", "collect")
    assert json.loads((project.root / "data/metrics/collect.json").read_text())["frames"] == 90
    (project.root / "data/films/c.mp4").unlink()
    assert "data/films" in project.dvc("status", "collect")
