"""The agent is found with and without a camera that follows it, in synthetic scenes and in real games."""

import numpy as np
import pytest
import torch

from genie.data.episodes import EpisodeStore
from genie.models.backprojection import colors_of, locate
from genie.models.surprise_lam import SurpriseLam
from genie.models.tracking_lam import TrackingLam
from genie.sources.collect import collect
from genie.training import agent_colors
from genie.training.agent import build_for_agent
from genie.training.agent_colors import AgentError, find_colors
from genie.training.sprite import SpriteError

pytestmark = pytest.mark.slow

SIZE, NUM_FRAMES = 5, 160
AGENT, FISH = (40, 200, 110), ((250, 150, 20), (190, 60, 50))


class Sea:
    """A static texture, fish of different colours that swim straight, and an agent that turns at every step."""

    def __init__(self, *, has_agent: bool, has_fish: bool = True):
        rng = np.random.default_rng(0)
        texture = rng.integers(0, 90, size=(64, 64, 3)).astype(np.uint8)
        self.num_frames, self.episode_starts = NUM_FRAMES, np.array([0])
        self._frames = np.repeat(texture[None], NUM_FRAMES, 0)
        for row, color in zip((8, 52), FISH if has_fish else (), strict=False):
            for t in range(NUM_FRAMES):
                self._paint(t, (3 * t) % 80 - 8, row, color)
        steps = rng.choice([-4, 0, 4], size=(NUM_FRAMES, 2))
        self.places = np.empty((NUM_FRAMES, 2), np.int64)
        place = np.array([30, 30])
        for t, step in enumerate(steps):
            place = np.clip(place + step, 14, 46)
            self.places[t] = place
            if has_agent:
                self._paint(t, *place, AGENT)

    def _paint(self, t: int, x: int, y: int, color: tuple[int, int, int]) -> None:
        half = SIZE // 2
        self._frames[t, max(0, y - half) : y + half + 1, max(0, x - half) : max(0, x + half + 1)] = color

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._frames[start:stop]


@pytest.fixture(autouse=True)
def few_clips(monkeypatch):
    monkeypatch.setattr(agent_colors, "NUM_CLIPS", 24)


@pytest.fixture(scope="module")
def bigfish(tiny_params, tmp_path_factory) -> EpisodeStore:
    """Real frames of a game with a static camera."""
    folder = tmp_path_factory.mktemp("bigfish") / "frames"
    game = {"env_name": "bigfish", "policy": "uniform", "num_envs": 8, "shard_frames": 1600}
    sizes = {"frames": tiny_params.collect.frames.model_copy(update={"train": 1600})}
    collect(tiny_params.collect.model_copy(update=game | sizes), folder, num_threads=1)
    return EpisodeStore(folder / "train")


def test_an_agent_that_turns_is_told_from_what_goes_on():
    sea = Sea(has_agent=True)
    likeness_K = find_colors(sea)
    assert torch.equal(likeness_K, find_colors(sea)), "the same every time"
    places_Md, _ = locate(likeness_K[colors_of(torch.from_numpy(sea.read(0, NUM_FRAMES)))])
    np.testing.assert_allclose(places_Md.numpy(), sea.places, atol=0.5)


@pytest.mark.parametrize(
    ("sea", "message"),
    [
        (Sea(has_agent=False), r"tracked best goes another way in \d+% of the transitions"),
        (Sea(has_agent=False, has_fish=False), "nothing moves"),
    ],
    ids=["fish", "nothing"],
)
def test_what_goes_straight_on_is_no_agent(sea, message, tiny_params):
    with pytest.raises(AgentError, match=message):
        find_colors(sea)
    with pytest.raises(SpriteError, match=rf"camera stands still.*{message}.*lam\.kind to pixels.*uniform$") as fault:
        build_for_agent(tiny_params.lam.of_kind(), sea, (64, 64))
    assert "\n" not in str(fault.value)


def test_in_a_real_game_the_actions_move_what_is_tracked(bigfish, tiny_params, capsys):
    lam = build_for_agent(tiny_params.lam.of_kind(), bigfish, (64, 64))
    assert isinstance(lam, TrackingLam)
    assert "the camera stands still: " in capsys.readouterr().err
    frames_MHWC = torch.from_numpy(bigfish.read(0, bigfish.num_frames))
    moved_Sd = lam.places(frames_MHWC).diff(dim=0).numpy()
    actions = bigfish.actions()[:-1]
    # Procgen's first nine actions are directions: three columns from left to right, each of three rows from the bottom.
    left, right = (moved_Sd[np.isin(actions, [3 * column, 3 * column + 1, 3 * column + 2]), 0] for column in (0, 2))
    below, above = (moved_Sd[(actions < 9) & (actions % 3 == row), 1] for row in (0, 2))
    assert np.median(right) - np.median(left) > 3
    assert np.median(below) - np.median(above) > 3


def test_where_a_camera_follows_the_agent_it_is_not_tracked(coinrun, tiny_params):
    assert type(build_for_agent(tiny_params.lam.of_kind(), coinrun["train"], (64, 64))) is SurpriseLam
