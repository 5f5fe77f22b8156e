from itertools import pairwise

import numpy as np
import pytest
import torch

from genie.core.actions import NO_ACTION
from genie.core.frames import FRAME_SHAPE
from genie.models.backprojection import NUM_COLORS
from genie.models.pixel_lam import build_pixel_lam
from genie.models.surprise_lam import build_surprise_lam
from genie.models.tracking_lam import Agent, build_tracking_lam
from genie.pipeline.infer_actions import by_chunk, by_episode, latent_actions_of
from genie.training.costs import A_SPRITE


@pytest.fixture(params=["surprise", "tracking", "pixels"])
def lam(request, tiny_params, coinrun, scrambled):
    kind = "pixels" if request.param == "pixels" else "surprise"
    params = tiny_params.lam.model_copy(update={"kind": kind}).of_kind()
    if request.param == "surprise":
        return scrambled(build_surprise_lam(params, A_SPRITE, FRAME_SHAPE[:2]))
    if request.param == "tracking":
        likeness_K = torch.rand(NUM_COLORS, generator=torch.Generator().manual_seed(0))
        agent = Agent(likeness_K, min_mass=0.0, background_HWC=None)
        return scrambled(build_tracking_lam(params, agent, FRAME_SHAPE[:2]))
    lam = scrambled(build_pixel_lam(params)).train()
    frames = torch.from_numpy(coinrun["train"].read(0, 60)).unflatten(0, (12, 5))
    for _ in range(5):  # the codebook adapts to the encoder's outputs
        lam(frames)
    return lam.eval()


class FewEpisodes:
    """First frames of a store, cut into episodes: of one frame, of fewer than a history, and of more."""

    lengths = (1, 2, 3, 5, 60)

    def __init__(self, store):
        self.read = store.read
        stops = np.cumsum([0, *self.lengths])
        self.slices = [slice(int(a), int(b)) for a, b in pairwise(stops)]
        self.episode_starts, self.num_frames = stops[:-1], int(stops[-1])

    def episode_slices(self):
        return self.slices


def test_each_transition_gets_the_action_it_gets_alone(lam, coinrun):
    episodes = FewEpisodes(coinrun["val"])
    labelled = list(latent_actions_of(lam, episodes, "label"))
    assert [len(actions) for actions in labelled] == list(episodes.lengths)
    for episode, actions in zip(episodes.slices, labelled, strict=True):
        assert actions.dtype == np.uint8
        assert actions[-1] == NO_ACTION
        for t, action in enumerate(actions[:-1]):
            first = max(0, t + 1 - lam.history)
            alone = torch.from_numpy(episodes.read(episode.start + first, episode.start + t + 2))
            assert lam.infer_actions(alone.unsqueeze(0))[0, -1] == action
    assert len(np.unique(np.concatenate(labelled))) > 3, "of constant actions this would tell nothing"


@pytest.mark.parametrize("chunk_frames", [2, 7, 30, 1000])
def test_a_chunk_of_many_episodes_gets_the_actions_of_each_alone(chunk_frames, lam, coinrun):
    """As on a GPU, where an episode would not fill it."""
    for store in (FewEpisodes(coinrun["val"]), coinrun["val"]):
        alone = np.concatenate(list(by_episode(lam, store, "label")))
        chunks = list(by_chunk(lam, store, "label", chunk_frames))
        assert max(map(len, chunks)) == min(chunk_frames, store.num_frames)
        np.testing.assert_array_equal(np.concatenate(chunks), alone)


def test_a_split_is_labelled_whole(lam, coinrun):
    store = coinrun["test"]
    actions = np.concatenate(list(latent_actions_of(lam, store, "label")))
    assert len(actions) == store.num_frames
    np.testing.assert_array_equal(actions == NO_ACTION, store.actions() == NO_ACTION)
    assert actions[actions != NO_ACTION].max() < lam.num_actions
