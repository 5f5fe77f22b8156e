"""Pictures of true and dreamed frames: labelled grids of enlarged pixels, as PNGs or GIFs.

Legend: `R C` rows and columns of panels, `H W 3` pixels, `S` shown frames, `A` latent actions; uint8 RGB.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 192  # screen pixels of a panel, at least
SAMPLED = 3  # a GIF's palette is chosen from every third pixel of every third row
CAPTION_HEIGHT, GAP = 18, 4  # screen pixels
BACKGROUND, INK, OUTLINE, ARROW = (17, 17, 17), (238, 238, 238), (255, 0, 170), (244, 185, 66)
ARROW_WIDTH, ARROW_HEAD, DOT = 6, 20, 6  # screen pixels
FRAME_MS, LAST_FRAME_MS = 160, 1000  # milliseconds; a GIF pauses on its last frame


def contact_sheet(panels_RCHW3: np.ndarray, captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Draws a grid of enlarged panels `(R, C, H, W, 3)`, each under its caption: `(height, width, 3)`."""
    rows, columns, height, width, _ = panels_RCHW3.shape
    scale = _scale(height)
    step_x, step_y = width * scale + GAP, height * scale + CAPTION_HEIGHT + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for row, column in np.ndindex(rows, columns):
        x, y = GAP + column * step_x, GAP + row * step_y
        draw.text((x + 1, y), captions[row][column], fill=INK, font=font)  # pyright: ignore[reportArgumentType]
        panel = Image.fromarray(panels_RCHW3[row, column])
        panel = panel.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(panel, (x, y + CAPTION_HEIGHT))
    return np.asarray(sheet)


def save_png(path: Path, picture_HW3: np.ndarray) -> None:
    """Writes a picture as PNG."""
    Image.fromarray(picture_HW3).save(path)


def save_gif(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Writes pictures `(height, width, 3)` as a looping GIF, with one palette so that nothing flickers."""
    sample = np.concatenate([picture[::SAMPLED, ::SAMPLED] for picture in pictures])
    palette = Image.fromarray(sample).quantize(256)
    frames = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)


def reconstruction_sheet(frames_CHW3: np.ndarray, decoded_CHW3: np.ndarray) -> np.ndarray:
    """Draws true frames above their reconstructions by the tokenizer."""
    blanks = [""] * (len(frames_CHW3) - 1)
    return contact_sheet(np.stack([frames_CHW3, decoded_CHW3]), [["true", *blanks], ["through tokens", *blanks]])


def outlined(frames_CHW3: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Draws the outline of a box (top, left, height, width) on frames, clipped to the picture."""
    frames_CHW3 = frames_CHW3.copy()
    rows, columns = (
        slice(max(0, first - 1), min(first + size + 1, most))
        for first, size, most in zip(box[:2], box[2:], frames_CHW3.shape[1:3], strict=True)
    )
    for side in ((rows.start, columns), (rows.stop - 1, columns), (rows, columns.start), (rows, columns.stop - 1)):
        frames_CHW3[(slice(None), *side)] = OUTLINE
    return frames_CHW3


def action_sheets(prompt_HW3: np.ndarray, dreams_ASHW3: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
    """Draws the pictures of a GIF: the prompt's last frame, then the dreams in which each latent action is held.

    Args:
        prompt_HW3: the prompt's last frame.
        dreams_ASHW3: the dreams, one per latent action.
        names: captions of the latent actions.
    """
    num_actions = len(dreams_ASHW3)
    columns = min(4, num_actions)
    rows = -(-num_actions // columns)
    steps = np.concatenate([np.broadcast_to(prompt_HW3, dreams_ASHW3[:, :1].shape), dreams_ASHW3], axis=1)
    empty = np.full((rows * columns - num_actions, *steps.shape[1:]), BACKGROUND, np.uint8)
    panels = np.concatenate([steps, empty]).reshape(rows, columns, *steps.shape[1:])
    names = [*names, *[""] * len(empty)]
    captions = [names[row * columns : (row + 1) * columns] for row in range(rows)]
    return [contact_sheet(panels[:, :, step], captions) for step in range(panels.shape[2])]


def action_strip(dreams_ASHW3: np.ndarray, names: Sequence[str], num_columns: int = 6) -> np.ndarray:
    """Draws one row per held latent action, with at most `num_columns` frames captioned by their number."""
    steps = np.unique(np.linspace(0, dreams_ASHW3.shape[1] - 1, num_columns).round().astype(int))
    captions = [[f"{name}, frame {step + 1}" for step in steps] for name in names]
    return contact_sheet(dreams_ASHW3[:, steps], captions)


def button_sheet(
    examples_A2HW3: np.ndarray, motions: Sequence[tuple[float, float] | None], still: float, names: Sequence[str]
) -> np.ndarray:
    """Draws one row per latent action: an arrow of its mean motion, if any is known, and the frames of an example.

    Args:
        examples_A2HW3: frames before and after one transition of each latent action.
        motions: mean motion of each in pixels to the right and downwards, or None if it is unknown. The longest arrow
            fills its panel.
        still: length of a motion below which it is drawn as a dot.
        names: captions of the latent actions.
    """
    longest = max((math.hypot(*motion) for motion in motions if motion is not None), default=0)
    panels, captions = examples_A2HW3, [[f"{name}, before", "after"] for name in names]
    if longest:
        blank = np.full_like(examples_A2HW3[:, :1], BACKGROUND)
        panels = np.concatenate([blank, examples_A2HW3], axis=1)
        captions = [[name, "before", "after"] for name in names]
    sheet = Image.fromarray(contact_sheet(panels, captions))
    draw, height, width = ImageDraw.Draw(sheet), *(side * _scale(panels.shape[2]) for side in panels.shape[2:4])
    for row, motion in enumerate(motions):
        x, y = GAP + width / 2, GAP + CAPTION_HEIGHT + row * (height + CAPTION_HEIGHT + GAP) + height / 2
        if motion is not None and longest:
            scale = 0.4 * min(height, width) / longest
            dx, dy = (0, 0) if math.hypot(*motion) < still else (motion[0] * scale, motion[1] * scale)
            _draw_arrow(draw, (x - dx, y - dy), (x + dx, y + dy))
    return np.asarray(sheet)


def _scale(height: int) -> int:
    """Screen pixels per pixel of a frame."""
    return -(-SIDE // height)


def _draw_arrow(draw: ImageDraw.ImageDraw, tail: tuple[float, float], tip: tuple[float, float]) -> None:
    """Draws an arrow, or a dot if it has no length."""
    (x, y), length = tip, math.dist(tail, tip)
    if length == 0:
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=ARROW)
        return
    along_x, along_y = (x - tail[0]) / length, (y - tail[1]) / length
    head = min(ARROW_HEAD, length)
    base_x, base_y = x - along_x * head, y - along_y * head
    draw.line((*tail, base_x, base_y), fill=ARROW, width=ARROW_WIDTH)
    sides = [(base_x - side * along_y * head / 2, base_y + side * along_x * head / 2) for side in (-1, 1)]
    draw.polygon([tip, *sides], fill=ARROW)


def dream_sheets(context_SHW3: np.ndarray, truth_SHW3: np.ndarray, dream_SHW3: np.ndarray) -> list[np.ndarray]:
    """Draws the pictures of a GIF: the prompt on both sides, then the true frames beside the dream."""
    pairs = [(frame, frame, "prompt", "prompt") for frame in context_SHW3]
    pairs += [
        (true, dreamed, "true", f"dreamed, frame {t}")
        for t, (true, dreamed) in enumerate(zip(truth_SHW3, dream_SHW3, strict=True), start=1)
    ]
    return [contact_sheet(np.stack([left, right])[None], [captions]) for left, right, *captions in pairs]


def branch_sheet(
    now_MHW3: np.ndarray,
    next_MEHW3: np.ndarray,
    imagined_MAHW3: np.ndarray,
    actions: Sequence[str],
    names: Sequence[str],
) -> np.ndarray:
    """Draws two rows per state: the state and its real branches, and below them the imagined branches."""
    columns = 1 + max(len(actions), len(names))
    blank = np.full_like(now_MHW3[0], BACKGROUND)
    panels, captions = [], []
    for now, real, imagined in zip(now_MHW3, next_MEHW3, imagined_MAHW3, strict=True):
        for first, frames, labels in ((now, real, ["now", *actions]), (blank, imagined, ["imagined:", *names])):
            row = [first, *frames]
            panels.append(row + [blank] * (columns - len(row)))
            captions.append(labels + [""] * (columns - len(labels)))
    return contact_sheet(np.array(panels), captions)
