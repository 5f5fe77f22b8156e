import pytest
import torch

from genie.models import registration
from genie.models.registration import MAX_SHIFT, SHIFT_PENALTY, Box, displacements, warp

CLIPS, FRAMES = 3, 7
SPRITE = Box(27, 28, 10, 8)
SHIFTS = [(0.0, 0.0), (3.0, 0.0), (-7.0, 5.0), (20.0, -14.0), (0.5, -0.25), (-4.3, 6.7), (9.6, 0.4)]


@pytest.fixture
def frames_BTHWC(coinrun):
    starts = coinrun["val"].episode_starts[:CLIPS]
    return torch.stack([torch.from_numpy(coinrun["val"].read(s, s + FRAMES)) for s in starts])


@pytest.fixture
def texture_HWC():
    """Smooth noise, whose neighbouring pixels differ little: `warp` interpolates linearly between them."""
    noise = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, size=(64, 64), mode="bicubic")[0].movedim(0, -1).clamp(0, 1)


def moved_by(texture_HWC, shifts_Sd):
    """Returns clips of two uint8 frames: the texture, and the texture moved."""
    frames_SHWC = texture_HWC.expand(len(shifts_Sd), -1, -1, -1)
    pairs = torch.stack([frames_SHWC, warp(frames_SHWC, shifts_Sd)[0]], dim=1)
    return (pairs * 255).round().to(torch.uint8)


def slow_shift(before_HW, after_HW, counted_HW):
    """Slow reference: returns the best integer shift, by a loop over all of them."""
    height, width = before_HW.shape
    best = {}
    for y in range(-MAX_SHIFT, MAX_SHIFT + 1):
        for x in range(-MAX_SHIFT, MAX_SHIFT + 1):
            rows, columns = (slice(max(0, s), size + min(0, s)) for s, size in ((y, height), (x, width)))
            came = slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)
            both = counted_HW[rows, columns] * counted_HW[came]
            squared = ((after_HW[rows, columns] - before_HW[came]).square() * both).sum() / both.sum()
            best[x, y] = squared + SHIFT_PENALTY / MAX_SHIFT * (x * x + y * y) ** 0.5
    return min(best, key=best.get)


@pytest.mark.parametrize("ignored", [None, SPRITE])
def test_known_shifts_are_found(texture_HWC, ignored):
    shifts_Sd = torch.tensor(SHIFTS)
    pairs_STHWC = moved_by(texture_HWC, shifts_Sd)
    if ignored:  # its pixels do not count in either frame
        ignored.crop(pairs_STHWC).copy_(torch.tensor([255, 0, 255]))
    torch.testing.assert_close(displacements(pairs_STHWC, ignored)[:, 0], shifts_Sd, rtol=0, atol=0.1)


def test_pixels_that_are_ignored_do_not_matter(frames_BTHWC):
    changed_BTHWC = frames_BTHWC.clone()
    SPRITE.crop(changed_BTHWC).random_(generator=torch.Generator().manual_seed(0))
    assert torch.equal(displacements(frames_BTHWC, SPRITE), displacements(changed_BTHWC, SPRITE))
    assert not torch.equal(displacements(frames_BTHWC), displacements(changed_BTHWC))


@pytest.mark.parametrize("ignored", [None, SPRITE])
def test_it_agrees_with_a_slow_search(frames_BTHWC, ignored):
    counted_HW = torch.ones(64, 64)
    if ignored:
        ignored.crop(counted_HW.unsqueeze(-1)).zero_()
    frames_BTHWC = frames_BTHWC[:2, :3]
    gray_BTHW = frames_BTHWC.double().mean(-1) / 255
    found_BSd = displacements(frames_BTHWC, ignored)
    for b, s in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        slow = torch.tensor(slow_shift(gray_BTHW[b, s], gray_BTHW[b, s + 1], counted_HW), dtype=torch.float32)
        assert (found_BSd[b, s] - slow).abs().max() <= 0.5, "a parabola's vertex is nearest to its middle"
    assert found_BSd.abs().max() > 1, "of a standstill this would tell nothing"


def test_clips_at_once_are_as_each_alone(frames_BTHWC):
    found_BSd = displacements(frames_BTHWC)
    assert found_BSd.shape == (CLIPS, FRAMES - 1, 2)
    assert found_BSd.dtype == torch.float32
    for clip_THWC, found_Sd in zip(frames_BTHWC, found_BSd, strict=True):
        torch.testing.assert_close(displacements(clip_THWC[None])[0], found_Sd)


@pytest.mark.parametrize("chunk", [1, 4, FRAMES, CLIPS * FRAMES - 1])
def test_chunks_change_nothing(frames_BTHWC, chunk, monkeypatch):
    whole_BSd = displacements(frames_BTHWC, SPRITE)
    monkeypatch.setattr(registration, "CHUNK", chunk)
    torch.testing.assert_close(displacements(frames_BTHWC, SPRITE), whole_BSd)


def test_a_standstill_is_no_displacement(frames_BTHWC):
    still_BTHWC = frames_BTHWC[:, :1].expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(displacements(still_BTHWC), torch.zeros(CLIPS, 2, 2), rtol=0, atol=0.01)


def test_warp_moves_by_whole_pixels_exactly_and_tells_what_it_knows(texture_HWC):
    moved_MHWC, known_MHW = warp(texture_HWC[None], torch.tensor([[5.0, -3.0]]))
    torch.testing.assert_close(moved_MHWC[0, :-3, 5:], texture_HWC[3:, :-5])
    assert known_MHW[0, :-3, 5:].all()
    assert known_MHW.sum() == 61 * 59


@pytest.mark.parametrize(
    ("grown", "expected"),
    [((0, 0), (27, 28, 10, 8)), ((2, 3), (25, 25, 14, 14)), ((30, 40), (0, 0, 64, 64)), ((27, 0), (0, 28, 64, 8))],
)
def test_a_box_grows_as_far_as_the_frame(grown, expected):
    assert SPRITE.grown(*grown, (64, 64)) == expected


def test_a_box_crops_its_pixels(frames_BTHWC):
    assert torch.equal(SPRITE.crop(frames_BTHWC), frames_BTHWC[:, :, 27:37, 28:36])
