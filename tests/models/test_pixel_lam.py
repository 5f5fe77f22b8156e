import copy

import pytest
import torch

import genie.models.pixel_lam
from genie.models.measured_size import at_measured_size
from genie.models.pixel_lam import PixelLam, PixelLamConfig
from tests.frames import LARGER_SIZES, enlarged

CLIPS, FRAMES, HISTORY, ACTIONS = 3, 7, 3, 4
STEPS = FRAMES - 1
DRAWN = FRAMES - HISTORY  # transitions with a whole history: those drawn in training


@pytest.fixture
def frames_BTHWC(coinrun):
    starts = coinrun["val"].episode_starts[:CLIPS]
    return torch.stack([torch.from_numpy(coinrun["val"].read(s, s + FRAMES)) for s in starts])


@pytest.fixture
def lam(scrambled, frames_BTHWC):
    torch.manual_seed(0)
    shape = {"num_actions": ACTIONS, "history": HISTORY, "code_dim": 8, "width": 8, "num_blocks": 2}
    lam = scrambled(PixelLam(PixelLamConfig(**shape, commitment_weight=0.25, ema_decay=0.95))).train()
    for _ in range(5):  # the codebook adapts to the encoder's outputs
        lam(frames_BTHWC)
    return lam.eval()


@pytest.fixture
def actions_BS():
    return torch.arange(CLIPS * STEPS).view(CLIPS, STEPS) % ACTIONS


@pytest.fixture
def traced(lam, frames_BTHWC, monkeypatch):
    """Inner values of a forward pass: patches, codes, and drawn frames with and without the codes' gradient."""
    patches_BTPhw = genie.models.pixel_lam.to_patches(frames_BTHWC).requires_grad_()
    monkeypatch.setattr(genie.models.pixel_lam, "to_patches", lambda frames: patches_BTPhw)
    inner, decode = {"patches": patches_BTPhw}, lam._decode

    def watched(history, last, code):
        inner["code"] = code.unflatten(0, (CLIPS, DRAWN))
        inner["drawn_blind"] = decode(history, last, code.detach()).unflatten(0, (CLIPS, DRAWN))
        drawn = decode(history, last, code)
        inner["drawn"] = drawn.unflatten(0, (CLIPS, DRAWN))
        return drawn

    monkeypatch.setattr(lam, "_decode", watched)
    lam(frames_BTHWC)
    return inner


def felt_frames(output, patches_BTPhw):
    """Returns the frames that affect an output at all: without a path between them, the gradient is exactly 0."""
    (gradient,) = torch.autograd.grad(output.sum(), patches_BTPhw, retain_graph=True)
    return set(gradient.abs().amax((0, 2, 3, 4)).nonzero().flatten().tolist())


@pytest.mark.parametrize("s", range(STEPS))
def test_the_drawn_frame_ignores_the_true_one(s, lam, frames_BTHWC, actions_BS):
    changed_BTHWC = frames_BTHWC.clone()
    changed_BTHWC[:, s + 1] = 255 - changed_BTHWC[:, s + 1]
    before, after = lam.predict_next(frames_BTHWC, actions_BS), lam.predict_next(changed_BTHWC, actions_BS)
    changed = {t for t in range(STEPS) if not torch.equal(before[:, t], after[:, t])}
    assert changed == set(range(s + 1, min(STEPS, s + 1 + HISTORY)))


@pytest.mark.parametrize("i", range(DRAWN))
def test_the_next_frame_reaches_the_drawn_one_through_the_code_alone(i, traced):
    seen, drawn = set(range(i, i + HISTORY)), i + HISTORY
    assert felt_frames(traced["drawn_blind"][:, i], traced["patches"]) == seen
    assert felt_frames(traced["drawn"][:, i], traced["patches"]) == seen | {drawn}


@pytest.mark.parametrize("i", range(DRAWN))
def test_a_code_tells_of_its_history_and_its_own_next_frame(i, traced):
    assert felt_frames(traced["code"][:, i], traced["patches"]) == set(range(i, i + HISTORY + 1))


def test_the_decoder_listens_to_the_action(lam, frames_BTHWC):
    drawn = [lam.predict_next(frames_BTHWC, torch.full((CLIPS, STEPS), action)) for action in range(ACTIONS)]
    for action in range(1, ACTIONS):
        assert not torch.equal(drawn[0], drawn[action])


def test_an_action_acts_at_its_own_step_only(lam, frames_BTHWC, actions_BS):
    other_BS = actions_BS.clone()
    other_BS[:, 2] = (other_BS[:, 2] + 1) % ACTIONS
    before, after = lam.predict_next(frames_BTHWC, actions_BS), lam.predict_next(frames_BTHWC, other_BS)
    assert {s for s in range(STEPS) if not torch.equal(before[:, s], after[:, s])} == {2}


def test_inferred_actions_equal_those_of_each_transition_alone(lam, frames_BTHWC):
    actions_BS = lam.infer_actions(frames_BTHWC)
    assert actions_BS.dtype == torch.int64
    for s in range(STEPS):
        alone = frames_BTHWC[:, max(0, s + 1 - HISTORY) : s + 2]
        assert torch.equal(lam.infer_actions(alone)[:, -1], actions_BS[:, s])
    assert len(actions_BS.unique()) > 1, "of constant actions this would tell nothing"


def test_before_the_first_frame_the_world_stands_still(lam, frames_BTHWC, actions_BS):
    prefix = frames_BTHWC[:, :1].expand(-1, HISTORY, -1, -1, -1)
    longer_BTHWC = torch.cat([prefix, frames_BTHWC], dim=1)
    longer_BS = torch.cat([torch.zeros(CLIPS, HISTORY, dtype=torch.long), actions_BS], dim=1)
    assert torch.equal(lam.infer_actions(longer_BTHWC)[:, HISTORY:], lam.infer_actions(frames_BTHWC))
    drawn = lam.predict_next(longer_BTHWC, longer_BS)[:, HISTORY:]
    assert torch.equal(drawn, lam.predict_next(frames_BTHWC, actions_BS))


def test_the_successor_of_the_last_frame_can_be_drawn(lam, frames_BTHWC):
    actions_BT = torch.arange(CLIPS * FRAMES).view(CLIPS, FRAMES) % ACTIONS
    drawn_BTHWC = lam.predict_next(frames_BTHWC, actions_BT)
    assert drawn_BTHWC.shape == frames_BTHWC.shape
    assert drawn_BTHWC.dtype == torch.uint8
    assert torch.equal(drawn_BTHWC[:, :-1], lam.predict_next(frames_BTHWC, actions_BT[:, :-1]))


def test_a_decoder_that_draws_no_change_copies_the_last_frame(lam, frames_BTHWC, actions_BS):
    torch.nn.init.zeros_(lam.decoder_out.weight)
    torch.nn.init.zeros_(lam.decoder_out.bias)
    assert torch.equal(lam.predict_next(frames_BTHWC, actions_BS), frames_BTHWC[:, :-1])
    _, metrics = lam(frames_BTHWC)
    assert metrics["psnr"] == metrics["psnr_copy_last"]
    change = (frames_BTHWC[:, HISTORY:] / 255 - frames_BTHWC[:, HISTORY - 1 : -1] / 255).square().mean((2, 3, 4))
    torch.testing.assert_close(metrics["relative_error"], (change / (change + 1e-3)).mean())


def test_eval_mode_changes_nothing(lam, frames_BTHWC):
    before = copy.deepcopy(lam.state_dict())
    lam(frames_BTHWC)
    assert all(torch.equal(before[name], value) for name, value in lam.state_dict().items())


@pytest.mark.parametrize("size", LARGER_SIZES)
def test_larger_frames_are_seen_and_drawn_at_the_measured_size(lam, frames_BTHWC, actions_BS, size):
    large_BTHWC = torch.from_numpy(enlarged(frames_BTHWC.numpy(), size))
    small_BTHWC = at_measured_size(large_BTHWC)
    assert torch.equal(lam.infer_actions(large_BTHWC), lam.infer_actions(small_BTHWC))
    assert torch.equal(lam.predict_next(large_BTHWC, actions_BS), lam.predict_next(small_BTHWC, actions_BS))
    assert lam(large_BTHWC)[0] == lam(small_BTHWC)[0]
