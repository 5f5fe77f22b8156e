import numpy as np
import pytest
import torch

from genie.models.registration import Box
from genie.training.sprite import MARGIN, SpriteError, find_sprite, measure_staying

SPRITE = Box(20, 36, 9, 7)
COMPASS = Box(0, 50, 12, 14)  # drawn over the picture, as in Jumper
NUM_FRAMES = 64


class Scene:
    """Stand-in for a store, with what `measure_staying` reads: a scrolling texture and boxes that stay in place. With
    `objects`, the texture is static and parts of it move in front of it."""

    def __init__(self, *, speed: int, staying: tuple[Box, ...], objects: bool = False, scale: int = 1):
        rng = np.random.default_rng(0)
        coarse = rng.integers(256, size=(24, 24, 3))
        texture = torch.from_numpy(coarse).float().movedim(-1, 0)[None]
        texture = torch.nn.functional.interpolate(texture, size=(160, 160), mode="bicubic")[0].movedim(0, -1)
        texture = texture.clamp(0, 255).to(torch.uint8).numpy()
        self.num_frames, self.episode_starts = NUM_FRAMES, np.array([0])
        self.frame_shape = (64 * scale, 64 * scale, 3)
        self._scale = scale
        places = 48 + np.clip(np.cumsum(rng.integers(-speed, speed + 1, size=(NUM_FRAMES, 2)), 0), -48, 48)
        scrolled = np.stack([texture[y : y + 64, x : x + 64] for y, x in places])
        self._frames = scrolled
        if objects:
            self._frames = np.repeat(texture[None, 48:112, 48:112], NUM_FRAMES, 0)
            self._frames[:, 14:52, 8:56] = scrolled[:, 14:52, 8:56]
        for top, left, height, width in staying:
            self._frames[:, top : top + height, left : left + width] = rng.integers(256, size=(height, width, 3))

    def read(self, start, stop):
        return self._frames[start:stop].repeat(self._scale, axis=1).repeat(self._scale, axis=2)


@pytest.mark.parametrize("staying", [(SPRITE,), (SPRITE, COMPASS)], ids=["alone", "compass"])
def test_a_sprite_that_stays_is_found_within_the_margin(staying):
    found = find_sprite(measure_staying(Scene(speed=6, staying=staying)))
    for (first, size), (found_first, found_size) in zip(
        ((SPRITE.top, SPRITE.height), (SPRITE.left, SPRITE.width)),
        ((found.top, found.height), (found.left, found.width)),
        strict=True,
    ):
        assert first - MARGIN - 1 <= found_first <= first
        assert first + size <= found_first + found_size <= first + size + MARGIN + 1


def test_a_sprite_of_larger_frames_is_found_at_the_measured_size():
    small, large = (find_sprite(measure_staying(Scene(speed=6, staying=(SPRITE,), scale=scale))) for scale in (1, 2))
    assert large == small


def test_coinrun_s_sprite_is_found(coinrun):
    found = find_sprite(measure_staying(coinrun["train"]))
    assert found.top >= 24
    assert found.top + found.height <= 41
    assert found.left >= 26
    assert found.left + found.width <= 39
    assert found.height >= 8
    assert found.width >= 6


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (Scene(speed=0, staying=(SPRITE,)), r"the camera stands still: .* 0\.0% of the transitions"),
        (Scene(speed=6, staying=(), objects=True), "the camera stands still: things move, .*"),
        (Scene(speed=6, staying=()), "nothing stays where it is while the camera moves"),
        (Scene(speed=6, staying=(COMPASS,)), "nothing stays where it is while the camera moves"),
    ],
    ids=["still", "objects", "no_sprite", "compass"],
)
def test_where_no_camera_follows_a_sprite_the_cause_is_named(scene, message):
    with pytest.raises(SpriteError, match=rf"{message}$") as fault:
        find_sprite(measure_staying(scene))
    assert "\n" not in str(fault.value)
