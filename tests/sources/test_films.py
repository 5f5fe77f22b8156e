import numpy as np
import pytest
from PIL import Image

from genie.sources.film_frames import FrameScaler, sample
from genie.sources.films import FilmError, decode, digest, expected_frames, find_films, find_pictures, sidecar_path
from tests.films import moving, write_film, write_pictures, write_sound


def frames_of(path, fps=1000.0, crop="cover", size=64):
    scaler = FrameScaler(crop, size)
    return np.stack([scaler(frame) for _, frame in sample(decode(path), fps)])


def sampled(path, fps):
    return [index for index, _ in sample(decode(path), fps)]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mov", "libx264", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("ten bits.mp4", "libx264", "yuv420p10le"),
        ("four.mp4", "libx264", "yuv444p"),
        ("Прогулка 散歩.mp4", "libx264", "yuv420p"),
    ],
)
def test_every_kind_of_film_shows_the_same_frames(name, codec, pixels, tmp_path):
    pictures = moving(12)
    path = write_film(tmp_path / name, pictures, codec=codec, pixels=pixels)
    frames = frames_of(path)
    assert frames.shape == (12, 64, 64, 3)
    expected = np.stack(
        [np.asarray(Image.fromarray(p[:, 8:56]).resize((64, 64), Image.Resampling.BOX)) for p in pictures]
    )
    assert np.abs(frames.astype(int) - expected).mean() < 12
    assert expected_frames(path) == 12


def test_the_number_of_threads_changes_nothing(tmp_path):
    path = write_film(tmp_path / "a.mp4", moving(40, height=180, width=320, step=5))
    scaler = FrameScaler("cover", 64)
    one, four = ([scaler(frame) for frame in decode(path, threads)] for threads in (1, 4))
    np.testing.assert_array_equal(one, four)


@pytest.mark.parametrize(("rate", "fps", "step"), [(30, 10.0, 3), (60, 10.0, 6), (25, 25.0, 1), (10, 30.0, 1)])
def test_frames_are_sampled_at_equal_distances(rate, fps, step, tmp_path):
    path = write_film(tmp_path / "a.mkv", moving(60), rate=rate)  # which rounds times to milliseconds
    assert sampled(path, fps) == list(range(0, 60, step))


def test_of_a_variable_rate_the_frames_on_show_are_sampled(tmp_path):
    times = [0, 0.01, 0.02, 0.25, 0.26, 0.9, 0.95, 1.0, 1.5]
    path = write_film(tmp_path / "a.mp4", moving(9), times=times)
    # On show at 0, 0.1, 0.2: frames 0, 2, 2; from 0.3 to 0.8: 4; at 0.9: 5; at 1.0 and later: 7; at 1.5: 8.
    assert sampled(path, 10.0) == [0, 2, 4, 5, 7, 8]


@pytest.mark.parametrize(
    ("rotation", "hflip", "upright"),
    [
        (90, False, lambda p: np.rot90(p)),
        (-90, False, lambda p: np.rot90(p, -1)),
        (180, False, lambda p: np.rot90(p, 2)),
        (0, True, lambda p: p[:, ::-1]),
    ],
)
@pytest.mark.parametrize("crop", ["cover", "contain", [4, 2, 30, 40]])
def test_a_rotated_film_is_shown_upright(rotation, hflip, upright, crop, tmp_path):
    corners = np.zeros((48, 64, 3), np.uint8)
    corners[:24, :32], corners[24:, 32:], corners[:24, 32:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    turned = write_film(tmp_path / "a.mp4", [corners] * 2, rotation=rotation, hflip=hflip, pixels="yuv444p")
    plain = write_film(tmp_path / "b.mp4", [upright(corners)] * 2, pixels="yuv444p")
    assert np.abs(frames_of(turned, crop=crop)[0].astype(int) - frames_of(plain, crop=crop)[0]).mean() < 3


def test_crops_take_what_they_say(tmp_path):
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[:, :30], picture[:, 30:90], picture[:, 90:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    path = write_film(tmp_path / "a.mp4", [picture] * 2, pixels="yuv444p")
    cover, contain, box = (frames_of(path, crop=crop)[0].astype(int) for crop in ("cover", "contain", [90, 0, 30, 60]))
    assert np.abs(cover - (0, 250, 0)).max() < 16
    assert contain[:16].max() == contain[48:].max() == 0
    assert np.abs(contain[32, [4, 32, 60]] - np.diag([250] * 3)).max() < 16
    assert np.abs(box - (0, 0, 250)).max() < 16


@pytest.mark.parametrize("size", [(64, 1), (1, 64), (1, 1), (17, 33)])
@pytest.mark.parametrize("crop", ["cover", "contain"])
def test_narrow_and_odd_pictures(size, crop, tmp_path):
    path = write_film(tmp_path / "a.nut", [np.full((*size, 3), 200, np.uint8)] * 3, codec="rawvideo", pixels="yuv444p")
    frames = frames_of(path, crop=crop)
    assert frames.shape == (3, 64, 64, 3)
    assert abs(int(frames.max()) - 200) < 4


def test_pictures_of_a_folder_are_a_film_in_natural_order(tmp_path):
    pictures = moving(11, step=5)
    folder = write_pictures(tmp_path / "walk", pictures)
    (folder / "notes.txt").write_text("no picture")
    assert [path.name for path in find_pictures(folder)] == [f"{index}.png" for index in range(1, 12)]
    frames = np.stack([FrameScaler([0, 0, 64, 48], 64)(frame) for frame in decode(folder)])
    np.testing.assert_array_equal(frames[:, 24, 1:-1], np.stack(pictures)[:, 24, 1:-1])


def test_a_box_outside_the_picture(tmp_path):
    path = write_film(tmp_path / "a.mp4", moving(2))
    with pytest.raises(FilmError, match=r"crop: \[0, 0, 65, 48\] does not lie within a picture of 64x48"):
        frames_of(path, crop=[0, 0, 65, 48])
    with pytest.raises(FilmError, match="an empty box"):
        frames_of(path, crop=[0, 0, 0, 48])


def spoilt(tmp_path, kind):
    """A film with a fault, by its kind."""
    if kind == "text":
        (path := tmp_path / "a.mp4").write_text("This is no film.\n" * 50)
    elif kind == "empty":
        (path := tmp_path / "a.mp4").write_bytes(b"")
    elif kind == "sound":
        path = write_sound(tmp_path / "a.mp4")
    elif kind == "link":
        (path := tmp_path / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    elif kind == "missing":
        path = tmp_path / "a.mp4"
    elif kind == "empty folder":
        (path := tmp_path / "a").mkdir()
    elif kind == "picture":
        folder = write_pictures(tmp_path / "a", moving(3))
        (folder / "2.png").write_text("no picture")
        path = folder
    else:
        name, faststart = {"mp4": ("a.mp4", True), "mp4, index last": ("a.mp4", False)}.get(kind, (f"a.{kind}", False))
        noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
        codec = "mpeg4" if kind == "avi" else "libx264"
        path = write_film(tmp_path / name, noise, faststart=faststart, codec=codec)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


FAULTS = {
    "text": "FFmpeg cannot read it",
    "empty": "FFmpeg cannot read it",
    "sound": "no pictures in it, only sound",
    "link": "a link to .*gone.mp4, which does not exist",
    "missing": "no such film",
    "empty folder": "neither films nor pictures in it",
    "picture": r"2\.png: (FFmpeg cannot read it|no frame of it)",
    "mp4": "(cut off|broken after frame)",
    "mp4, index last": "FFmpeg cannot read it",
    "mkv": "(cut off|broken after frame)",
    "avi": "(cut off|broken after frame)",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_one_line_that_names_the_film(kind, tmp_path):
    path = spoilt(tmp_path, kind)
    with pytest.raises(FilmError, match=FAULTS[kind]) as fault:
        list(decode(path))
    assert str(fault.value).startswith(str(path))
    assert "\n" not in str(fault.value)
    assert expected_frames(path) >= 0


def test_films_of_a_folder_are_those_that_are_not_hidden(tmp_path):
    for name in ("b.mp4", "a.mp4", ".gitignore", "a.actions.csv"):
        (tmp_path / name).touch()
    (tmp_path / "c").mkdir()
    assert [path.name for path in find_films(tmp_path)] == ["a.mp4", "b.mp4", "c"]
    assert [sidecar_path(path).name for path in find_films(tmp_path)] == [f"{name}.actions.csv" for name in "abc"]
    (tmp_path / "a.mkv").touch()
    with pytest.raises(FilmError, match=r"a\.mp4: a\.mkv has the same name but for its suffix"):
        find_films(tmp_path)


def test_a_digest_is_of_bytes(tmp_path):
    one, two = (write_pictures(tmp_path / name, moving(3)) for name in ("one", "two"))
    assert digest(one) == digest(two)
    (two / "3.png").write_bytes((two / "2.png").read_bytes())
    assert digest(one) != digest(two)
    assert digest(one / "1.png") != digest(one / "2.png")
