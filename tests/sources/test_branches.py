import numpy as np
import pytest

from genie.core.actions import game_actions
from genie.data.episodes import EpisodeStore
from genie.sources import branches as branches_module
from genie.sources.branches import play_branches

PAST = 3
COINRUN = game_actions("coinrun")


@pytest.fixture(scope="module")
def branches(collect_params):
    return play_branches(collect_params, "train", num_states=20, past_frames=PAST)


@pytest.fixture
def recorded(collected):
    """Frames and actions of the shard that was branched."""
    first = EpisodeStore(collected / "train").files[0]
    return first.read(0, first.num_frames), first.actions()


def index_of(past_THWC, frames):
    """Returns where in the split a past ends, or None: the branched play continues longer than the recorded one."""
    ends = np.flatnonzero((frames == past_THWC[-1]).all((1, 2, 3)))
    whole = [end for end in ends if end >= PAST - 1 and np.array_equal(frames[end - PAST + 1 : end + 1], past_THWC)]
    return whole[0] if whole else None


def test_states_are_those_of_the_first_shard_and_the_action_taken_leads_to_the_frame_recorded(branches, recorded):
    frames, actions = recorded
    found = [(m, index_of(past_THWC, frames)) for m, past_THWC in enumerate(branches.past_MTHWC)]
    found = [(m, end) for m, end in found if end is not None]
    assert len(found) >= 5
    compared = 0
    for m, end in found:
        assert branches.taken_MS[m].tolist() == COINRUN.effective(actions[end - PAST + 1 : end]).tolist()
        if actions[end] < 15:
            effect = COINRUN.effective(actions[end])
            np.testing.assert_array_equal(branches.next_MEHWC[m, effect], frames[end + 1])
            compared += 1
    assert compared >= 5


def test_shapes_and_that_actions_matter(branches):
    assert branches.past_MTHWC.shape == (20, PAST, 64, 64, 3)
    assert branches.taken_MS.shape == (20, PAST - 1)
    assert branches.next_MEHWC.shape == (20, len(COINRUN.names), 64, 64, 3)
    left, right = (branches.next_MEHWC[:, COINRUN.names.index(name)] for name in ("left", "right"))
    assert (left != right).any((1, 2, 3)).mean() > 0.5


def test_the_same_params_give_the_same_branches(branches, collect_params):
    again = play_branches(collect_params, "train", num_states=20, past_frames=PAST)
    for name in ("past_MTHWC", "taken_MS", "held_MEFHWC"):
        np.testing.assert_array_equal(getattr(again, name), getattr(branches, name))


def test_a_state_needs_no_past(collect_params):
    branches = play_branches(collect_params, "test", num_states=8, past_frames=1)
    assert branches.taken_MS.shape == (8, 0)


def test_lives_too_short_to_branch_are_told_in_one_line(collect_params, monkeypatch, capsys):
    monkeypatch.setattr(branches_module, "MAX_PLAYED", 2)
    long = collect_params.model_copy(update={"action_repeat": 32})
    assert play_branches(long, "test", num_states=1, past_frames=40) is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("only 0 of 1 states live 40 frames before and 1 after")
    monkeypatch.setattr(branches_module, "MAX_PLAYED", 1)
    few = play_branches(long, "test", num_states=32, past_frames=10)
    assert 0 < len(few.past_MTHWC) < 32
    assert capsys.readouterr().err.startswith(f"only {len(few.past_MTHWC)} of 32 states")
