import pytest
import torch
import torch.nn.functional as F

from genie.models import st_transformer
from genie.models.st_transformer import (
    SpatialAttention,
    STTransformer,
    TemporalAttention,
    attend,
    causal_mask,
)

WIDTH, HEADS, PLACES, FRAMES = 16, 2, 4, 6
TIMES = torch.arange(FRAMES).unsqueeze(0)


@pytest.fixture
def x_BTND():
    return torch.randn(2, FRAMES, PLACES, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[False, True], ids=["plain", "conditioned"])
def conditioned(request):
    return request.param


@pytest.fixture
def condition_BTD(conditioned):
    return torch.randn(2, FRAMES, WIDTH, generator=torch.Generator().manual_seed(2)) if conditioned else None


def build(scrambled, num_layers, conditioned=False):
    torch.manual_seed(0)
    return scrambled(STTransformer(WIDTH, num_layers, HEADS, conditioned))


def with_frame_changed(x_BTND, t):
    changed = x_BTND.clone()
    changed[:, t] += 1
    return changed


def changed_frames(before_BTND, after_BTND):
    """Returns the frames that differ in any bit."""
    return {t for t in range(before_BTND.shape[1]) if not torch.equal(before_BTND[:, t], after_BTND[:, t])}


@pytest.mark.parametrize("masked", [False, True])
def test_attend_is_scaled_dot_product_attention(masked):
    q, k, v = torch.randn(3, 5, HEADS, FRAMES, 8, generator=torch.Generator().manual_seed(0))
    mask = causal_mask(FRAMES, 2) if masked else None
    torch.testing.assert_close(attend(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def test_causal_mask_by_hand():
    rows = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert torch.equal(causal_mask(4, max_past=1), torch.tensor(rows).bool())
    assert torch.equal(causal_mask(4), torch.ones(4, 4).tril().bool())


@pytest.mark.parametrize("t", range(FRAMES))
def test_the_future_never_reaches_the_past(t, scrambled, x_BTND, conditioned, condition_BTD):
    transformer = build(scrambled, num_layers=2, conditioned=conditioned)
    mask = causal_mask(FRAMES)
    before, _ = transformer(x_BTND, TIMES, mask, condition_BTD)
    after, _ = transformer(with_frame_changed(x_BTND, t), TIMES, mask, condition_BTD)
    assert changed_frames(before, after) == set(range(t, FRAMES))


@pytest.mark.parametrize("max_past", [0, 1, 2])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_layer_sees_max_past_frames_back(max_past, num_layers, scrambled, x_BTND):
    transformer = build(scrambled, num_layers)
    mask = causal_mask(FRAMES, max_past)
    before, _ = transformer(x_BTND, TIMES, mask)
    after, _ = transformer(with_frame_changed(x_BTND, 1), TIMES, mask)
    assert changed_frames(before, after) == set(range(1, min(FRAMES, 2 + num_layers * max_past)))


def test_spatial_attention_sees_its_whole_frame_and_no_other(scrambled, x_BTND):
    attention = scrambled(SpatialAttention(WIDTH, HEADS))
    changed = x_BTND.clone()
    changed[:, 2, 0] += 1
    before, after = attention(x_BTND), attention(changed)
    assert changed_frames(before, after) == {2}
    assert ((before - after)[:, 2].abs().amax((0, 2)) > 0).all()


def test_temporal_attention_sees_its_own_place_only(scrambled, x_BTND):
    attention = scrambled(TemporalAttention(WIDTH, HEADS))
    changed = x_BTND.clone()
    changed[:, :, 1] += 1
    before, after = (attention(x, TIMES, None, None)[0] for x in (x_BTND, changed))
    assert changed_frames(before.transpose(1, 2), after.transpose(1, 2)) == {1}


def test_only_differences_of_times_matter(scrambled, x_BTND):
    transformer = build(scrambled, num_layers=2)
    now, later, stretched = (
        transformer(x_BTND, times, causal_mask(FRAMES))[0] for times in (TIMES, TIMES + 500, TIMES * 3)
    )
    torch.testing.assert_close(now, later, atol=1e-3, rtol=1e-3)
    assert (now - stretched).abs().max() > 1e-2


def test_rows_of_a_batch_have_times_of_their_own(scrambled, x_BTND):
    transformer = build(scrambled, num_layers=2)
    times_BT = torch.cat([TIMES, TIMES * 3])
    together, seen = transformer(x_BTND, times_BT, causal_mask(FRAMES))
    for row in range(len(x_BTND)):
        alone, seen_alone = transformer(x_BTND[row : row + 1], times_BT[row : row + 1], causal_mask(FRAMES))
        torch.testing.assert_close(together[row], alone[0])
        torch.testing.assert_close(seen[1][0][row], seen_alone[1][0][0])


def test_one_frame_at_a_time_equals_all_at_once(scrambled, x_BTND, conditioned, condition_BTD):
    transformer = build(scrambled, num_layers=2, conditioned=conditioned)
    whole, _ = transformer(x_BTND, TIMES, causal_mask(FRAMES), condition_BTD)
    past = None
    for t in range(FRAMES):
        now = slice(t, t + 1)
        condition = None if condition_BTD is None else condition_BTD[:, now]
        step, past = transformer(x_BTND[:, now], TIMES[:, now], None, condition, past)
        torch.testing.assert_close(step[:, 0], whole[:, t])


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_fused_attention_in_parts_is_that_of_the_whole(rows, monkeypatch):
    """CUDA's kernels take batches of fewer than 65,536 rows, and temporal attention has worlds times places of them."""
    q, k, v = torch.randn(3, 7, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = st_transformer.causal_mask(5)
    sizes = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(st_transformer, "MAX_ROWS", rows)
    monkeypatch.setattr(
        st_transformer.F, "scaled_dot_product_attention", lambda *a, **b: sizes.append(len(a[0])) or fused(*a, **b)
    )
    torch.testing.assert_close(st_transformer.fused_attention(q, k, v, mask), st_transformer.attend(q, k, v, mask))
    assert max(sizes) <= rows
    assert sum(sizes) == 7
