import json
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from genie.cli import app
from genie.core.params import load_params
from genie.core.paths import METRICS_FOLDER
from genie.reporting.results import ROWS, ResultsError, results_table
from genie.reporting.seeds import FILES, Run, summarise

PERPLEXITIES = [5.0, 4.5, 2.0]
SUMMARY = METRICS_FOLDER / "seeds.json"


def run_of(seed: int, perplexity: float) -> Run:
    """Returns a run that is healthy except for its perplexity."""
    lam = {"codebook_perplexity": perplexity, "information": 0.8}
    others = {"motion": {"motion_error": 1.0}, "steering": {"arrow_bits": 0.5}, "evaluate": {"psnr": 20.0}}
    return Run(seed, {"lam": lam, "dynamics": {"cross_entropy": 2.0 + seed}, **others})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a commit for each seed, and the revisions."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    git("config", "user.name", "test")
    git("config", "user.email", "test@localhost")
    (tmp_path / "data/metrics").mkdir(parents=True)
    params, revisions = load_params().model_dump_json(), []
    for seed, perplexity in enumerate(PERPLEXITIES):
        for name, values in run_of(seed, perplexity).metrics.items():
            (tmp_path / f"data/metrics/{name}.json").write_text(json.dumps(values))
        tree = json.loads(params)
        tree["lam"]["seed"] = seed
        (tmp_path / "params.yaml").write_text(json.dumps(tree))  # JSON is valid YAML
        git("add", "--all")
        git("commit", "--quiet", "--message", f"seed {seed}")
        revisions.append(git("rev-parse", "HEAD"))
    monkeypatch.chdir(tmp_path)
    return revisions


def genie_seeds(*revisions):
    return CliRunner().invoke(app, ["seeds", *revisions])


def test_the_spread_is_that_of_numpy():
    summary = summarise([run_of(seed, p) for seed, p in enumerate(PERPLEXITIES)], load_params().lam.of_kind())
    found = summary["lam"]["codebook_perplexity"]
    assert found["values"] == PERPLEXITIES
    assert found["mean"] == pytest.approx(np.mean(PERPLEXITIES), rel=1e-5)
    assert found["std"] == pytest.approx(np.std(PERPLEXITIES, ddof=1), rel=1e-5)
    assert summary["evaluate"]["psnr"]["std"] == 0


def test_collapses_are_counted_by_the_gate():
    gate = load_params().lam.of_kind()
    assert PERPLEXITIES[-1] < gate.gate_min_perplexity < PERPLEXITIES[1]
    assert summarise([run_of(seed, p) for seed, p in enumerate(PERPLEXITIES)], gate)["collapsed"] == 1


@pytest.mark.parametrize("seeds", [[], [0], [1, 1]])
def test_a_spread_needs_different_seeds(seeds):
    with pytest.raises(ResultsError, match="two or more different ones"):
        summarise([run_of(seed, 5.0) for seed in seeds], load_params().lam.of_kind())


def test_the_command_reads_runs_from_git(project):
    ran = genie_seeds(*project)
    assert ran.exit_code == 0, ran.stderr
    written = json.loads(SUMMARY.read_text())
    assert written["seeds"] == [0, 1, 2]
    assert set(FILES) <= set(written)
    assert written["dynamics"]["cross_entropy"]["values"] == [2.0, 3.0, 4.0]


def test_a_run_that_never_was_is_named_and_nothing_is_written(project):
    ran = genie_seeds(project[0], "refs/exps/none")
    assert ran.exit_code == 1
    assert ran.stderr == (
        "genie seeds: refs/exps/none: holds no data/metrics/lam.json; its run failed or never was, "
        "start it anew: make seeds\n"
    )
    assert not SUMMARY.exists()


def test_the_table_shows_the_spread_where_there_is_one():
    metrics = {row.file: {} for row in ROWS}
    for row in ROWS:
        metrics[row.file][row.key.format("", horizon=16, drift=64)] = 0.5
    metrics["evaluate"] |= {"psnr_16": 18.0, "psnr_64": 12.0}
    spread = {"mean": 0.75, "std": 0.125, "values": []}
    table = results_table(metrics | {"seeds": {"lam": {"action_nmi": spread}}})
    assert "| lam `action_nmi` | 0.500 | 0.750 ± 0.125 |" in table
    assert table.count("±") == 1
