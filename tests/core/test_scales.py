import math
import shlex

import pytest
import torch
from ruamel.yaml import YAML

from genie.core.params import ParamsError, load_params
from genie.core.scales import load_scale, scale_flags, write_scale, write_values
from genie.distributed.devices import resolve_precision
from genie.models.surprise_lam import SurpriseLam
from genie.training.costs import build, training_params
from genie.training.step import make_optimizers
from tests.conftest import ROOT

NAMES = ("cpu_long", "gpu", "gpu_long", "paper", "shipped")
MODELS = ("tokenizer", "lam", "dynamics")
GRID = (16, 16)
SHORT_WINDOW = 3
MINE = """\
collect:
  backgrounds: false
  policy: uniform
  frames: {train: 900}
tokenizer:
  fsq_levels: [7, 5]
  lr: 3.0e-5  # a reason of the scale's own
sampling:
  temperature: 0.5
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the real params.yaml and one scale, `mine`, to work in."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shallow(params):
    """Returns params of the same widths but one block deep: more equal blocks take long and test nothing new."""
    parts = {"tokenizer": params.tokenizer, "probe": params.probe, "pixels": params.lam.pixels}
    parts = {name: part.model_copy(update={"num_blocks": 1}) for name, part in parts.items()}
    lam = params.lam.model_copy(update={"pixels": parts.pop("pixels")})
    dynamics = params.dynamics.model_copy(update={"num_layers": 1})
    return params.model_copy(update={**parts, "lam": lam, "dynamics": dynamics})


def one_sample(model, params, network):
    """Returns a batch of one short window: no weight depends on its length, and a full one takes long."""
    if model == "dynamics":
        return {
            "tokens_BTN": torch.randint(1000, (1, SHORT_WINDOW, math.prod(GRID))),
            "actions_BS": torch.randint(params.lam.num_actions, (1, SHORT_WINDOW - 1)),
        }
    # Two transitions with a whole history: batch norm needs more than one.
    length = 1 if model == "tokenizer" else training_params(model, params).history + 2
    frames_BTHWC = torch.randint(256, (1, length, 64, 64, 3), dtype=torch.uint8)
    if model == "probe":
        return {"frames_BTHWC": frames_BTHWC, "actions_BS": torch.randint(6, (1, length - 1))}
    if isinstance(network, SurpriseLam):
        return {name: part.flatten(0, 1) for name, part in network.observe(frames_BTHWC).items()}
    return frames_BTHWC


@pytest.mark.parametrize("model", [*MODELS, "probe"])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_a_scale_takes_a_training_step(name, model, monkeypatch):
    monkeypatch.chdir(ROOT)
    params = shallow(load_scale(name)[1])
    network = build(model, params).train()
    optimizers = make_optimizers(network, training_params(model, params))
    learns = network.expectation if isinstance(network, SurpriseLam) else network  # its codes are learnt later
    last = list(learns.parameters())[-1]
    before = last.detach().clone()
    bf16 = resolve_precision(params.runtime, torch.device("cpu")) == "bf16"
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss, _ = network(one_sample(model, params, network))
    loss.backward()
    for optimizer in optimizers.values():
        optimizer.step()
    assert torch.isfinite(loss)
    assert not torch.equal(last, before)


def test_writing_a_scale_changes_its_values_and_nothing_else(project):
    before = (project / "params.yaml").read_text().splitlines()
    write_scale("mine")
    after = (project / "params.yaml").read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    written = [
        "backgrounds: false",
        "policy: uniform",
        "train: 900",
        "[7, 5]",
        "lr: 3.0e-5",
        "temperature: 0.5",
    ]
    assert len(changed) == len(written)
    assert all(value in line for value, line in zip(written, changed, strict=True))
    comments = [[line.partition("#")[2] for line in text] for text in (before, after)]
    assert comments[0] == comments[1]


def test_written_and_loaded_scale_are_the_same(project):
    _, params = load_scale("mine")
    assert write_scale("mine") == params == load_params()
    assert params.tokenizer.lr == 3e-5
    assert params.collect.frames.val > 0


def test_flags_say_what_writing_does(project):
    words = shlex.split(scale_flags("mine"))
    assert words[::2] == ["-S"] * (len(words) // 2)
    tree = YAML().load(project / "params.yaml")
    for word in words[1::2]:
        key, value = word.split("=")
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[leaf] = YAML(typ="safe").load(value)
    YAML().dump(tree, project / "flagged.yaml")
    assert load_params("flagged.yaml") == write_scale("mine")


@pytest.mark.parametrize(
    ("scale", "complaint"),
    [
        ("dynamics: {depth: 3}", "dynamics.depth: unknown key"),
        ("dynamo: {width: 3}", "dynamo: unknown key"),
        ("dynamics: {width: wide}", "dynamics.width: .* got 'wide'"),
        ("dynamics: 3", "dynamics: .* got 3"),
        ("- dynamics", "must hold sections"),
        ("", "must hold sections"),
        ("dynamics: {", "not valid YAML"),
    ],
)
def test_a_faulty_scale_is_named_and_not_written(project, scale, complaint):
    (project / "scales" / "mine.yaml").write_text(scale)
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=f"mine.yaml: {complaint}"):
        write_scale("mine")
    assert (project / "params.yaml").read_bytes() == before


def test_an_unknown_scale_names_those_there_are(project):
    with pytest.raises(ParamsError, match=r"no scale 'yours'.*mine"):
        load_scale("yours")


def test_a_fault_of_params_is_not_laid_on_the_scale(project):
    (project / "params.yaml").write_text("collect: 3")
    with pytest.raises(ParamsError, match=r"^params\.yaml"):
        load_scale("mine")


def test_values_are_written_and_all_else_stays(project):
    before = (project / "params.yaml").read_text()
    write_values({"collect": {"source": "simulator"}})
    assert (project / "params.yaml").read_text() == before
    write_values({"collect": {"source": "films", "films": {"fps": 5.0}}})
    collect = load_params().collect
    assert (collect.source, collect.films.fps) == ("films", 5.0)
    comments = [line.partition("#")[2] for line in (project / "params.yaml").read_text().splitlines()]
    assert comments == [line.partition("#")[2] for line in before.splitlines()]
    with pytest.raises(ParamsError, match=r"collect\.source"):
        write_values({"collect": {"source": "films, of mine"}})
