"""A video with known physics: a texture that rolls to the right by as many blocks as its action says."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from genie.core.actions import NO_ACTION, game_actions
from genie.data.episodes import SCHEMA_VERSION, EpisodeStore
from genie.data.shards import shard_file
from genie.world.controls import arrows_of

ARROWS = arrows_of(game_actions("coinrun").names)

STEP = 4  # pixels per block
EPISODE_LENGTHS = (30, 1, 21, 12)
SIMULATOR_ACTIONS = np.array([4, 1, 7, 5, 2, 8])  # one for each effective action


def roll(frame_HWC: torch.Tensor, action: int) -> torch.Tensor:
    """Applies the physics of the video."""
    return frame_HWC.roll(STEP * int(action), dims=1)


class IdentityTokenizer:
    """A lossless tokenizer: a frame's tokens are its bytes."""

    num_codes = 256

    def encode(self, frames_BHWC):
        return frames_BHWC.flatten(1).long()

    def decode(self, tokens_BN):
        return tokens_BN.unflatten(1, (64, 64, 3)).to(torch.uint8)


class RollingWorld:
    """A world that knows the physics; with `obeys=False` it never moves."""

    num_actions, context_frames, device = 6, 2, torch.device("cpu")
    buttons = ARROWS
    tokenizer = IdentityTokenizer()

    def __init__(self, obeys: bool = True):
        self.obeys = obeys

    def rollout(self, frames_BTHWC, actions_BS, generator=None, prompt_actions_BS=None):
        assert prompt_actions_BS.shape[1] == frames_BTHWC.shape[1] - 1 == self.context_frames - 1
        dreamed = []
        for frame_HWC, action_S in zip(frames_BTHWC[:, -1], actions_BS, strict=True):
            clip = [frame_HWC]
            for action in action_S:
                clip.append(roll(clip[-1], action if self.obeys else 0))
            dreamed.append(torch.stack(clip[1:]))
        return torch.stack(dreamed)


class RollingLam(nn.Module):
    """A LAM that infers the action from each pair of frames, and draws the next frame by the physics."""

    num_actions, history = 6, 2

    def __init__(self):
        super().__init__()
        self.somewhere = nn.Parameter(torch.zeros(()))

    def infer_actions(self, frames_BTHWC):
        before, after = frames_BTHWC[:, :-1], frames_BTHWC[:, 1:]
        errors_A = [(before.roll(STEP * a, 3).float() - after.float()).abs().sum((2, 3, 4)) for a in range(6)]
        return torch.stack(errors_A).argmin(0)

    def predict_next(self, frames_BTHWC, actions_BS):
        drawn = [
            torch.stack([roll(f, a) for f, a in zip(frames, actions, strict=False)])
            for frames, actions in zip(frames_BTHWC, actions_BS, strict=True)
        ]
        return torch.stack(drawn)


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> EpisodeStore:
    """Episodes of the rolling video; half of its transitions have no motion."""
    rng = np.random.default_rng(0)
    frames, actions = [], []
    for length in EPISODE_LENGTHS:
        frame = torch.from_numpy(rng.integers(256, size=(64, 64, 3), dtype=np.uint8))
        effects = rng.integers(1, 6, length) * rng.integers(2, size=length)
        for effect in effects:
            frames.append(frame)
            frame = roll(frame, effect)
        actions += [*SIMULATOR_ACTIONS[effects[:-1]], NO_ACTION]
    folder = tmp_path_factory.mktemp("frames")
    starts = np.cumsum([0, *EPISODE_LENGTHS[:-1]])
    with h5py.File(folder / shard_file(0), "w") as file:
        file.attrs.update({"schema_version": SCHEMA_VERSION, "shard": 0, "num_shards": 1, "env_name": "coinrun"})
        file["frames"] = torch.stack(frames).numpy()
        file["actions"] = np.array(actions, np.uint8)
        file["episode_starts"] = starts.astype(np.int64)
        file["level_seeds"] = np.arange(len(starts))
    return EpisodeStore(folder)


@pytest.fixture(scope="session")
def latent_actions(store) -> np.ndarray:
    """The true latent actions: action a rolls by a blocks."""
    return store.actions()


@pytest.fixture
def lam() -> RollingLam:
    return RollingLam()


@pytest.fixture
def obedient_world() -> RollingWorld:
    return RollingWorld()


@pytest.fixture
def still_world() -> RollingWorld:
    return RollingWorld(obeys=False)
