import av
import numpy as np

from tests.assets.ball_film import FILM, film
from tools.films import SIDECAR, write_film, write_sidecar


def test_the_film_is_what_its_script_writes(tmp_path):
    """The bytes of the film depend on the encoder's version, its pictures hardly."""
    frames, keys = film()
    write_sidecar(tmp_path / "keys", keys)
    assert (tmp_path / "keys").read_bytes() == FILM.with_suffix(SIDECAR).read_bytes()
    with av.open(FILM) as file:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert shown.shape == frames.shape
    assert np.abs(shown.astype(int) - frames).mean() < 5
    assert FILM.stat().st_size < 100_000


def test_the_same_frames_are_encoded_as_the_same_bytes(tmp_path):
    frames, _ = film()
    for name in ("one", "other"):
        write_film(tmp_path / name, frames[:20], 15, crf=26)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
