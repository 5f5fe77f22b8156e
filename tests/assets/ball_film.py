"""Writes the film of a ball that obeys keys, as a hand-held camera would see it, and its sidecar: assets/films/ball.*.

    python -m tests.assets.ball_film

The ball rolls over a textured floor, 3 pixels a frame while a key is held. Keys are random, each held for a while. The
camera shakes by up to 2 pixels, and its sensor is noisy.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from tools.films import SIDECAR, write_film, write_sidecar

FILM = Path(__file__).parent / "films/ball.mp4"
SIZE, MARGIN = 96, 2  # pixels: side of a frame; of floor around it that shakes into view
NUM_FRAMES, FRAMES_PER_SECOND, CRF = 450, 15, 26
RADIUS, SPEED = 8, 3  # pixels, and pixels a frame
KEYS = {"stay": (0, 0), "left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
HOLD = 0.75  # probability of holding a key for another frame
NOISE = 2.0  # standard deviation, in grey levels
BALL = np.array([230.0, 60.0, 40.0])
TINT = np.array([0.85, 1.0, 0.8])  # of the floor


def film() -> tuple[np.ndarray, list[str]]:
    """Renders the film: frames `(NUM_FRAMES, SIZE, SIZE, 3)` uint8, and the key that leads from each to the next."""
    rng = np.random.default_rng(0)
    floor_HWC = _floor(rng)
    rows, columns = np.mgrid[: len(floor_HWC), : len(floor_HWC)]
    place, shake, key = np.full(2, SIZE // 2), np.zeros(2, int), "stay"
    frames, keys = [], []
    for _ in range(NUM_FRAMES):
        if rng.random() >= HOLD:
            key = str(rng.choice(list(KEYS)))
        row, column = place + MARGIN
        away = np.hypot(rows - row, columns - column)
        light = 1 - 0.5 * np.hypot(rows - row + 3, columns - column + 3) / RADIUS  # from the upper left
        cover = np.clip(RADIUS + 0.5 - away, 0, 1)[..., None]
        scene_HWC = cover * BALL * light.clip(0.3, 1)[..., None] + (1 - cover) * floor_HWC
        shake = (shake + rng.integers(-1, 2, size=2)).clip(-MARGIN, MARGIN)
        top, left = shake + MARGIN
        seen_HWC = scene_HWC[top : top + SIZE, left : left + SIZE]
        frames.append((seen_HWC + rng.normal(0, NOISE, seen_HWC.shape)).round().clip(0, 255).astype(np.uint8))
        keys.append(key)
        place = (place + SPEED * np.array(KEYS[key])).clip(RADIUS, SIZE - RADIUS)
    return np.stack(frames), keys


def _floor(rng: np.random.Generator) -> np.ndarray:
    """A smooth random texture, `(SIZE + 2 MARGIN, SIZE + 2 MARGIN, 3)` float."""
    side = SIZE + 2 * MARGIN
    coarse = Image.fromarray(rng.integers(80, 176, size=(13, 13), dtype=np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), float)[..., None] * TINT


def main() -> None:
    frames, keys = film()
    FILM.parent.mkdir(exist_ok=True)
    write_film(FILM, frames, FRAMES_PER_SECOND, CRF)
    write_sidecar(FILM.with_suffix(SIDECAR), keys)


if __name__ == "__main__":
    main()
