import numpy as np
import pytest

from genie.core.actions import NO_ACTION
from genie.data.transitions import observe_split
from genie.evaluation.report import write_buttons
from genie.evaluation.typical_transitions import typical_transitions
from genie.models.surprise_lam import build_surprise_lam
from genie.pipeline.infer_actions import measure_buttons
from genie.world.controls import Button


@pytest.fixture(scope="module")
def surprise(tiny_params, scrambled):
    sprite = (28, 28, 8, 8)
    return scrambled(build_surprise_lam(tiny_params.lam.of_kind(), sprite=sprite, frame_size=(64, 64)))


@pytest.fixture(scope="module")
def clip(coinrun):
    """A split of the real game, and latent actions by chance; one is never inferred."""
    store = coinrun["val"]
    latents = np.random.default_rng(0).integers(3, size=store.num_frames).astype(np.uint8)
    latents[store.actions() == NO_ACTION] = NO_ACTION
    return store, latents


def test_an_example_is_of_its_latent_action_and_in_one_episode(lam, clip):
    store, latents = clip
    found = typical_transitions(lam, store, latents, [Button()] * 4)
    assert found[3] is None
    assert [latents[start] for start in found[:3]] == [0, 1, 2]


def test_it_is_the_median_change_where_no_motion_is_measured(lam, store, latent_actions):
    """Of the rolling video, a transition that moves as many do."""
    found = typical_transitions(lam, store, np.minimum(latent_actions, 1), [Button()] * 2)
    frames = [store.read(start, start + 2).astype(int) for start in found]
    assert np.abs(np.diff(frames[0], axis=0)).mean() == 0, "latent action 0 stays"
    assert np.abs(np.diff(frames[1], axis=0)).mean() > 0


def test_it_moves_as_its_button_does_on_average(surprise, clip):
    store, latents = clip
    buttons = measure_buttons(surprise, store, latents)[:3]
    found = typical_transitions(surprise, store, latents, buttons)
    moved_Nd = -observe_split(surprise, store)["next_Md"]
    for latent, (button, start) in enumerate(zip(buttons, found, strict=True)):
        distances_N = np.linalg.norm(moved_Nd - button.motion, axis=1)
        assert latents[start] == latent
        assert distances_N[start] < np.quantile(distances_N[latents == latent], 0.2)


@pytest.mark.parametrize("motion", [(2.0, 1.0), None])
def test_the_picture_is_drawn_only_of_buttons_without_names_and_the_same_every_time(lam, clip, motion, tmp_path):
    store, latents = clip
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_buttons(tmp_path / name, store, latents, lam, [Button(motion=motion)] * 4)
    pictures = [(tmp_path / name / "buttons.png").read_bytes() for name in ("first", "second")]
    assert pictures[0] == pictures[1]
    write_buttons(tmp_path, store, latents, lam, [Button(("stay",), (1.0,))] * 4)
    assert not (tmp_path / "buttons.png").exists()
