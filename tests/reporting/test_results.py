import json

import pytest
from typer.testing import CliRunner

from genie.cli import app
from genie.reporting.results import BEGIN, END, ROWS, ResultsError, read_metrics, results_table, write_results


@pytest.fixture
def metrics():
    """Every metric of the table and some baselines."""
    tree = {row.file: {} for row in ROWS}
    for row in ROWS:
        tree[row.file][row.key.format("", horizon=16, drift=64)] = 0.5
    tree["evaluate"] |= {
        "psnr_16": 18.0,
        "psnr_64": 12.0,
        "ssim_copy_last_64_moving": 0.25,
        "psnr_moving": 21.256,
        "psnr_copy_last_moving": 19.0,
    }
    tree["evaluate"] |= {"psnr_tokenizer_moving": 28.0, "counterfactual_chance": 0.25, "action_nmi_air_ceiling": 0.875}
    tree["collect"]["frames"] = 216384
    return tree


@pytest.fixture
def project(metrics, tmp_path, monkeypatch):
    """A folder with those metrics and a README."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/metrics").mkdir(parents=True)
    for name, values in metrics.items():
        (tmp_path / f"data/metrics/{name}.json").write_text(json.dumps(values))
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    return tmp_path


def genie_results(*words):
    return CliRunner().invoke(app, ["results", *words])


def test_a_metric_stands_beside_its_baselines(metrics):
    lines = results_table(metrics).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert {line.count(" | ") for line in lines} == {7}
    assert "| evaluate `psnr_moving` | 21.26 |  | 19.00 |  |  | 28.00 |" in "\n".join(lines)
    assert "| evaluate `psnr_16_moving` | 0.50 |" in "\n".join(lines)
    assert "| evaluate `ssim_64_moving` | 0.500 |  | 0.250 |" in "\n".join(lines)
    assert "| evaluate `counterfactual_accuracy` | 0.500 |  |  | 0.250 |  |  |" in "\n".join(lines)
    assert "| evaluate `action_nmi_air` | 0.500 |  |  |  |  | 0.875 |" in "\n".join(lines)
    assert "| collect `frames` | 216,384 |  |  |  |  |  |" in "\n".join(lines)


def test_the_true_actions_are_a_baseline_where_they_were_told(metrics, project):
    told = {"psnr_moving": 25.0, "counterfactual_accuracy": 0.75, "delta_psnr_1": 6.0, "action_nmi_air": 0.5}
    (project / "data/metrics/true_actions.json").write_text(json.dumps(told))
    table = results_table(read_metrics())
    assert "| evaluate `psnr_moving` | 21.26 |  | 19.00 |  | 25.00 | 28.00 |" in table
    assert "| evaluate `counterfactual_accuracy` | 0.500 |  |  | 0.250 | 0.750 |  |" in table
    assert "| evaluate `delta_psnr_1` | 0.50 |  |  |  | 6.00 |  |" in table
    assert "| evaluate `action_nmi_air` | 0.500 |  |  |  |  | 0.875 |" in table, "the labels are the LAM's all the same"
    assert len(table.splitlines()) == len(results_table(metrics).splitlines())


def test_the_command_prints_what_it_writes(project, metrics):
    assert genie_results().stdout == results_table(metrics)
    for _ in range(2):  # writing again changes nothing
        assert genie_results("--write", "README.md").exit_code == 0
        assert (project / "README.md").read_text() == f"before\n{BEGIN}{results_table(metrics)}{END}\nafter\n"


def test_a_missing_metric_is_named(metrics):
    del metrics["lam"]["min_code_share"]
    with pytest.raises(ResultsError, match=r"lam.json: holds no min_code_share"):
        results_table(metrics)


def test_what_could_not_be_measured_has_no_row(metrics):
    whole = results_table(metrics).splitlines()
    del metrics["evaluate"]["psnr_moving"]
    assert results_table(metrics).splitlines() == [line for line in whole if "evaluate `psnr_moving`" not in line]


@pytest.mark.parametrize("text", [None, "{"])
def test_a_missing_or_damaged_file_is_named(project, text):
    path = project / "data/metrics/lam.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ResultsError, match=r"data/metrics/lam.json: .*make repro"):
        read_metrics()
    ran = genie_results()
    assert ran.exit_code == 1
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["no marks", BEGIN, f"{END}\n{BEGIN}"])
def test_a_text_without_marks_is_left_alone(project, text):
    (project / "README.md").write_text(text)
    with pytest.raises(ResultsError, match=r"README.md: no <!-- results -->"):
        write_results(project / "README.md", "table")
    assert (project / "README.md").read_text() == text
