import csv
from pathlib import Path

import av
import numpy as np
import pytest

from tools.record_films import DECISION, PLAYERS, Game, RecordError, play, record

SECONDS = 4


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Path]:
    """Four seconds of Pong: its film and its sidecar."""
    folder = tmp_path_factory.mktemp("recorded")
    assert record("pong", SECONDS / 60, folder / "films", folder / "judge") == 1
    return folder / "films/pong-00.mp4", folder / "judge/pong-00.actions.csv"


def rows_of(sidecar: Path) -> list[list[str]]:
    with sidecar.open(newline="") as file:
        return list(csv.reader(file))


def frames_of(film: Path) -> np.ndarray:
    with av.open(film) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_a_film_shows_the_game_and_its_sidecar_names_every_action(recorded):
    film, sidecar = recorded
    with av.open(film) as file:
        (stream,) = file.streams
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 30)
    header, *rows = rows_of(sidecar)
    assert header == ["frame", "action"]
    assert [int(frame) for frame, _ in rows] == list(range(30 * SECONDS))
    actions = [action for _, action in rows]
    assert {*actions} == {*PLAYERS["pong"].draws}
    assert actions[::DECISION] == actions[DECISION - 1 :: DECISION], "each is held from one decision to the next"

    rng = np.random.default_rng((0, 0))
    played = [frame for frame, _ in play(Game("pong"), PLAYERS["pong"], rng, len(rows))]
    shown = frames_of(film)[:, ::2, ::3].astype(int)
    assert shown.shape == (len(rows), 210, 160, 3)
    assert np.abs(shown - played).mean() < 3, "the encoder loses little"


def test_the_same_arguments_give_the_same_bytes(recorded, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        record("pong", SECONDS / 60, tmp_path / name, tmp_path / f"{name}-judge", seed)
    film, sidecar = recorded
    assert (tmp_path / "again/pong-00.mp4").read_bytes() == film.read_bytes()
    assert (tmp_path / "again-judge/pong-00.actions.csv").read_bytes() == sidecar.read_bytes()
    assert rows_of(tmp_path / "other-judge/pong-00.actions.csv") != rows_of(sidecar)


def test_the_action_shows_in_the_frame_after_it():
    """The paddle is at rest as the game starts, and moves up or down as long as it is told to."""
    heights = {}
    for action in ("right", "left"):
        game = Game("pong")
        for _ in range(40):
            frame_HWC = game.step("noop")
        before = frame_HWC
        after = game.step(action)
        for _ in range(3):
            after = game.step(action)
        rows = np.flatnonzero((before != after).any(-1)[34:194, 136:150].any(-1))
        assert len(rows), action
        heights[action] = rows.mean()
    assert heights["right"] < heights["left"], "right is up"


@pytest.mark.slow
def test_a_game_that_is_over_ends_its_film(tmp_path):
    assert record("laser_gates", 1, tmp_path / "films", tmp_path / "judge") > 1
    films = sorted((tmp_path / "films").iterdir())
    lengths = [len(rows_of(path)) - 1 for path in sorted((tmp_path / "judge").iterdir())]
    assert [len(frames_of(film)) for film in films] == lengths
    assert sum(lengths) == 30 * 60


def test_bad_arguments_are_named(tmp_path):
    films, judge = tmp_path / "films", tmp_path / "judge"
    with pytest.raises(RecordError, match="no game 'freewa'; it has freeway"):
        record("freewa", 1, films, judge)
    with pytest.raises(RecordError, match="hold no frame"):
        record("freeway", 0, films, judge)
    judge.mkdir()
    (judge / "mine").touch()
    with pytest.raises(RecordError, match="judge is there and not empty"):
        record("freeway", 1, films, judge)
    assert not films.exists()
