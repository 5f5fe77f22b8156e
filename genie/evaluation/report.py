"""What `evaluate` draws and tabulates: pictures of pixels by Pillow, plots by matplotlib, tables as CSV.

Legend: `R C` rows and columns of panels, `H W 3` pixels, `S` shown frames, `K` codes, `A` latent actions.
Everything shown is uint8 RGB on the CPU. The same input gives the same bytes: DVC compares them.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from genie.data.episodes import EpisodeStore
from genie.data.simulator import EFFECTIVE_ACTIONS
from genie.data.windows import read_windows, spread_starts
from genie.evaluation.controllability import action_table
from genie.evaluation.metrics import count_codes
from genie.evaluation.rollouts import Rollouts, dream, dream_held, horizon_table, liveliest, read_clips
from genie.world import WorldModel

NUM_RECONSTRUCTIONS = 10
SCALE = 3  # screen pixels a pixel
CAPTION_HEIGHT, GAP = 18, 4  # screen pixels
BACKGROUND, INK = (17, 17, 17), (238, 238, 238)
FRAME_MS, LAST_FRAME_MS = 160, 1000  # a GIF rests on its last frame
SERIES_STYLE = {
    "tokenizer": {"color": "0.6", "linestyle": "--"},
    "imagined": {"color": "tab:blue", "marker": "o"},
    "random_action": {"color": "tab:orange", "marker": "s"},
    "copy_last": {"color": "tab:green", "marker": "^"},
}


def write_report(
    folder: Path,
    world: WorldModel,
    store: EpisodeStore,
    tokens: np.ndarray,
    latent_actions: np.ndarray,
    rollouts: Rollouts,
    *,
    num_gifs: int,
    seed: int,
) -> None:
    """Fills `folder`: tables and plots of a split, and dreams from the `num_gifs` clips in which most moves.

    `reconstructions.png`, `codebook_histogram.{csv,png}`, `action_table.{csv,png}`, `psnr_horizon.png`,
    `psnr_horizon_{all,moving}.csv`; for each prompt i `dream_<i>.gif`, `actions_<i>.gif`, `actions_<i>.png`.

    Args:
        tokens: `(N, ...)` and latent_actions: `(N,)`, those of the whole split.
        rollouts: what was measured on the split.
        seed: of sampling.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moving = {"all": False, "moving": True}
    write_horizon(folder, {name: horizon_table(rollouts, moving=only) for name, only in moving.items()})
    write_codebook(folder, count_codes(tokens, world.tokenizer.num_codes))
    write_action_table(folder, action_table(latent_actions, store.actions(), world.num_actions))
    shown = spread_starts(rollouts.starts, NUM_RECONSTRUCTIONS)
    frames_BHWC = torch.from_numpy(read_windows(store, shown, 1)[:, 0]).to(world.device)
    decoded_BHWC = world.tokenizer.decode(world.tokenizer.encode(frames_BHWC))
    save_png(
        folder / "reconstructions.png", reconstruction_sheet(_pixels(frames_BHWC), _pixels(decoded_BHWC))
    )

    context, horizon = world.context_frames, rollouts.moving_MS.shape[1]
    clips = read_clips(store, latent_actions, liveliest(rollouts, num_gifs), context + horizon)
    for index, (frames_THWC, actions) in enumerate(
        zip(*(part.to(world.device) for part in clips), strict=True)
    ):
        dreamed_SHWC = _pixels(dream(world, frames_THWC[None], actions[None], seed)[0])
        held_ASHWC = _pixels(dream_held(world, frames_THWC, actions, seed))
        context_SHWC, true_SHWC = np.split(_pixels(frames_THWC), [context])
        save_gif(folder / f"dream_{index}.gif", dream_sheets(context_SHWC, true_SHWC, dreamed_SHWC))
        save_gif(folder / f"actions_{index}.gif", action_sheets(context_SHWC[-1], held_ASHWC))
        save_png(folder / f"actions_{index}.png", action_strip(held_ASHWC))


def contact_sheet(panels_RCHW3: np.ndarray, captions: Sequence[Sequence[str]]) -> np.ndarray:
    """A grid of enlarged panels `(R, C, H, W, 3)`, each under its caption, as `(height, width, 3)`."""
    rows, columns, height, width, _ = panels_RCHW3.shape
    step_x, step_y = width * SCALE + GAP, height * SCALE + CAPTION_HEIGHT + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for row, column in np.ndindex(rows, columns):
        x, y = GAP + column * step_x, GAP + row * step_y
        draw.text((x + 1, y), captions[row][column], fill=INK, font=font)
        panel = Image.fromarray(panels_RCHW3[row, column])
        panel = panel.resize((width * SCALE, height * SCALE), Image.Resampling.NEAREST)
        sheet.paste(panel, (x, y + CAPTION_HEIGHT))
    return np.asarray(sheet)


def save_png(path: Path, picture_HW3: np.ndarray) -> None:
    """Writes one picture."""
    Image.fromarray(picture_HW3).save(path, optimize=True)


def save_gif(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Writes pictures `(height, width, 3)` as an endless GIF, in one palette so that nothing flickers."""
    sample = np.concatenate([picture[::SCALE, ::SCALE] for picture in pictures])
    palette = Image.fromarray(sample).quantize(256)
    frames = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    ]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)


def reconstruction_sheet(frames_CHW3: np.ndarray, decoded_CHW3: np.ndarray) -> np.ndarray:
    """True frames above what the tokenizer makes of them."""
    blanks = [""] * (len(frames_CHW3) - 1)
    return contact_sheet(
        np.stack([frames_CHW3, decoded_CHW3]), [["true", *blanks], ["through tokens", *blanks]]
    )


def action_sheets(prompt_HW3: np.ndarray, dreams_ASHW3: np.ndarray) -> list[np.ndarray]:
    """The pictures of a GIF: the prompt's last frame, then the worlds in which each latent action is held."""
    num_actions = len(dreams_ASHW3)
    columns = min(4, num_actions)
    rows = -(-num_actions // columns)
    steps = np.concatenate([np.broadcast_to(prompt_HW3, dreams_ASHW3[:, :1].shape), dreams_ASHW3], axis=1)
    empty = np.full((rows * columns - num_actions, *steps.shape[1:]), BACKGROUND, np.uint8)
    panels = np.concatenate([steps, empty]).reshape(rows, columns, *steps.shape[1:])
    names = [f"action {a}" for a in range(num_actions)] + [""] * len(empty)
    captions = [names[row * columns : (row + 1) * columns] for row in range(rows)]
    return [contact_sheet(panels[:, :, step], captions) for step in range(panels.shape[2])]


def action_strip(dreams_ASHW3: np.ndarray, num_columns: int = 6) -> np.ndarray:
    """One row a latent action, held for as many frames as its columns say (at most `num_columns` of them)."""
    num_actions, horizon = dreams_ASHW3.shape[:2]
    steps = np.unique(np.linspace(0, horizon - 1, num_columns).round().astype(int))
    captions = [[f"action {a}, frame {step + 1}" for step in steps] for a in range(num_actions)]
    return contact_sheet(dreams_ASHW3[:, steps], captions)


def dream_sheets(
    context_SHW3: np.ndarray, truth_SHW3: np.ndarray, dream_SHW3: np.ndarray
) -> list[np.ndarray]:
    """The pictures of a GIF: the prompt on both sides, then the truth beside the dream."""
    pairs = [(frame, frame, "prompt", "prompt") for frame in context_SHW3]
    pairs += [
        (true, dreamed, "true", f"dreamed, frame {t}")
        for t, (true, dreamed) in enumerate(zip(truth_SHW3, dream_SHW3, strict=True), start=1)
    ]
    return [contact_sheet(np.stack([left, right])[None], [captions]) for left, right, *captions in pairs]


def write_codebook(folder: Path, counts: np.ndarray) -> None:
    """`codebook_histogram.csv` (code, count) and `.png` (most frequent first) of counts `(K,)`."""
    _write_csv(
        folder / "codebook_histogram.csv", [{"code": k, "count": int(n)} for k, n in enumerate(counts)]
    )
    shares = np.sort(counts)[::-1] / counts.sum()
    figure, axes = _figure(6, 3.2)
    axes.fill_between(np.arange(len(shares)), shares, step="mid", color="tab:blue")
    axes.axhline(1 / len(shares), color="0.4", linestyle="--", linewidth=1, label="uniform")
    axes.set(xlabel="code, by frequency", ylabel="share of tokens", xlim=(0, len(shares)), ylim=(0, None))
    axes.set_title(f"{np.mean(counts > 0):.1%} of {len(counts)} codes used")
    axes.legend(frameon=False)
    _save(figure, folder / "codebook_histogram.png")


def write_action_table(folder: Path, counts: np.ndarray) -> None:
    """`action_table.csv` (latent_action, action, count, share of the row) and `.png`, of counts `(A, 6)`."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _write_csv(
        folder / "action_table.csv",
        [
            {
                "latent_action": latent,
                "action": action,
                "count": int(counts[latent, index]),
                "share": f"{shares[latent, index]:.4f}",
            }
            for latent in range(len(counts))
            for index, action in enumerate(EFFECTIVE_ACTIONS)
        ],
    )
    figure, axes = _figure(5.5, 1.2 + 0.35 * len(counts))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (latent, index), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        axes.text(index, latent, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)
    names = [action.replace("_", " ") for action in EFFECTIVE_ACTIONS]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    rows = zip(counts.sum(axis=1) / counts.sum(), range(len(counts)), strict=True)
    axes.set_yticks(range(len(counts)), [f"{latent} ({share:.0%})" for share, latent in rows], fontsize=8)
    axes.set(ylabel="latent action (share of all)", title="effective true action, given the latent one")
    _save(figure, folder / "action_table.png")


def write_horizon(folder: Path, tables: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """`psnr_horizon_<frames>.csv` (horizon, then dB a series) of each table, and `psnr_horizon.png`."""
    figure = Figure(figsize=(4 * len(tables), 3.2), layout="constrained")
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (frames, table) in zip(panels, tables.items(), strict=True):
        rows = [
            {name: value if name == "horizon" else f"{value:.3f}" for name, value in row.items()}
            for row in table
        ]
        _write_csv(folder / f"psnr_horizon_{frames}.csv", rows)
        for series, style in SERIES_STYLE.items():
            horizons, psnrs = zip(*((row["horizon"], row[series]) for row in table), strict=True)
            axes.plot(horizons, psnrs, label=series.replace("_", " "), markersize=3.5, **style)
        axes.set(xlabel="frames dreamed", title=f"{frames} frames")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("PSNR (dB)")
    panels[-1].legend(frameon=False, fontsize=8)
    _save(figure, folder / "psnr_horizon.png")


def _pixels(frames: torch.Tensor) -> np.ndarray:
    return frames.cpu().numpy()


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(
        path, dpi=130, metadata={"Software": None}
    )  # the version of matplotlib is not ours to compare


def _write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
