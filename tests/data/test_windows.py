import numpy as np
import pytest
import torch

from genie.core.actions import NO_ACTION
from genie.data.windows import (
    FrameWindows,
    TokenWindows,
    WindowError,
    episode_starts_of,
    read_windows,
    spread_starts,
    window_starts,
)

EPISODE_STARTS = np.array([0, 3, 4, 10, 11])
NUM_FRAMES = 17


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6])
def test_no_window_crosses_an_episode(length):
    owner = [sum(t >= EPISODE_STARTS) for t in range(NUM_FRAMES)]
    expected = [t for t in range(NUM_FRAMES - length + 1) if len(set(owner[t : t + length])) == 1]
    assert window_starts(EPISODE_STARTS, NUM_FRAMES, length).tolist() == expected


def test_window_longer_than_any_episode():
    with pytest.raises(WindowError, match=r"no episode holds 7 frames in a row \(the longest has 6\)"):
        window_starts(EPISODE_STARTS, NUM_FRAMES, 7)


def test_spread_starts_are_distinct_and_span_all():
    starts = np.arange(0, 1000, 3)
    chosen = spread_starts(starts, 10)
    assert len(set(chosen)) == 10
    assert set(chosen) <= set(starts)
    assert chosen[0] == 0
    assert chosen[-1] > 800
    assert spread_starts(starts, 10**6).tolist() == starts.tolist()


def test_episode_starts_can_be_read_off_the_actions(store):
    np.testing.assert_array_equal(episode_starts_of(store.actions()), store.episode_starts)


def test_windows_come_in_the_order_asked_for(store):
    starts = [200, 3, 400, 3]
    windows = read_windows(store, starts, 4)
    for window, start in zip(windows, starts, strict=True):
        np.testing.assert_array_equal(window, store.read(start, start + 4))


def token_caches(store):
    """Returns tokens that identify their frame, and actions that identify their transition."""
    tokens = np.repeat(np.arange(store.num_frames, dtype=np.uint16)[:, None], 256, axis=1)
    is_last = store.actions() == NO_ACTION
    return tokens, np.where(is_last, NO_ACTION, np.arange(store.num_frames) % 8).astype(np.uint8)


def test_frame_windows_lie_within_one_episode(store):
    dataset = FrameWindows(store, window=6, batch_size=32, seed=0, num_batches=2)
    batch = dataset[1]
    assert batch.shape == (32, 6, 64, 64, 3)
    assert batch.dtype == torch.uint8
    frames = store.read(0, store.num_frames)
    episodes = [frames[episode] for episode in store.episode_slices()]
    for window in batch.numpy():
        assert any(np.array_equal(window, episode[t : t + 6]) for episode in episodes for t in range(len(episode) - 5))


def test_token_windows_keep_the_index_contract(store):
    tokens, actions = token_caches(store)
    batch = TokenWindows(tokens, actions, window=5, batch_size=64, seed=0, num_batches=1)[0]
    assert batch["tokens_BTN"].shape == (64, 5, 256)
    assert batch["actions_BS"].shape == (64, 4)
    frames_BT = batch["tokens_BTN"][:, :, 0]
    assert (frames_BT.diff(dim=1) == 1).all()
    assert (batch["actions_BS"] == frames_BT[:, :-1] % 8).all(), "action s takes frame s to s + 1; none is missing"


def test_token_windows_of_caches_that_do_not_match(store):
    tokens, actions = token_caches(store)
    with pytest.raises(WindowError, match="run `dvc repro`"):
        TokenWindows(tokens[:-1], actions, window=5, batch_size=4, seed=0, num_batches=1)


@pytest.mark.parametrize("held", [True, False])
def test_windows_have_the_size_of_the_store(larger_store, held):
    dataset = FrameWindows(larger_store, window=2, batch_size=4, seed=0, num_batches=1)
    assert dataset.num_bytes == larger_store.read(0, larger_store.num_frames).nbytes
    if held:
        dataset.hold()
    batch = dataset[0]
    assert batch.shape == (4, 2, *larger_store.frame_shape)
    starts = dataset._draw(0)
    assert np.array_equal(batch, read_windows(larger_store, starts, 2))
    assert np.array_equal(batch[0], larger_store.read(int(starts[0]), int(starts[0]) + 2))
