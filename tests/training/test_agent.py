"""The agent is found with and without a camera that follows it, in synthetic scenes and in real games."""

import numpy as np
import pytest
import torch

from genie.data.episodes import EpisodeStore
from genie.models.surprise_lam import SurpriseLam
from genie.models.tracking_lam import FARTHEST, Agent, TrackingLam, build_tracking_lam
from genie.sources.collect import collect
from genie.training import agent_colors
from genie.training.agent import build_for_agent
from genie.training.agent_colors import AgentError, find_agent, find_background
from genie.training.sprite import SpriteError

pytestmark = pytest.mark.slow

SIZE, NUM_FRAMES = 5, 160
AGENT, FISH = (40, 200, 110), ((250, 150, 20), (190, 60, 50))
BUOY = slice(26, 34), slice(54, 62)  # rows and columns, which neither agent nor fish reach


class Sea:
    """A static texture, fish of different colours that swim straight, and an agent that turns at every step.

    Args:
        has_buoy: whether an object of the agent's colour, but larger, stands still.
    """

    def __init__(self, *, has_agent: bool, has_fish: bool = True, has_buoy: bool = False, scale: int = 1):
        rng = np.random.default_rng(0)
        texture = rng.integers(0, 90, size=(64, 64, 3)).astype(np.uint8)
        self.num_frames, self.episode_starts = NUM_FRAMES, np.array([0])
        self.frame_shape = (64 * scale, 64 * scale, 3)
        self._scale = scale
        self._frames = np.repeat(texture[None], NUM_FRAMES, 0)
        if has_buoy:
            self._frames[:, BUOY[0], BUOY[1]] = AGENT
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
        return self._frames[start:stop].repeat(self._scale, axis=1).repeat(self._scale, axis=2)


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


def places(agent: Agent, sea: Sea, tiny_params) -> tuple[np.ndarray, np.ndarray]:
    """Where the agent is in every frame, and whether it is there."""
    lam = build_tracking_lam(tiny_params.lam.of_kind(), agent, (64, 64))
    places_Md, there_M = lam.places(torch.from_numpy(sea.read(0, NUM_FRAMES)))
    return places_Md.numpy(), there_M.numpy()


def test_an_agent_that_turns_is_told_from_what_goes_on(tiny_params):
    sea = Sea(has_agent=True)
    agent = find_agent(sea)
    for other in (sea, Sea(has_agent=True, scale=2)):  # the same every time, and seen at the measured size
        likeness_K, min_mass, background_HWC = find_agent(other)
        assert torch.equal(likeness_K, agent.likeness_K)
        assert min_mass == agent.min_mass
        assert torch.equal(background_HWC, agent.background_HWC)
    places_Md, there_M = places(agent, sea, tiny_params)
    assert there_M.all()
    np.testing.assert_allclose(places_Md, sea.places, atol=0.5)


def test_what_never_moves_is_no_agent_whatever_its_colours(tiny_params):
    sea = Sea(has_agent=True, has_buoy=True)
    agent = find_agent(sea)
    places_Md, _ = places(agent, sea, tiny_params)
    np.testing.assert_allclose(places_Md, sea.places, atol=0.5)
    mistaken_Md, _ = places(agent._replace(background_HWC=None), sea, tiny_params)
    assert (mistaken_Md[:, 0] > BUOY[1].start).all(), "without the background, the buoy is the most like it"


def test_a_picture_that_scrolls_has_no_background():
    frames_MHWC = torch.from_numpy(Sea(has_agent=False).read(0, 30))
    still_HWC = find_background(frames_MHWC)
    assert torch.equal(still_HWC, torch.from_numpy(Sea(has_agent=False, has_fish=False).read(0, 1)[0]))
    scrolled = [frame.roll(3 * index, dims=1) for index, frame in enumerate(frames_MHWC)]
    assert find_background(torch.stack(scrolled)) is None


@pytest.mark.parametrize(
    ("sea", "message"),
    [
        (Sea(has_agent=False), r"the past predicts what moves to 0\.\d\d pixels"),
        (Sea(has_agent=False, has_fish=False), "nothing moves"),
    ],
    ids=["fish", "nothing"],
)
def test_what_goes_straight_on_is_no_agent(sea, message, tiny_params):
    with pytest.raises(AgentError, match=message):
        find_agent(sea)
    with pytest.raises(SpriteError, match=rf"camera stands still.*{message}.*lam\.kind to pixels.*uniform$") as fault:
        build_for_agent(tiny_params.lam.of_kind(), sea, (64, 64))
    assert "\n" not in str(fault.value)


def test_in_a_real_game_the_actions_move_what_is_tracked(bigfish, tiny_params, capsys):
    lam = build_for_agent(tiny_params.lam.of_kind(), bigfish, (64, 64))
    assert isinstance(lam, TrackingLam)
    assert "the camera stands still: " in capsys.readouterr().err
    places_Md, there_M = lam.places(torch.from_numpy(bigfish.read(0, bigfish.num_frames)))
    moved_Sd = places_Md.diff(dim=0).numpy()
    known_S = there_M[1:].numpy() & there_M[:-1].numpy() & (np.linalg.norm(moved_Sd, axis=1) <= FARTHEST)
    assert known_S.mean() > 0.8
    actions = bigfish.actions()[:-1]

    def mean(axis: int, word: str) -> float:
        """Mean displacement along an axis under the actions that have a word in their names."""
        named = [index for index, name in enumerate(bigfish.action_names) if word in name.split("_")]
        return moved_Sd[np.isin(actions, named) & known_S, axis].mean()

    assert mean(0, "right") - mean(0, "left") > 4
    assert mean(1, "down") - mean(1, "up") > 4


def test_where_a_camera_follows_the_agent_it_is_not_tracked(coinrun, tiny_params):
    assert type(build_for_agent(tiny_params.lam.of_kind(), coinrun["train"], (64, 64))) is SurpriseLam
