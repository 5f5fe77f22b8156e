import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from ruamel.yaml import YAML

from genie.world import WorldModel, pretrained
from genie.world.pretrained import PretrainedError, find_world
from genie.world.prompts import Prompt, PromptError

FILES = {"README.md", "config.json", "model.safetensors", "prompts.npz"}


@pytest.fixture
def folder(tiny_world, tmp_path):
    """Folder of a saved world."""
    tiny_world.save_pretrained(tmp_path / "castle")
    return tmp_path / "castle"


def played(world, prompt):
    world.reset(prompt.frames_THWC, actions=prompt.actions)
    return np.stack([world.step(action % world.num_actions) for action in range(8)])


def rounded(world, dtype):
    """Returns the same world with its weights rounded to a dtype."""
    state = {name: tensor.to(dtype).to(tensor.dtype) for name, tensor in world.state_dict().items()}
    again = WorldModel(
        type(world.tokenizer)(world.tokenizer.config),
        type(world.dynamics)(world.dynamics.config),
        type(world.steering)(world.steering.config),
        world.sampling,
        world.buttons,
        world.prompts,
    )
    again.load_state_dict(state)
    return again.eval()


def test_what_is_loaded_plays_as_the_rounded_world(tiny_world, folder):
    loaded = WorldModel.from_pretrained(folder)
    half = rounded(tiny_world, torch.float16)
    for prompt, kept in zip(tiny_world.prompts, loaded.prompts, strict=True):
        assert np.array_equal(played(loaded, kept), played(half, prompt))
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert not loaded.training


def test_all_that_a_world_knows_is_kept(tiny_world, folder):
    loaded = WorldModel.from_pretrained(str(folder))
    assert {file.name for file in folder.iterdir()} == FILES
    assert loaded.buttons == tiny_world.buttons
    assert loaded.sampling == tiny_world.sampling
    assert (loaded.tokenizer.config, loaded.dynamics.config) == (
        tiny_world.tokenizer.config,
        tiny_world.dynamics.config,
    )
    assert loaded.tokenizer.fingerprint == loaded.dynamics.config.tokenizer_fingerprint
    for kept, prompt in zip(loaded.prompts, tiny_world.prompts, strict=True):
        assert np.array_equal(kept.frames_THWC, prompt.frames_THWC)
        assert np.array_equal(kept.actions, prompt.actions)
        assert (kept.level, kept.source) == (prompt.level, prompt.source)


def test_saving_what_was_loaded_gives_the_same_bytes(folder, tmp_path):
    again = tmp_path / "again"
    WorldModel.from_pretrained(folder).save_pretrained(again)
    for name in FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_weights_are_halved_and_float16_keeps_them_closer_than_bfloat16(tiny_world, folder):
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert {name.partition(".")[0] for name in state} == {"tokenizer", "dynamics", "steering"}
    prompt = tiny_world.prompts[0]
    read = tiny_world.remember(torch.from_numpy(prompt.frames_THWC[None]), None)
    memory = tiny_world.dynamics.expect(read, torch.tensor([0]))
    masked_BN = torch.full_like(memory.last_BN, tiny_world.dynamics.mask_token)

    def error(dtype):
        logits = [world.dynamics.predict(masked_BN, memory)[0] for world in (tiny_world, near(dtype))]
        return (logits[0] - logits[1]).abs().max()

    def near(dtype):
        return rounded(tiny_world, dtype)

    assert 0 < error(torch.float16) < error(torch.bfloat16) / 4


def test_the_card_is_of_this_world(tiny_world, folder, tmp_path):
    _, front_matter, text = (folder / "README.md").read_text().split("---\n", 2)
    assert YAML(typ="safe").load(front_matter)["license"] == "mit"
    for latent, button in enumerate(tiny_world.buttons):
        assert f"| {latent} | {button.title} |\n" in text
    assert "world.steer(0)" in text
    assert "Measured" not in text
    assert "Trained by" not in text
    details = {"metrics": "| psnr | 21.5 |\n", "made": "Trained by `make repro`."}
    tiny_world.save_pretrained(tmp_path / "told", model_card_kwargs=details)
    told = (tmp_path / "told" / "README.md").read_text()
    assert "| psnr | 21.5 |" in told
    assert "Trained by `make repro`." in told


def test_worlds_without_true_actions_are_kept_and_described(moving_world, pictured_world, tmp_path):
    for name, world in (("moving", moving_world), ("pictured", pictured_world)):
        film = replace(world.prompts[0], source="cat.mp4, frame 12")
        world = world.fork()
        world.prompts = (film,)
        world.save_pretrained(tmp_path / name)
        loaded = WorldModel.from_pretrained(tmp_path / name)
        assert loaded.buttons == world.buttons
        assert loaded.steering is None
        assert loaded.prompts[0].source == film.source
        card = (tmp_path / name / "README.md").read_text()
        assert "CoinRun" not in card
        assert "arrow" not in card
        assert card.count("| 1 |") == (name == "moving")
        for button in world.buttons:
            assert button.title in card


def test_it_is_saved_whole_or_not_at_all_and_beside_what_is_there(tiny_world, folder):
    (folder / "notes.txt").write_text("mine")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = tiny_world.fork()
    other.sampling = replace(tiny_world.sampling, maskgit_steps=9)
    long, short = tiny_world.prompts[:2]
    other.prompts = (long, Prompt(short.frames_THWC[:1], short.actions[:0], "", 0))
    with pytest.raises(ValueError, match="same shape"):  # after weights and config have been written
        other.save_pretrained(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["castle"]
    other.prompts = (long,)
    other.save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert WorldModel.from_pretrained(folder).sampling.maskgit_steps == 9


def fault_of(folder):
    with pytest.raises(PretrainedError) as fault:
        WorldModel.from_pretrained(folder)
    assert "\n" not in str(fault.value)
    return str(fault.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert f"no world here ({name} is missing)" in fault_of(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("weights"),
        lambda content: content.pop("dynamics"),
        lambda content: content["tokenizer"]["config"].update(width=8),
        lambda content: content["tokenizer"]["config"].update(colour="red"),
        lambda content: content["sampling"].update(maskgit_steps=0),
        lambda content: content["buttons"].pop(),
        lambda content: content["buttons"][0].update(shares=[1.0]),
        lambda content: content["buttons"][0].update(shares=["left"] * 6),
        lambda content: content.pop("steering"),
        lambda content: content["steering"]["config"].update(num_actions=4),
        lambda content: content["dynamics"]["config"].update(patch_size=3),
    ],
)
def test_another_config_is_refused(folder, spoil):
    content = json.loads((folder / "config.json").read_text())
    spoil(content)
    (folder / "config.json").write_text(json.dumps(content))
    assert "damaged or of another version" in fault_of(folder)


def test_damage_is_refused(folder, tiny_world):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert "model.safetensors is damaged" in fault_of(folder)
    (folder / "config.json").write_text("{")
    assert "damaged or of another version" in fault_of(folder)
    tiny_world.save_pretrained(folder)


FRAMES, NO_ACTIONS = np.zeros((2, 1, 64, 64, 3), np.uint8), np.zeros((2, 0), np.uint8)


@pytest.mark.parametrize(
    "arrays",
    [
        {"frames": np.array([{}], object), "actions": NO_ACTIONS, "seeds": np.arange(2)},  # needs pickle
        {"frames": FRAMES, "actions": NO_ACTIONS},
        {"frames": FRAMES[1:], "actions": NO_ACTIONS, "seeds": np.arange(2)},
        {"frames": FRAMES[..., :32, :], "actions": NO_ACTIONS, "seeds": np.arange(2)},
        {"frames": FRAMES.astype(float), "actions": NO_ACTIONS, "seeds": np.arange(2)},
        {"frames": FRAMES, "actions": np.zeros((2, 1), np.uint8), "seeds": np.arange(2)},
        None,
    ],
)
def test_damaged_prompts_are_refused(folder, arrays):
    if arrays is None:
        (folder / "prompts.npz").write_bytes((folder / "prompts.npz").read_bytes()[:-40])
    else:
        np.savez(folder / "prompts.npz", **arrays)
    with pytest.raises(PromptError, match=r"prompts\.npz: no prompts, or damaged ones") as fault:
        WorldModel.from_pretrained(folder)
    assert "\n" not in str(fault.value)


def test_without_a_name_the_shipped_world_is_meant(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "SHIPPED", folder)
    assert find_world() == folder
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "none")
    assert "no world is shipped with this copy" in fault_of(None)


def test_the_shipped_world_is_small_and_plays_from_a_dozen_levels():
    files = list(pretrained.SHIPPED.iterdir())
    assert {file.name for file in files} == {"model.safetensors", "config.json", "README.md", "prompts.npz"}
    assert sum(file.stat().st_size for file in files) <= 25e6
    world = WorldModel.from_pretrained()
    assert len({prompt.level for prompt in world.prompts}) == 12
    psnrs, told_apart = [], []
    for prompt in world.prompts:
        shown_HWC = world.reset(prompt.frames_THWC, actions=prompt.actions)
        psnrs.append(10 * np.log10(255**2 / ((shown_HWC.astype(float) - prompt.frames_THWC[-1]) ** 2).mean()))
        imagined_AHWC = world.imagine().astype(int)
        told_apart.append((np.abs(imagined_AHWC - imagined_AHWC[:1]) > 32).any(-1).mean((1, 2)).max())
    assert np.mean(psnrs) > 28, "it sees what it is shown"
    assert np.mean(told_apart) > 0.1, "its buttons do different things"


def test_a_world_on_the_hub_is_loaded_by_its_name(folder, tmp_path):
    """Loads from the hub's cache, laid out as after a download."""
    cached = tmp_path / "cache" / "models--ann--castle"
    shutil.copytree(folder, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    loaded = WorldModel.from_pretrained("ann/castle", cache_dir=tmp_path / "cache", local_files_only=True)
    assert len(loaded.prompts) == 3
    with pytest.raises(PretrainedError, match="ann/tower: neither a folder here nor a world on the hub"):
        find_world("ann/tower", cache_dir=tmp_path / "cache", local_files_only=True)


@pytest.mark.parametrize("name", ["nowhere", "/no/where", "../no/where", "a/b/c", "./nowhere"])
def test_a_folder_that_is_none_asks_no_hub(name):
    assert f"{name}: no such folder" in fault_of(name)


def test_a_world_of_larger_frames_is_saved_and_loaded(larger_world, folder, tmp_path):
    larger_world.save_pretrained(tmp_path / "tower")
    loaded, size = WorldModel.from_pretrained(tmp_path / "tower"), larger_world.frame_shape[0]
    assert loaded.frame_shape == (size, size, 3)
    assert f"uint8, {size}x{size}, RGB" in (tmp_path / "tower" / "README.md").read_text()
    assert played(loaded, loaded.prompts[0]).shape == (8, size, size, 3)
    shutil.copy(folder / "prompts.npz", tmp_path / "tower")
    with pytest.raises(PromptError, match=f"prompts of 64x64 pixels for a world of {size}x{size}; .*genie export"):
        WorldModel.from_pretrained(tmp_path / "tower")
