import re
from copy import deepcopy

import pytest

from genie.core.params import ParamsError, find_params, load_params, parse_params
from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()


@pytest.fixture
def tree(tiny_tree):
    """A tree of valid values that the test may break."""
    return deepcopy(tiny_tree)


@pytest.fixture
def load(tmp_path):
    """Returns a function that loads a text as a parameter file."""

    def load_text(text):
        (tmp_path / "params.yaml").write_text(text)
        return load_params(tmp_path / "params.yaml")

    return load_text


@pytest.mark.parametrize(
    ("section", "key", "value", "complaint"),
    [
        ("dynamics", "depth", 3, "dynamics.depth: unknown key"),
        ("lam", "seed", "zero", "lam.seed: .*valid integer.* got 'zero'"),
        ("probe", "width", 128.0, "probe.width: .*valid integer.* got 128.0"),
        ("lam", "kind", "genie", "lam.kind: .*'surprise' or 'pixels'.* got 'genie'"),
        ("lam", "surprise", {}, "lam.surprise.batch_size: missing key"),
        ("dynamics", "lr", "1e-4", "dynamics.lr: .*valid number.* got '1e-4'"),
        ("tokenizer", "steps", -1, "tokenizer.steps: .*greater than 0.* got -1"),
        ("tokenizer", "width", 10**6, "tokenizer.width: .*less than or equal to 16384.* got 1000000"),
        ("dynamics", "context_noise", float("nan"), "dynamics.context_noise: .* got nan"),
        ("collect", "env_name", "pong", "collect.env_name: .*'coinrun'.* got 'pong'"),
        ("collect", "backgrounds", "yes", "collect.backgrounds: .*valid boolean.* got 'yes'"),
        ("collect", "frames", {"train": 1, "val": 1}, "collect.frames.test: missing key"),
        ("evaluate", "i3d_weights", "", "evaluate.i3d_weights.*: .* got ''"),
        ("dynamics", "actions", False, "dynamics.actions: .*'latent' or True, got False"),
        ("evaluate", "num_states", 0, "evaluate.num_states: .*greater than 0.* got 0"),
        ("runtime", "threads", None, "runtime.threads: .* got None"),
    ],
)
def test_a_faulty_value_is_named(tree, section, key, value, complaint):
    tree = {**tree, section: {**tree[section], key: value}}
    with pytest.raises(ParamsError, match=f"^params.yaml: {complaint}"):
        parse_params(tree)


def test_a_missing_key_is_named(tree):
    del tree["sampling"]["temperature"]
    with pytest.raises(ParamsError, match=r"^params.yaml: sampling.temperature: missing key"):
        parse_params(tree)


def test_a_missing_section_is_named(tree):
    del tree["lam"]
    with pytest.raises(ParamsError, match=r"^params.yaml: lam: missing key"):
        parse_params(tree)


def test_every_fault_is_told(tree):
    tree["collect"]["seed"] = -1
    tree["evaluate"]["horizon"] = 0
    with pytest.raises(ParamsError) as error:
        parse_params(tree)
    assert "collect.seed" in str(error.value)
    assert "evaluate.horizon" in str(error.value)


def test_heads_must_share_the_width(tree):
    tree["dynamics"] |= {"width": 100, "num_heads": 3}
    with pytest.raises(ParamsError, match="width 100 must be a multiple of twice num_heads"):
        parse_params(tree)


@pytest.mark.parametrize("section", ["probe", "lam.pixels"])
def test_a_window_holds_more_than_the_history(tree, section):
    *above, name = section.split(".")
    values = (tree[above[0]] if above else tree)[name]
    values |= {"history": 4, "window": 4}
    with pytest.raises(ParamsError, match=rf"{section}: .*window \(4\) must be larger than history \(4\)"):
        parse_params(tree)


def test_codes_are_refined_after_the_expectation(tree):
    tree["lam"]["surprise"] |= {"steps": 12, "expectation_steps": 12}
    with pytest.raises(ParamsError, match=r"lam.surprise: .*expectation_steps \(12\) must be fewer than steps \(12\)"):
        parse_params(tree)


@pytest.mark.parametrize(("kind", "other"), [("surprise", "pixels"), ("pixels", "surprise")])
def test_the_params_of_a_kind_are_its_own_and_those_of_both(tree, kind, other):
    tree["lam"] |= {"kind": kind}
    params = parse_params(tree)
    found = params.lam.of_kind().model_dump()
    shared = {name: value for name, value in tree["lam"].items() if name not in ("kind", kind, other)}
    assert found == shared | tree["lam"][kind]


def test_long_dreams_are_longer_than_short_ones(tree):
    tree["evaluate"] |= {"horizon": 16, "drift_horizon": 16}
    with pytest.raises(ParamsError, match=r"drift_horizon \(16\) must be larger than horizon \(16\)"):
        parse_params(tree)


def test_codes_must_fit_the_cache(tree):
    tree["tokenizer"]["fsq_levels"] = [16, 16, 16, 16]
    parse_params(tree)
    tree["tokenizer"]["fsq_levels"] = [16, 16, 16, 17]
    with pytest.raises(ParamsError, match=r"tokenizer: .*fsq_levels make 69632 codes, and tokens hold 65536"):
        parse_params(tree)


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001", "1e-04"])
def test_a_learning_rate_in_any_notation_is_a_number(load, number):
    assert load(re.sub(r"lr: \S+", f"lr: {number}", TEXT)).tokenizer.lr == 1e-4


@pytest.mark.parametrize(("word", "value"), [("latent", "latent"), ("true", True)])
def test_the_actions_that_the_dynamics_is_told(load, word, value):
    assert load(re.sub(r"  actions: \S+", f"  actions: {word}", TEXT)).dynamics.actions == value


@pytest.mark.parametrize("text", ["collect: {", "collect:\n\t- 1", "a: 1\na: 2", "\x00"])
def test_broken_yaml_is_one_line(load, text):
    with pytest.raises(ParamsError, match="not valid YAML") as error:
        load(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "3", "- collect"])
def test_a_file_that_is_no_mapping_is_told(load, text):
    with pytest.raises(ParamsError, match="the whole file"):
        load(text)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ParamsError, match=r"cannot be read.*project's root"):
        load_params(tmp_path / "params.yaml")


def test_params_cannot_be_changed(tiny_params):
    with pytest.raises(ValueError, match="frozen"):
        tiny_params.collect.seed = 1


def test_away_from_a_project_the_defaults_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_params() == load_params(ROOT / "params.yaml")
    other = TEXT.replace("seed: 0", "seed: 5")
    (tmp_path / "params.yaml").write_text(other)
    assert find_params() == load_params(tmp_path / "params.yaml") != load_params(ROOT / "params.yaml")
