import copy
import math

import pytest
import torch

from genie.data.episodes import EpisodeStore
from genie.data.transitions import TransitionWindows
from genie.models.checkpoint import load_model, save_model
from genie.models.lam import LatentActionModel
from genie.models.measured_size import FrameSizeError, at_measured_size
from genie.models.registration import Box
from genie.models.surprise_lam import SurpriseLam, SurpriseLamConfig, information
from genie.models.tracking_lam import TrackingLam
from tests.frames import LARGER_SIZES, enlarged

CLIPS, FRAMES, PAST, ACTIONS = 3, 7, 2, 4
HISTORY, STEPS = PAST + 1, FRAMES - 1
EXPECTATION_STEPS = 3
SPRITE = Box(27, 28, 10, 8)
# Registering a clip's frames alone or with others changes the order of sums, and so their rounding.
CLOSE = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture
def frames_BTHWC(coinrun):
    starts = coinrun["val"].episode_starts[:CLIPS]
    return torch.stack([torch.from_numpy(coinrun["val"].read(s, s + FRAMES)) for s in starts])


@pytest.fixture(params=[SurpriseLam, TrackingLam], ids=["camera", "tracking"])
def born(request):
    """A fresh model: one for a camera that follows CoinRun's agent, or one that tracks random colours."""
    torch.manual_seed(0)
    lam = request.param(
        SurpriseLamConfig(
            num_actions=ACTIONS,
            history=PAST,
            width=8,
            ema_decay=0.9,
            expectation_steps=EXPECTATION_STEPS,
            sprite=SPRITE,
            frame_size=(64, 64),
        )
    )
    if isinstance(lam, TrackingLam):
        # Of these colours, what is tracked seldom jumps farther than an agent.
        lam.likeness_K.copy_(torch.rand(lam.likeness_K.shape, generator=torch.Generator().manual_seed(0)))
    return lam


@pytest.fixture
def lam(born):
    """Moved off its initial weights; a learnt expectation only so far that it stays near measurements."""
    noise = 0.2 if isinstance(born, TrackingLam) else 0.05
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in born.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
        born.clusters.copy_(torch.randn(born.clusters.shape, generator=generator))
    return born.eval()


@pytest.fixture
def batch(born, frames_BTHWC):
    return {name: part.flatten(0, 1) for name, part in born.observe(frames_BTHWC).items()}


def test_inferred_actions_equal_those_of_each_transition_alone(lam, frames_BTHWC):
    actions_BS, likelihood_BSA = lam.judge(frames_BTHWC)
    assert actions_BS.dtype == torch.int64
    assert torch.equal(lam.infer_actions(frames_BTHWC), actions_BS)
    for s in range(STEPS):
        alone = lam.judge(frames_BTHWC[:, max(0, s + 1 - HISTORY) : s + 2])
        assert torch.equal(alone[0][:, -1], actions_BS[:, s])
        torch.testing.assert_close(alone[1][:, -1], likelihood_BSA[:, s], **CLOSE)
    assert len(actions_BS.unique()) > 1, "of constant actions this would tell nothing"


@pytest.mark.parametrize("s", range(STEPS))
def test_an_action_depends_on_its_history_and_the_next_frame_alone(s, lam, frames_BTHWC):
    _, before_BSA = lam.judge(frames_BTHWC)
    felt = set()
    for t in range(FRAMES):
        changed_BTHWC = frames_BTHWC.clone()
        changed_BTHWC[:, t] = changed_BTHWC[:, t].roll(3, dims=2)  # no farther than an agent moves
        _, after_BSA = lam.judge(changed_BTHWC)
        if not torch.allclose(before_BSA[:, s], after_BSA[:, s], **CLOSE):
            felt.add(t)
    assert felt == set(range(max(0, s + 1 - HISTORY), s + 2))


def test_before_the_first_frame_the_world_stands_still(lam, frames_BTHWC):
    prefix = frames_BTHWC[:, :1].expand(-1, HISTORY, -1, -1, -1)
    longer = lam.judge(torch.cat([prefix, frames_BTHWC], dim=1))
    for after_prefix, alone in zip(longer, lam.judge(frames_BTHWC), strict=True):
        torch.testing.assert_close(after_prefix[:, HISTORY:], alone, **CLOSE)


def test_the_past_is_the_displacements_before_the_latest_first(lam, frames_BTHWC):
    observed = lam.observe(frames_BTHWC)
    moved_BSd = observed["next_Md"]
    for s in range(STEPS):
        for age in range(PAST):
            known = moved_BSd[:, s - 1 - age] if s > age else torch.zeros(CLIPS, 2)
            assert torch.equal(observed["past_MPd"][:, s, age], known)
    assert moved_BSd.abs().max() > 1
    assert torch.equal(observed["sprites_M2HWC"][:, 1:, 0], observed["sprites_M2HWC"][:, :-1, 1])


def test_true_actions_are_not_read(born, coinrun, monkeypatch):
    def told(self):
        pytest.fail("the latent action model was told the true actions")

    monkeypatch.setattr(EpisodeStore, "actions", told)
    windows = TransitionWindows(born, coinrun["val"], batch_size=8, seed=0, num_batches=EXPECTATION_STEPS + 2)
    optimizer = torch.optim.AdamW(born.parameters(), lr=1e-3)
    for step in range(len(windows)):
        loss, _ = born.train()(windows[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)


def test_a_mixture_begins_as_the_clusters(born, batch):
    born.train()
    for _ in range(EXPECTATION_STEPS):
        expected, metrics = born(batch)
        assert torch.equal(born.clusters, born.quantizer.codebook)
    refined, _ = born.eval()(batch)
    assert refined == expected, "until another step is made"
    assert metrics["cross_entropy"] == expected
    began_as = born.clusters.clone()
    born.train()(batch)
    assert not torch.equal(born.quantizer.codebook, began_as)
    assert torch.equal(born.clusters, began_as), "from then on a parameter departs from them"


def test_the_expectation_alone_is_the_normal_distribution_s(born, batch):
    loss, _ = born.train()(batch)
    mean_Md, log_deviation_Md = born.expectation(born._past(batch)).chunk(2, dim=-1)
    normal = torch.distributions.Normal(mean_Md * 8, log_deviation_Md.exp().clamp(0.1, 50))
    torch.testing.assert_close(loss, -normal.log_prob(batch["next_Md"]).sum(-1).mean())


def test_eval_mode_changes_nothing(lam, batch):
    before = copy.deepcopy(lam.state_dict())
    lam(batch)
    assert all(torch.equal(before[name], value) for name, value in lam.state_dict().items())


def test_codes_of_a_refined_model_are_those_inferred(lam, frames_BTHWC, batch):
    lam.steps_trained.fill_(EXPECTATION_STEPS + 1)
    actions_BS, likelihood_BSA = lam.judge(frames_BTHWC)
    _, metrics = lam(batch)
    assert metrics["information"] == information(likelihood_BSA.flatten(0, 1), actions_BS.flatten())


def test_frames_of_another_size_are_one_line(lam):
    with pytest.raises(FrameSizeError, match=r"frames of 32x64 pixels; they must be squares of 64, 96, 128") as fault:
        lam.infer_actions(torch.zeros(1, 2, 32, 64, 3, dtype=torch.uint8))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("size", LARGER_SIZES)
def test_larger_frames_are_judged_at_the_measured_size(lam, frames_BTHWC, size):
    large_BTHWC = torch.from_numpy(enlarged(frames_BTHWC.numpy(), size))
    small_BTHWC = at_measured_size(large_BTHWC)
    for large, small in zip(lam.judge(large_BTHWC), lam.judge(small_BTHWC), strict=True):
        assert torch.equal(large, small)
    assert lam.sprites(large_BTHWC[0]) == lam.sprites(small_BTHWC[0])


def test_a_checkpoint_infers_the_same_codes(lam, frames_BTHWC, tmp_path):
    save_model(tmp_path / "lam", lam)
    rebuilt = load_model(tmp_path / "lam", LatentActionModel)
    assert type(rebuilt) is type(lam)
    for ours, theirs in zip(lam.judge(frames_BTHWC), rebuilt.judge(frames_BTHWC), strict=True):
        assert torch.equal(ours, theirs)


def test_information_is_what_an_action_says_beyond_the_others():
    codes_M = torch.arange(8) % 4
    same_MA = torch.randn(8, 1, generator=torch.Generator().manual_seed(0)).expand(8, 4)
    assert information(same_MA, codes_M) == pytest.approx(0, abs=1e-6)
    exclusive_MA = torch.where(torch.eye(4, dtype=torch.bool)[codes_M], 0.0, -math.inf)
    assert information(exclusive_MA, codes_M) == pytest.approx(2)
    assert information(exclusive_MA.clamp_min(-50), (codes_M + 1) % 4) < -10


def test_what_registration_missed_costs_no_action_much(lam, batch):
    """Every displacement has some density, so that one far off is no evidence for any action."""
    far = batch | {"next_Md": torch.full_like(batch["next_Md"], 1e4)}
    past_MD = lam._past(far)
    likelihood_MA = lam._likelihood(past_MD, *lam._surprise(far, past_MD))
    assert (likelihood_MA.amax(-1) - likelihood_MA.amin(-1)).max() < 0.1
    assert likelihood_MA.min() > -15
