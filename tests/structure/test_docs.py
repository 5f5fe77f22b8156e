"""README and docs match the code: commands run, files exist, figures are those in git."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import typer
from dvc.cli.parser import get_main_parser

from genie.cli import app
from genie.core.params import load_params
from genie.core.scales import scale_flags
from genie.core.yaml_files import read_yaml
from genie.reporting.results import BEGIN, END, results_table
from genie.world.pretrained import SHIPPED
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("architecture", "benchmarks", "films", "results")),
]
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL))


def commands(program: str) -> list[list[str]]:
    """Returns the arguments of every command of a program that the pages show, without comments."""
    lines = [line for block in BLOCKS for line in block.splitlines()] + INLINE
    starts = re.compile(rf"(?:\w+=\S+ )?{program} (.*)")
    found = [starts.match(line.strip()) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def files_in_tree() -> Iterator[str]:
    """Yields every path of the file tree; folders end in a slash."""
    tree = next(block for block in BLOCKS if block.startswith("params.yaml "))
    folders = []
    for line in tree.splitlines():
        name = line.split()[0]
        del folders[(len(line) - len(line.lstrip())) // 4 :]
        yield "".join(folders) + name
        if name.endswith("/"):
            folders.append(name)


def rows_of(table: str) -> list[list[str]]:
    """Returns the cells of each line of a Markdown table."""
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.strip().splitlines()]


def metrics_in_git() -> dict[str, dict]:
    """Returns all metrics by the names of their files."""
    files = subprocess.run(["git", "ls-files", "data/metrics"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {Path(path).stem: json.loads(in_git(path)) for path in files.stdout.split()}


def in_git(path: str) -> str:
    """Returns a file as staged, or else committed: a rerun of the pipeline elsewhere may change the last digits."""
    git = subprocess.run(["git", "show", f":{path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert git.returncode == 0, f"{path} is not in git: {git.stderr.strip()}"
    return git.stdout


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {words[0] for words in commands("make")}
    assert {"repro", "test"} <= shown <= targets


def test_genie_commands_and_options_exist():
    known = typer.main.get_command(app).commands
    shown = commands("genie")
    assert {words[0] for words in shown} == set(known), "every command is shown"
    for name, *words in shown:
        options = {option for parameter in known[name].params for option in parameter.opts + parameter.secondary_opts}
        assert {word for word in words if word.startswith("-")} <= options


def test_dvc_understands_its_commands(monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = get_main_parser()
    for words in commands("dvc"):
        line = re.sub(r"\$\(genie scale (\w+) --flags\)", lambda scale: scale_flags(scale[1]), " ".join(words))
        parser.parse_args(line.split())  # exits if it does not


def test_params_exist():
    tree = read_yaml(ROOT / "params.yaml")
    keys = [key for words in commands("dvc") for key in re.findall(r"-S ([\w.]+)=", " ".join(words))]
    keys += [word for word in INLINE if re.fullmatch(rf"({'|'.join(tree)})\.(?!json|png|py)[a-z_]+", word)]
    assert keys
    for key in keys:
        value = tree
        for part in key.split("."):
            assert part in value, key
            value = value[part]


def test_every_file_is_in_the_tree():
    listed = set(files_in_tree())
    written = {"dvc.lock", "data/"}  # by the pipeline
    assert [path for path in listed - written if not (ROOT / path).exists()] == []
    files = [
        path
        for pattern in ("genie/**/*.py", "stages/*.py", "scales/*.yaml", "docs/*.md")
        for path in ROOT.glob(pattern)
    ]
    assert [path for path in files if path.name != "__init__.py" and str(path.relative_to(ROOT)) not in listed] == []


def test_links_lead_somewhere():
    links = [
        (page, target)
        for page in [*PAGES, "docs/scaling.md", "docs/experiments.md"]
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", (ROOT / page).read_text())
    ]
    assert len(links) > 12
    assert [(page, target) for page, target in links if not (ROOT / page).parent.joinpath(target).is_file()] == []


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 180


def test_the_results_are_those_in_git():
    shown = in_git("docs/results.md").partition(BEGIN)[2].partition(END)[0]
    assert shown == results_table(metrics_in_git()), "genie results --write docs/results.md writes them anew"


def test_the_headline_figures_are_of_that_table():
    table = {cells[0].split("`")[1]: cells[1:-1] for cells in rows_of(results_table(metrics_in_git()))[2:]}
    headline = rows_of(README.partition("<!-- headline -->")[2].partition("<!-- /headline -->")[0])[2:]
    assert len(headline) == 5
    for title, *figures in headline:
        name = title.split("`")[1]
        assert {figure for figure in figures if figure} <= set(table[name]), name


def test_what_is_told_of_the_shipped_world_is_what_its_card_tells():
    """The shipped world uses the default run's latent actions and a tokenizer trained for more steps."""
    card = (SHIPPED / "README.md").read_text()
    measured = dict(re.findall(r"^\| (\w+ `\w+`) \| ([\d.,]+) \|", card, re.MULTILINE))
    assert len(measured) > 30
    names = ("counterfactual_accuracy", "steering_accuracy", "psnr_moving")
    button, arrow, first = (measured[f"evaluate `{name}`"] for name in names)
    told = f"`{names[0]}` is {button}, its `{names[1]}` {arrow} and its `{names[2]}` {first} dB"
    assert told in " ".join(README.split())
    assert measured["lam `action_nmi`"] == f"{json.loads(in_git('data/metrics/lam.json'))['action_nmi']:.3f}"
    ours = load_params(ROOT / "params.yaml").tokenizer.steps
    its = read_yaml(ROOT / "scales/shipped.yaml")["tokenizer"]["steps"]
    assert f"a tokenizer trained for {its} steps instead of {ours}" in " ".join(README.split())


def test_numbers_of_the_default_scale():
    params = load_params(ROOT / "params.yaml")
    assert params.lam.num_actions == 6, "the README says six latent actions"
    assert params.collect.action_repeat == 4, "and four simulator steps a frame"
