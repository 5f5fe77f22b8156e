"""Report of the stage `evaluate`: matplotlib plots, CSV tables and pictures of dreams.

Legend: `H W C` pixels, `S` dreamed frames, `N` frames of a split, `K` codes, `A` latent actions, `R E F` rows of
panels, effective true actions, frames that each is held for. The same input gives the same bytes, since DVC compares
files.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from genie.core.protocols import Tracker
from genie.data.caches import Tokens
from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts
from genie.evaluation.controllability import action_table
from genie.evaluation.counterfactual import Counterfactuals, confusion, differing
from genie.evaluation.metrics import count_codes
from genie.evaluation.pictures import (
    action_sheets,
    action_strip,
    branch_sheet,
    button_sheet,
    contact_sheet,
    dream_sheets,
    outlined,
    reconstruction_sheet,
    save_gif,
    save_png,
)
from genie.evaluation.rollouts import (
    MEASURES,
    SERIES,
    Rollouts,
    dream,
    dream_held,
    horizon_table,
    liveliest,
    read_clips,
)
from genie.evaluation.typical_transitions import typical_transitions
from genie.models.lam import LatentActionModel, SurpriseLam
from genie.models.measured_size import MEASURED_SIZE
from genie.models.registration import Box
from genie.sources.branches import Branches
from genie.world.controls import STILL, Button
from genie.world.world_model import WorldModel

NUM_RECONSTRUCTIONS = 10
NUM_BRANCHED = 12  # states whose branches are shown
SERIES_STYLE = {
    "tokenizer": {"color": "0.6", "linestyle": "--"},
    "imagined": {"color": "tab:blue", "marker": "o"},
    "random_action": {"color": "tab:orange", "marker": "s"},
    "copy_last": {"color": "tab:green", "marker": "^"},
}


def log_report(tracker: Tracker, folder: Path) -> None:
    """Logs a report as an artifact of the stage's run, and its PNG pictures also as images."""
    tracker.log_artifact(folder)
    for picture in sorted(folder.glob("*.png")):
        tracker.log_image(picture.stem, np.asarray(Image.open(picture).convert("RGB")), step=0)


def write_report(
    folder: Path,
    world: WorldModel,
    store: EpisodeStore,
    tokens: Tokens,
    latent_actions: np.ndarray,
    rollouts: Rollouts,
    drift: Rollouts,
    num_gifs: int,
    seed: int,
) -> None:
    """Writes tables and plots of a split to `folder`, and dreams from the `num_gifs` clips with the most motion.

    The files are `reconstructions.png`, `codebook_histogram.{csv,png}`, `action_table.{csv,png}`, `horizon.png`,
    `horizon_{all,moving}.csv`; for each prompt i `dream_<i>.gif`, `actions_<i>.gif`, `actions_<i>.png`.

    Args:
        folder: output folder; created if missing.
        world: the world model.
        store: the split.
        tokens, latent_actions: tokens and latent actions of the whole split, the latter `(N,)`.
        rollouts: measurements on the split.
        drift: measurements on longer clips, tabulated against horizon.
        num_gifs: number of clips.
        seed: seed of sampling.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moving = {"all": False, "moving": True}
    write_horizon(folder, {name: horizon_table(drift, moving=only) for name, only in moving.items()})
    write_codebook(folder, sum(count_codes(shard, world.tokenizer.num_codes) for shard in tokens.shards))  # pyright: ignore[reportArgumentType]
    if store.action_names:
        write_action_table(folder, latent_actions, store, world.num_actions)
    shown = spread_starts(rollouts.starts, NUM_RECONSTRUCTIONS)
    frames_BHWC = torch.from_numpy(read_windows(store, shown, 1)[:, 0]).to(world.device)
    decoded_BHWC = world.tokenizer.decode(world.tokenizer.encode(frames_BHWC))
    save_png(folder / "reconstructions.png", reconstruction_sheet(_pixels(frames_BHWC), _pixels(decoded_BHWC)))

    names = [button.caption(latent) for latent, button in enumerate(world.buttons)]
    context, horizon = world.context_frames, rollouts.moving_MS.shape[1]
    clips = read_clips(store, latent_actions, liveliest(rollouts, num_gifs), context + horizon)
    for index, (frames_THWC, actions) in enumerate(zip(*(part.to(world.device) for part in clips), strict=True)):
        dreamed_SHWC = _pixels(dream(world, frames_THWC[None], actions[None], seed)[0])
        held_ASHWC = _pixels(dream_held(world, frames_THWC, actions, seed))
        context_SHWC, true_SHWC = np.split(_pixels(frames_THWC), [context])
        save_gif(folder / f"dream_{index}.gif", dream_sheets(context_SHWC, true_SHWC, dreamed_SHWC))
        save_gif(folder / f"actions_{index}.gif", action_sheets(context_SHWC[-1], held_ASHWC, names))
        save_png(folder / f"actions_{index}.png", action_strip(held_ASHWC, names))


def write_counterfactuals(folder: Path, branches: Branches, found: Counterfactuals, buttons: Sequence[Button]) -> None:
    """Writes `counterfactual_confusion.{csv,png}` and `branches.png`: real branches above imagined ones."""
    counts_EE = confusion(found, buttons)
    shares_EE = counts_EE / np.maximum(counts_EE.sum(axis=1, keepdims=True), 1)
    actions = branches.action_names
    names = [action.replace("_", " ") for action in actions]
    _write_csv(
        folder / "counterfactual_confusion.csv",
        [
            {"asked": actions[asked], "came": actions[came], "share": f"{share:.4f}"}
            for (asked, came), share in np.ndenumerate(shares_EE)
        ],
    )
    figure, axes = _figure(5.5, 3.6)
    _draw_shares(axes, shares_EE)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="closest real branch", ylabel="what the button stands for", title="counterfactual test")
    _save(figure, folder / "counterfactual_confusion.png")

    shown = _worth_showing(found.counts_M)
    captions = [button.caption(latent) for latent, button in enumerate(buttons)]
    sheet = branch_sheet(
        branches.past_MTHWC[shown, -1], branches.next_MEHWC[shown], found.imagined_MAHWC[shown], names, captions
    )
    save_png(folder / "branches.png", sheet)


def write_steering(folder: Path, branches: Branches, dreamed_MEFHWC: np.ndarray, num_gifs: int) -> None:
    """Writes `steering.png` and GIFs of real and dreamed branches.

    `steering.png` shows the last frames of some states, real ones above dreamed ones. `steering_<i>.gif` shows all
    frames, for `num_gifs` of those states.
    """
    names = [action.replace("_", " ") for action in branches.action_names]
    captions = [names, [f"dream, {name}" for name in names]]
    differs_M = differing(branches.held_MEFHWC[:, :, -1]).any((1, 2))
    shown = _worth_showing(differs_M)
    sheet = branch_sheet(
        branches.past_MTHWC[shown, -1], branches.held_MEFHWC[shown, :, -1], dreamed_MEFHWC[shown, :, -1], names, names
    )
    save_png(folder / "steering.png", sheet)
    for index, state in enumerate(shown[:num_gifs]):
        held_REFHWC = np.stack([branches.held_MEFHWC[state], dreamed_MEFHWC[state]])
        start_REHWC = np.broadcast_to(branches.past_MTHWC[state, -1], held_REFHWC[:, :, 0].shape)
        pictures = [contact_sheet(panels, captions) for panels in (start_REHWC, *np.moveaxis(held_REFHWC, 2, 0))]
        save_gif(folder / f"steering_{index}.gif", pictures)


def _worth_showing(differs_M: np.ndarray) -> np.ndarray:
    """Selects some of the states whose branches differ, or of all states if none do."""
    return spread_starts(np.flatnonzero(differs_M | ~differs_M.any()), NUM_BRANCHED)


def write_sprite(folder: Path, store: EpisodeStore, lam: LatentActionModel) -> None:
    """Writes `sprite.png`, the agent as the latent action model located it on some frames; only for kind `surprise`."""
    if not isinstance(lam, SurpriseLam):
        return
    starts = spread_starts(np.arange(store.num_frames), NUM_RECONSTRUCTIONS)
    frames_CHWC = read_windows(store, starts, 1)[:, 0]
    boxes = lam.sprites(torch.from_numpy(frames_CHWC).to(next(lam.parameters()).device))
    scale = frames_CHWC.shape[1] / MEASURED_SIZE[0]
    scaled = [Box(*(round(side * scale) for side in box)) for box in boxes]
    frames_CHWC = np.concatenate([outlined(frames_CHWC[[i]], box) for i, box in enumerate(scaled)])
    save_png(folder / "sprite.png", contact_sheet(frames_CHWC[None], [["the agent", *[""] * (len(starts) - 1)]]))


def write_buttons(
    folder: Path, store: EpisodeStore, latent_actions: np.ndarray, lam: LatentActionModel, buttons: Sequence[Button]
) -> None:
    """Writes `buttons.png`, mean motion and a typical transition of each latent action; only if they have no names."""
    if buttons[0].names:
        return
    starts = typical_transitions(lam, store, latent_actions, buttons)
    examples_A2HWC = np.stack(
        [
            np.zeros((2, *store.frame_shape), np.uint8) if start is None else store.read(start, start + 2)
            for start in starts
        ]
    )
    names = [button.caption(latent) for latent, button in enumerate(buttons)]
    sheet = button_sheet(examples_A2HWC, [button.motion for button in buttons], STILL, names)
    save_png(folder / "buttons.png", sheet)


def _draw_shares(axes, shares: np.ndarray) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)


def write_codebook(folder: Path, counts: np.ndarray) -> None:
    """Writes `codebook_histogram.csv` (code, count) and `.png` (most frequent first) from counts `(K,)`."""
    _write_csv(folder / "codebook_histogram.csv", [{"code": k, "count": int(n)} for k, n in enumerate(counts)])
    shares = np.sort(counts)[::-1] / counts.sum()
    figure, axes = _figure(6, 3.2)
    axes.fill_between(np.arange(len(shares)), shares, step="mid", color="tab:blue")
    axes.axhline(1 / len(shares), color="0.4", linestyle="--", linewidth=1, label="uniform")
    axes.set(xlabel="code, by frequency", ylabel="share of tokens", xlim=(0, len(shares)), ylim=(0, None))
    axes.set_title(f"{np.mean(counts > 0):.1%} of {len(counts)} codes used")
    axes.legend(frameon=False)
    _save(figure, folder / "codebook_histogram.png")


def write_action_table(folder: Path, latent_actions: np.ndarray, store: EpisodeStore, num_actions: int) -> None:
    """Writes `action_table.csv` (latent_action, action, count, share of the row) and `.png` of a split.

    Args:
        folder: output folder.
        latent_actions: `(N,)`, those of the whole split.
        store: the split, whose true actions are known.
        num_actions: A.
    """
    counts = action_table(latent_actions, store.actions(), num_actions, len(store.action_names))
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
            for index, action in enumerate(store.action_names)
        ],
    )
    figure, axes = _figure(5.5, 1.2 + 0.35 * len(counts))
    _draw_shares(axes, shares)
    names = [action.replace("_", " ") for action in store.action_names]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    rows = zip(counts.sum(axis=1) / counts.sum(), range(len(counts)), strict=True)
    axes.set_yticks(range(len(counts)), [f"{latent} ({share:.0%})" for share, latent in rows], fontsize=8)
    axes.set(ylabel="latent action (share of all)", title="effective true action, given the latent one")
    _save(figure, folder / "action_table.png")


def write_horizon(folder: Path, tables: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Writes each of the tables returned by `horizon_table` as `horizon_<frames>.csv`, and all as `horizon.png`."""
    figure = Figure(figsize=(4 * len(tables), 6), layout="constrained")
    panels = figure.subplots(len(MEASURES), len(tables), sharex=True, sharey="row", squeeze=False)
    for column, (frames, table) in enumerate(tables.items()):
        rows = [{name: value if name == "horizon" else f"{value:.3f}" for name, value in row.items()} for row in table]
        columns = ["horizon", *(f"{measure}_{series}" for measure in MEASURES for series in SERIES)]
        _write_csv(folder / f"horizon_{frames}.csv", rows, columns)
        for axes, measure in zip(panels[:, column], MEASURES, strict=True):
            for series, style in SERIES_STYLE.items():
                horizons, values = ([row[name] for row in table] for name in ("horizon", f"{measure}_{series}"))
                label = series.replace("_", " ")
                axes.plot(horizons, values, label=label, markersize=3.5, markevery=4, **style)
            axes.grid(alpha=0.3)
        panels[0, column].set_title(f"{frames} frames")
        panels[-1, column].set_xlabel("frames dreamed")
    for axes, label in zip(panels[:, 0], ("PSNR (dB)", "SSIM"), strict=True):
        axes.set_ylabel(label)
    panels[0, -1].legend(frameon=False, fontsize=8)
    _save(figure, folder / "horizon.png")


def _pixels(frames: torch.Tensor) -> np.ndarray:
    return frames.cpu().numpy()


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130, metadata={"Software": None})  # without the version of matplotlib


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Writes rows as CSV. The header is `columns`, needed if there may be no rows, or the keys of the first row."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
