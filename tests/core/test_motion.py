import numpy as np
import pytest

from genie.core.motion import changed_share, is_moving


def frame_with(num_changed, by):
    frame = np.full((64, 64, 3), 100, np.uint8)
    frame.reshape(-1, 3)[:num_changed, 1] += np.uint8(by % 256)
    return frame


@pytest.mark.parametrize(
    ("num_changed", "by", "expected"),
    [(409, 9, False), (410, 9, True), (410, -9, True), (410, 8, False), (4096, -8, False), (0, 50, False)],
)
def test_more_than_a_tenth_of_the_pixels_must_change_by_more_than_8(num_changed, by, expected):
    assert is_moving(frame_with(0, 0), frame_with(num_changed, by)) == expected


def test_axes_before_the_frame_are_kept():
    frames_BTHWC = np.stack([[frame_with(0, 0), frame_with(500, 20), frame_with(500, 20)]] * 2)
    moving_BS = is_moving(frames_BTHWC[:, :-1], frames_BTHWC[:, 1:])
    assert moving_BS.tolist() == [[True, False]] * 2


def test_the_share_of_changed_pixels_of_frames_against_frames():
    frames_E = np.stack([frame_with(0, 0), frame_with(1024, 9), frame_with(2048, 9)])
    shares = changed_share(frames_E[:, None], frames_E[None])
    assert shares.tolist() == [[0, 0.25, 0.5], [0.25, 0, 0.25], [0.5, 0.25, 0]]
