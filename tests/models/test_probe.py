import pytest
import torch
import torch.nn.functional as F

import genie.models.probe
from genie.models.measured_size import at_measured_size
from genie.models.probe import CELLS, NO_LABEL, ActionProbe, ProbeConfig
from tests.frames import LARGER_SIZES, enlarged

CLIPS, FRAMES, HISTORY, CLASSES = 3, 7, 3, 6
STEPS, WHOLE = FRAMES - 1, FRAMES - HISTORY  # transitions, and those with a whole history
ROLLS = torch.tensor([0, -4, 4])  # pixels by which each action rolls a picture


@pytest.fixture
def frames_BTHWC(coinrun):
    starts = coinrun["val"].episode_starts[:CLIPS]
    return torch.stack([torch.from_numpy(coinrun["val"].read(s, s + FRAMES)) for s in starts])


@pytest.fixture
def probe(scrambled, frames_BTHWC):
    torch.manual_seed(0)
    probe = scrambled(ActionProbe(ProbeConfig(num_classes=CLASSES, history=HISTORY, width=8, num_blocks=2)))
    with torch.no_grad():  # otherwise one action would be the likeliest for every transition
        probe.head.bias -= probe.head(probe._encode(frames_BTHWC, 0)).mean((0, 1))
    return probe


@pytest.fixture
def batch(frames_BTHWC):
    return {"frames_BTHWC": frames_BTHWC, "actions_BS": torch.arange(CLIPS * STEPS).view(CLIPS, STEPS) % CLASSES}


def rolling_clips(count, generator):
    """Returns a batch of stripes of random colours that roll as their actions say."""
    actions_BS = torch.randint(len(ROLLS), (count, STEPS), generator=generator)
    colours = torch.randint(256, (count, 1, 8, 3), generator=generator)
    stripes_BHWC = colours.repeat_interleave(8, dim=2).expand(-1, 64, -1, -1)
    rolls_BT = F.pad(ROLLS[actions_BS].cumsum(1), (1, 0))
    clips = [
        torch.stack([frame.roll(int(roll), 1) for roll in rolls])
        for frame, rolls in zip(stripes_BHWC, rolls_BT, strict=True)
    ]
    return {"frames_BTHWC": torch.stack(clips).to(torch.uint8), "actions_BS": actions_BS}


@pytest.mark.parametrize("i", range(WHOLE))
def test_features_tell_of_a_history_and_the_next_frame(i, probe, frames_BTHWC, monkeypatch):
    patches_BTPhw = genie.models.probe.to_patches(frames_BTHWC).requires_grad_()
    monkeypatch.setattr(genie.models.probe, "to_patches", lambda frames: patches_BTPhw)
    features_BSD = probe._encode(frames_BTHWC, HISTORY - 1)
    (gradient,) = torch.autograd.grad(features_BSD[:, i].sum(), patches_BTPhw)
    felt = gradient.abs().amax((0, 2, 3, 4)).nonzero().flatten().tolist()
    assert felt == list(range(i, i + HISTORY + 1))


def test_features_are_what_the_classifier_reads(probe, frames_BTHWC):
    features_BSD = probe.features(frames_BTHWC)
    assert features_BSD.shape == (CLIPS, WHOLE, probe.encoder.dim * CELLS**2)
    assert features_BSD.dtype == torch.float32
    told_BS = probe.infer_actions(frames_BTHWC)
    assert torch.equal(probe.head(features_BSD).argmax(-1), told_BS[:, HISTORY - 1 :])


def test_a_change_in_one_part_of_the_picture_is_seen_there(probe, frames_BTHWC):
    """The encoder's receptive field is far smaller than the distance between opposite corners."""
    changed_BTHWC = frames_BTHWC.clone()
    changed_BTHWC[:, -1, :8, :8] = 255 - changed_BTHWC[:, -1, :8, :8]
    before, after = (probe._encode(frames, HISTORY - 1) for frames in (frames_BTHWC, changed_BTHWC))
    differs = (before != after).unflatten(-1, (-1, CELLS, CELLS)).flatten(0, 2).any(0)
    assert differs[0, 0]
    assert not differs[-1, -1]


def test_of_equally_frequent_actions_no_habit_is_left(probe, batch):
    frames_BTHWC = batch["frames_BTHWC"]
    assert torch.equal(probe.infer_actions(frames_BTHWC, equally_frequent=True), probe.infer_actions(frames_BTHWC))
    habit = torch.tensor([1 - 5e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4])
    logits_BSK = probe.head(probe._encode(frames_BTHWC, 0))
    with torch.no_grad():
        probe.prior.copy_(habit)
        probe.head.bias += habit.log()
    told_BS = probe.infer_actions(frames_BTHWC, equally_frequent=True)
    assert torch.equal(told_BS, logits_BSK.argmax(-1))
    assert not torch.equal(told_BS, probe.infer_actions(frames_BTHWC))


def test_training_follows_how_frequent_each_action_is(probe, batch, monkeypatch):
    monkeypatch.setattr(genie.models.probe, "PRIOR_DECAY", 0.0)
    labels_BS = torch.full((CLIPS, STEPS), 2)
    labels_BS[:, -1], labels_BS[0, -2] = 5, NO_LABEL
    labels_BS[:, : HISTORY - 1] = 0  # no whole history
    probe(batch | {"actions_BS": labels_BS})
    assert torch.equal(probe.prior, torch.full((CLASSES,), 1 / CLASSES)), "in eval mode it stays as it is"
    probe.train()(batch | {"actions_BS": labels_BS})
    counted = labels_BS[:, HISTORY - 1 :]
    shares = torch.bincount(counted[counted != NO_LABEL], minlength=CLASSES) / (CLIPS * WHOLE - 1)
    torch.testing.assert_close(probe.prior, shares)


def test_inferred_actions_equal_those_of_each_transition_alone(probe, frames_BTHWC):
    actions_BS = probe.infer_actions(frames_BTHWC)
    assert actions_BS.shape == (CLIPS, STEPS)
    assert actions_BS.dtype == torch.int64
    for s in range(STEPS):
        alone = frames_BTHWC[:, max(0, s + 1 - HISTORY) : s + 2]
        assert torch.equal(probe.infer_actions(alone)[:, -1], actions_BS[:, s])
    assert len(actions_BS.unique()) > 1, "of constant actions this would tell nothing"


def test_the_loss_is_that_of_transitions_with_a_whole_history(probe, batch):
    loss, metrics = probe(batch)
    logits_MK = probe.head(probe._encode(batch["frames_BTHWC"], HISTORY - 1)).flatten(0, 1)
    targets_M = batch["actions_BS"][:, HISTORY - 1 :].flatten()
    torch.testing.assert_close(loss, F.cross_entropy(logits_MK, targets_M))
    assert metrics["cross_entropy"] == loss
    assert metrics["accuracy"] == (logits_MK.argmax(-1) == targets_M).float().mean()


def test_labels_that_are_ignored_do_not_matter(probe, batch):
    labels_BS = batch["actions_BS"].clone()
    labels_BS[:, : HISTORY - 1] = NO_LABEL  # no whole history
    loss, metrics = probe(batch)
    assert probe(batch | {"actions_BS": labels_BS})[0] == loss
    labels_BS[1:] = NO_LABEL
    first = {name: tensor[:1] for name, tensor in batch.items()}
    (loss, metrics), (alone, metrics_alone) = probe(batch | {"actions_BS": labels_BS}), probe(first)
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(metrics["accuracy"], metrics_alone["accuracy"])


def test_it_learns_known_physics():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    probe = ActionProbe(ProbeConfig(num_classes=len(ROLLS), history=HISTORY, width=16, num_blocks=2))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=5e-3)
    for _ in range(60):
        loss, _ = probe(rolling_clips(8, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, metrics = probe(rolling_clips(64, generator))
    assert metrics["accuracy"] > 0.95


@pytest.mark.parametrize("size", LARGER_SIZES)
def test_larger_frames_are_seen_at_the_measured_size(probe, batch, size):
    large_BTHWC = torch.from_numpy(enlarged(batch["frames_BTHWC"].numpy(), size))
    small_BTHWC = at_measured_size(large_BTHWC)
    assert torch.equal(probe.infer_actions(large_BTHWC), probe.infer_actions(small_BTHWC))
    assert probe(batch | {"frames_BTHWC": large_BTHWC})[0] == probe(batch | {"frames_BTHWC": small_BTHWC})[0]
