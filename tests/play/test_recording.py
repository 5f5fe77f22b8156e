import io

import av
import numpy as np
import pytest
from PIL import Image

from genie.core.frames import FRAME_SIZES
from genie.play import recording as recording_module
from genie.play.recording import GAP, SIDE, Recording, RecordingError

COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)


@pytest.fixture
def size():
    """Pixels a side of a frame."""
    return 64


@pytest.fixture
def recording(size):
    """A red dream, a green one with a blue twin, and a blue dream."""
    red, green, blue = np.broadcast_to(COLOURS[:, None, None], (3, size, size, 3))
    recording = Recording()
    recording.turn(on=True)
    for panels in ([red], [green, blue], [blue]):
        recording.show(np.stack(panels))
    return recording


def shown(recording, format):
    """Returns the encoded pictures, `(S, H, W, 3)`, and the duration of the first in milliseconds."""
    file = io.BytesIO(recording.encode(format, 10))
    if format == "gif":
        with Image.open(file) as gif:
            duration = gif.info["duration"]
            return np.stack([_picture(gif, index) for index in range(gif.n_frames)]), duration
    with av.open(file) as film:
        stream = film.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
        return np.stack(pictures), round(1000 / stream.average_rate)


def _picture(gif, index):
    gif.seek(index)
    return np.asarray(gif.convert("RGB"))


@pytest.mark.parametrize("size", FRAME_SIZES)
@pytest.mark.parametrize("format", ["gif", "mp4"])
def test_a_recording_shows_what_was_shown(recording, format, size):
    pictures, duration = shown(recording, format)
    side = SIDE // size * size
    assert pictures.shape == (3, side, 2 * side + GAP, 3)
    assert duration == 100
    dreams, twins = pictures[:, side // 2, side // 2], pictures[:, side // 2, side + GAP + side // 2]
    assert np.allclose(dreams, COLOURS, atol=12)  # videos keep colours less exactly
    assert np.allclose(twins, [[17] * 3, COLOURS[2], [17] * 3], atol=12)


def test_off_keeps_and_on_forgets(recording):
    recording.turn(on=False)
    recording.show(np.zeros((1, 64, 64, 3), np.uint8))
    assert len(recording) == 3
    recording.turn(on=True)
    assert len(recording) == 0
    with pytest.raises(RecordingError, match="press record"):
        recording.encode("gif", 15)


def test_it_ends_when_it_is_full(recording, monkeypatch):
    monkeypatch.setattr(recording_module, "MAX_FRAMES", 5)
    for _ in range(9):
        recording.show(np.zeros((1, 64, 64, 3), np.uint8))
    assert len(recording) == 5
    assert not recording.is_on


def test_what_is_kept_is_not_what_others_write_to():
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    recording = Recording()
    recording.turn(on=True)
    recording.show(frames)
    frames[:] = 255
    assert shown(recording, "gif")[0].max() == 0
