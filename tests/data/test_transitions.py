import numpy as np
import pytest
import torch

from genie.core.frames import FRAME_SHAPE
from genie.data import transitions
from genie.data.transitions import TransitionWindows, observe_split
from genie.data.windows import WindowError
from genie.models.measured_size import MEASURED_SIZE, at_measured_size
from genie.models.surprise_lam import build_surprise_lam
from genie.training.costs import A_SPRITE

BATCH, BATCHES = 6, 5


@pytest.fixture(scope="module")
def lam(tiny_params):
    return build_surprise_lam(tiny_params.lam.of_kind(), A_SPRITE, FRAME_SHAPE[:2])


@pytest.fixture
def open_windows(lam, coinrun):
    def open_windows(seed=0, lam=lam):
        return TransitionWindows(lam, coinrun["val"], BATCH, seed, BATCHES)

    return open_windows


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    assert all(torch.equal(batch[name], other[name]) for name in batch)


@pytest.mark.parametrize("chunk", [7, transitions.CHUNK])
def test_what_is_drawn_is_what_is_observed_of_its_window_alone(chunk, lam, coinrun, open_windows, monkeypatch):
    monkeypatch.setattr(transitions, "CHUNK", chunk)
    windows = open_windows()
    for step in range(BATCHES):
        batch = windows[step]
        assert len(batch["next_Md"]) == BATCH
        for row, start in enumerate(windows._draw(step).tolist()):
            clip_1THWC = torch.from_numpy(coinrun["val"].read(start, start + lam.history + 1))[None]
            for name, part in lam.observe(clip_1THWC).items():
                torch.testing.assert_close(batch[name][row], part[0, -1], rtol=0, atol=0.01)


def test_no_transition_nor_its_history_crosses_episodes(coinrun, open_windows):
    windows, store = open_windows(), coinrun["val"]
    episode_of = torch.zeros(store.num_frames, dtype=torch.long)
    for number, episode in enumerate(store.episode_slices()):
        episode_of[episode] = number
    for start in windows.starts:
        assert len(episode_of[start : start + windows.window].unique()) == 1


def test_batches_are_a_pure_function_of_seed_and_step(open_windows):
    windows, again, another = open_windows(), open_windows(), open_windows(seed=1)
    for step in (3, 0, 3):
        assert_same(windows[step], again[step])
    assert not torch.equal(windows[0]["next_Md"], windows[1]["next_Md"])
    assert not torch.equal(windows[0]["next_Md"], another[0]["next_Md"])
    with pytest.raises(IndexError):
        windows[BATCHES]


def test_ranks_share_a_batch(open_windows):
    windows, shares = open_windows(), [open_windows(), open_windows()]
    for rank, share in enumerate(shares):
        share.take_share(rank, len(shares))
    whole, halves = windows[2], [share[2] for share in shares]
    assert_same(whole, {name: torch.cat([half[name] for half in halves]) for name in whole})


def test_an_episode_too_short_is_a_fault(tiny_params, coinrun, open_windows):
    params = tiny_params.lam.of_kind().model_copy(update={"history": coinrun["val"].num_frames})
    with pytest.raises(WindowError, match=r"no episode holds \d+ frames"):
        open_windows(lam=build_surprise_lam(params, A_SPRITE, FRAME_SHAPE[:2]))


def test_larger_frames_are_observed_at_the_measured_size(larger_store, tiny_params):
    lam = build_surprise_lam(tiny_params.lam.of_kind(), A_SPRITE, MEASURED_SIZE)
    observed = observe_split(lam, larger_store)
    frames_THWC = at_measured_size(torch.from_numpy(larger_store.read(0, 9)))
    for name, parts_1S in lam.observe(frames_THWC[None]).items():
        assert np.allclose(observed[name][:8], parts_1S[0], atol=0.01), name
