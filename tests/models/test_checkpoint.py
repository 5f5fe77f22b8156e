import json
import os
import resource

import pytest
import safetensors.torch
import torch

from genie.models.checkpoint import CheckpointError, fingerprint, load_model, save_model
from genie.models.lam import LatentActionModel
from genie.models.tokenizer import Tokenizer, build_tokenizer


@pytest.fixture
def saved(job, tmp_path, scrambled):
    """A model and the folder it was saved to."""
    model = scrambled(job[2]())
    return model, tmp_path / "model", save_model(tmp_path / "model", model)


@pytest.fixture
def tokenizer_folder(tiny_params, tmp_path, scrambled):
    save_model(tmp_path / "tokenizer", scrambled(build_tokenizer(tiny_params.tokenizer, 64)))
    return tmp_path / "tokenizer"


def edit_config(folder, change):
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


def test_a_checkpoint_rebuilds_its_model_alone(saved):
    model, folder, told = saved
    rebuilt = load_model(folder, type(model))
    assert rebuilt.config == model.config
    assert not rebuilt.training
    assert rebuilt.fingerprint == told == fingerprint(rebuilt) == fingerprint(model)
    state = rebuilt.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]


def test_the_same_model_gives_the_same_bytes(saved, tmp_path):
    model, folder, _ = saved
    save_model(tmp_path / "again", load_model(folder, type(model)))
    for name in os.listdir(folder):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_fingerprint_tells_weights_and_config_apart(saved):
    model, _, told = saved
    with torch.no_grad():
        next(model.parameters())[0] += 1e-3
    assert fingerprint(model) != told


def test_saving_replaces_what_was_there(tokenizer_folder, tiny_params):
    model = load_model(tokenizer_folder, Tokenizer)
    (tokenizer_folder / "stray").write_text("of another version")
    with torch.no_grad():
        next(model.parameters()).zero_()
    told = save_model(tokenizer_folder, model)
    assert load_model(tokenizer_folder, Tokenizer).fingerprint == told
    assert os.listdir(tokenizer_folder.parent) == ["tokenizer"]
    assert not (tokenizer_folder / "stray").exists()


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def truncate_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def other_weights(folder):
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state[sorted(state)[0]] += 1
    safetensors.torch.save_file(state, folder / "model.safetensors")


def one_weight_less(folder):
    state = safetensors.torch.load_file(folder / "model.safetensors")
    del state[sorted(state)[0]]
    safetensors.torch.save_file(state, folder / "model.safetensors")


def no_json(folder):
    (folder / "config.json").write_text('{"model": "tokenizer",')


def binary_config(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")


def another_json(folder):
    (folder / "config.json").write_text("[1, 2]")


def of_config(**values):
    return lambda folder: edit_config(folder, lambda content: content["config"].update(values))


def without(key):
    return lambda folder: edit_config(folder, lambda content: content.pop(key))


def saying(**values):
    return lambda folder: edit_config(folder, lambda content: content.update(values))


def no_config(folder):
    (folder / "config.json").unlink()


DAMAGED = "damaged or of another version"
FAULTS = [
    (remove_weights, "no checkpoint here .*model.safetensors is missing"),
    (no_config, "no checkpoint here .*config.json is missing"),
    (truncate_weights, DAMAGED),
    (empty_weights, DAMAGED),
    (one_weight_less, DAMAGED),
    (no_json, DAMAGED),
    (binary_config, DAMAGED),
    (another_json, DAMAGED),
    (without("fingerprint"), DAMAGED),
    (without("config"), DAMAGED),
    (of_config(width=32), DAMAGED),
    (of_config(width="wide"), DAMAGED),
    (of_config(width=-1), DAMAGED),
    (of_config(depth=3), DAMAGED),
    (of_config(ema_decay=0.5), "weights do not fit their fingerprint"),
    (saying(fingerprint="0"), "weights do not fit their fingerprint"),
    (other_weights, "weights do not fit their fingerprint"),
    (saying(model="pixel_lam"), "holds a pixel_lam, not a tokenizer"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_a_spoilt_checkpoint_is_one_clear_line(spoil, message, tokenizer_folder):
    spoil(tokenizer_folder)
    with pytest.raises(CheckpointError, match=message) as fault:
        load_model(tokenizer_folder, Tokenizer)
    assert "\n" not in str(fault.value)
    assert str(tokenizer_folder) in str(fault.value)
    assert "dvc repro train_tokenizer" in str(fault.value)


def test_a_missing_folder_and_a_model_of_another_kind(tokenizer_folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"none: no checkpoint here .*dvc repro train_lam"):
        load_model(tmp_path / "none", LatentActionModel)
    with pytest.raises(CheckpointError, match="holds a tokenizer, not a pixel_lam or surprise_lam"):
        load_model(tokenizer_folder, LatentActionModel)


def test_a_full_disk_is_one_oserror_and_keeps_the_old_checkpoint(tokenizer_folder):
    """A file size limit stands in for a full disk: writes fail in the same way."""
    model = load_model(tokenizer_folder, Tokenizer)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_model(tokenizer_folder, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_model(tokenizer_folder, Tokenizer).fingerprint == model.fingerprint
    assert os.listdir(tokenizer_folder.parent) == ["tokenizer"]
