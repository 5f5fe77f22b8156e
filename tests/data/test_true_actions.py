import torch

from genie.core.actions import NO_ACTION
from genie.data.true_actions import LabelledFrameWindows, read_labelled_windows
from genie.data.windows import FrameWindows, window_starts

LENGTH = 4


def test_an_action_stands_beside_the_frame_it_is_taken_at(store):
    actions = store.actions()
    starts = window_starts(store.episode_starts, store.num_frames, LENGTH)
    labels_BS = read_labelled_windows(store, actions, starts, LENGTH)["actions_BS"]
    assert labels_BS.dtype == torch.int64
    for start, labels_S in zip(starts, labels_BS.tolist(), strict=True):
        taken = actions[start : start + LENGTH - 1]
        assert NO_ACTION not in taken
        assert labels_S == taken.tolist()
    assert set(labels_BS.unique().tolist()) == set(range(len(store.action_names)))


def test_labels_come_beside_the_same_windows(store):
    settings = {"window": LENGTH, "batch_size": 8, "seed": 3, "num_batches": 2}
    labelled, frames = LabelledFrameWindows(store, **settings), FrameWindows(store, **settings)
    assert len(labelled) == len(frames)
    for step in range(len(frames)):
        assert torch.equal(labelled[step]["frames_BTHWC"], frames[step])
        assert labelled[step]["actions_BS"].shape == (8, LENGTH - 1)
