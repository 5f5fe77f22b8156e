import json
import re
from importlib import import_module

import pytest

from genie.bench import bare_simulator, frame_rate
from genie.bench.figures import as_json, ratios
from genie.bench.inputs import GROWTH
from genie.bench.run import PARTS, bench
from genie.data.caches import cache_attributes, read_latent_actions, read_tokens, token_attributes
from genie.data.episodes import EpisodeStore
from genie.world.pretrained import PretrainedError

pytestmark = pytest.mark.slow


@pytest.fixture
def measured(tiny_rounds, tiny_params, bench_data, shared_world, monkeypatch):
    """Figures of all parts, measured in this process instead of in child processes."""
    monkeypatch.setattr("genie.bench.frame_rate.open_world", lambda source, params: shared_world)

    def call(function, *more):
        module, _, name = function.partition(".")
        return getattr(import_module(f"genie.bench.{module}"), name)(tiny_params, bench_data, *more)

    return {part: [figure for words in calls for figure in call(*words)] for part, calls in PARTS.items()}


def test_every_part_measures_what_its_name_says(measured):
    figures = [figure for part in measured.values() for figure in part]
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    for part, of_part in measured.items():
        own = {part, "simulator"} if part == "collect" else {part}  # it is reported beside the bare simulator
        assert {figure.name.split(".")[0] for figure in of_part} == own
        assert f"{part}.peak_memory" in names
    assert {figure.beside for figure in figures if figure.beside} <= set(names), "all that is beside is measured"
    assert all(re.fullmatch(r"[a-z0-9_.]+", name) for name in names)

    content = json.loads(as_json(figures))
    assert content.keys() == {*names, *(f"{name}.ratio" for name in ratios(figures))}
    for part in ("tokenizer", "lam", "dynamics"):
        phases = [content[f"{part}.{phase}_seconds.ratio"] for phase in ("data", "forward", "backward", "optimizer")]
        assert sum(phases) == pytest.approx(1, abs=1e-3)
        assert content[f"{part}.model_tflops.ratio"] < content[f"{part}.tflops.ratio"]
        assert {f"{part}.width_x2.speed", f"{part}.batch_x2.speed"} <= content.keys()
    assert "dynamics.context_x2.speed" in content


def test_data_is_as_the_pipeline_leaves_it(bench_data, tiny_params):
    stores = {split: EpisodeStore(bench_data / f"frames/{split}") for split in ("train", "val")}
    assert stores["train"].num_frames == GROWTH * stores["val"].num_frames
    tokens = read_tokens(bench_data / "tokens/train")
    assert len(tokens) == len(read_latent_actions(bench_data / "actions/train.h5"))
    assert tokens[:].max() < token_attributes(bench_data / "tokens/train")["num_codes"]
    assert cache_attributes(bench_data / "actions/train.h5")["num_actions"] == tiny_params.lam.num_actions


def test_parts_run_in_processes_of_their_own(tiny_params, monkeypatch):
    monkeypatch.setattr("genie.bench.run._in_process", lambda *call: called.append(call[0]) or [])
    called = []
    assert bench(tiny_params, ["reading", "machine"]) == []
    assert called == ["inputs.write_data", "machine.measure", "reading.measure"], "in the parts' order"


def test_sampling_plays_the_world_that_is_named(tiny_params, monkeypatch):
    monkeypatch.setattr("genie.bench.run._in_process", lambda *call: called.append(call) or [])
    called = []
    bench(tiny_params, ["machine", "sampling"], "castle")
    assert called[0] == ("frame_rate.check", tiny_params, "castle")
    assert [(call[0], call[3:]) for call in called[1:]] == [
        ("inputs.write_data", ()),
        ("machine.measure", ()),
        ("frame_rate.measure", ("castle",)),
    ]


def test_a_faulty_world_is_found_before_anything_is_measured(tiny_params, monkeypatch):
    def call(function, *more):
        assert function == "frame_rate.check"
        return frame_rate.check(*more)

    monkeypatch.setattr("genie.bench.run._in_process", call)
    with pytest.raises(PretrainedError, match="castle: no such folder"):
        bench(tiny_params, world="castle")


def test_a_process_returns_figures(tiny_params, tmp_path):
    from genie.bench.run import _in_process

    figures = _in_process("machine.measure", tiny_params, tmp_path)
    assert [figure.name for figure in figures] == [
        "machine.matmul_tflops",
        "machine.copy_gb_per_second",
        "machine.peak_memory",
    ]


def test_an_unknown_part_is_a_fault(tiny_params):
    with pytest.raises(ValueError, match=r"no part playing to measure \(there: machine, collect"):
        bench(tiny_params, ["playing"])


def test_a_busy_machine_is_a_fault_in_one_line(tiny_rounds, tiny_params, tmp_path, monkeypatch):
    monkeypatch.setattr("genie.bench.bare_simulator.take_turns", lambda sides, rounds: dict.fromkeys(sides, 1.0))
    with pytest.raises(ValueError, match="too much else runs here to tell how fast frames are collected"):
        bare_simulator.measure(tiny_params, tmp_path)
