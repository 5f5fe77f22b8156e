"""docs/scaling.md states what the code counts, and shows commands that exist."""

import re
import shlex
import subprocess

import pytest
import typer
from dvc.cli.parser import get_main_parser
from typer.testing import CliRunner

from genie.cli import app
from genie.core.params import load_params
from genie.training.costs import si, step_costs
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs/scaling.md").read_text()
TABLES = re.findall(r"^<!-- genie (plan[^\n]*) -->\n(.*?)^<!-- /genie plan -->$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in block.split("\n")
]


def commands(program: str) -> list[list[str]]:
    """Returns the arguments of every command of a program, without comments."""
    return [shlex.split(line, comments=True)[1:] for line in COMMANDS if line.startswith(f"{program} ")]


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A folder with the inputs of plans as staged, or else committed: `genie scale` may have changed them."""
    for path in ["params.yaml", "data/metrics/collect.json", *(f"scales/{p.name}" for p in ROOT.glob("scales/*.yaml"))]:
        git = subprocess.run(["git", "show", f":{path}"], cwd=ROOT, capture_output=True, text=True, check=True)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(git.stdout)
    monkeypatch.chdir(tmp_path)


def test_every_scale_has_its_table():
    planned = {re.search(r"--scale (\w+)|$", options)[1] for options, _ in TABLES}
    assert planned == {None, *(path.stem for path in ROOT.glob("scales/*.yaml"))}


@pytest.mark.parametrize(("options", "table"), TABLES, ids=[options for options, _ in TABLES])
def test_a_table_is_what_the_command_prints(committed, options, table):
    assert CliRunner().invoke(app, options.split()).stdout == table, f"put there what `genie {options}` prints"


def test_utilisation_follows_from_the_count(committed):
    shown = TEXT.partition("<!-- speeds -->\n")[2].partition("<!-- /speeds -->")[0].splitlines()
    params, rows = load_params(), [re.findall(r"[^|]+", line) for line in shown[2:]]
    assert len(rows) == 2
    for model, speed, counted, told, peak, share in ([cell.strip() for cell in row] for row in rows):
        costs = step_costs(model, params)
        flops = costs.model_flops + costs.optimizer_flops
        sustained = float(speed) * flops / 1e12
        assert (counted, told) == (si(flops), f"{sustained:.3f}")
        assert float(share.rstrip("%")) / 100 == pytest.approx(sustained / float(peak), abs=0.006)


def test_genie_understands_its_commands():
    known = typer.main.get_command(app).commands
    for name, *words in commands("genie"):
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options


def test_dvc_understands_its_commands():
    assert len(commands("dvc")) > 5
    for words in commands("dvc"):
        get_main_parser().parse_args(words)  # exits if it does not


def test_the_plugin_is_of_the_version_that_fits():
    fsspec = re.search(r"^fsspec==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert f"s3fs=={fsspec}`" in TEXT


def test_what_it_says_of_the_cache_is_set():
    cache_type = re.search(r'type = "(.*)"', (ROOT / ".dvc/config").read_text())[1]
    assert f"`{cache_type}`" in TEXT
