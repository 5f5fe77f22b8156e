"""Benchmark of drawing random windows, compared with copying as many bytes, and with a smaller store."""

from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

import numpy as np

from genie.bench.figures import Figure
from genie.bench.inputs import GROWTH
from genie.bench.peak import peak_memory
from genie.bench.timing import take_turns
from genie.core.params import DynamicsParams, Params, ProbeParams
from genie.data.caches import read_latent_actions, read_tokens
from genie.data.episodes import EpisodeStore
from genie.data.windows import FrameWindows, TokenWindows, read_windows, window_starts

ROUNDS, BATCHES = 9, 16  # timed rounds, and batches per round
WITHOUT_END = 2**31
COPIED_BYTES = 2**27  # size of the buffer that copies cycle through, since windows are drawn from a whole store
SPLITS = ("val", "train")

Draw = Callable[[], object]


def measure(params: Params, folder: Path) -> list[Figure]:
    """Measures frames per second of windows as the probe and the dynamics draw them.

    `file` decompresses the frames; `held` reads them from memory, where training keeps them if they fit.
    """
    frames = params.probe.batch_size * params.probe.window
    token_frames = params.dynamics.batch_size * params.dynamics.window
    stores = {split: EpisodeStore(folder / "frames" / split) for split in SPLITS}
    token_bytes = token_frames * read_tokens(folder / "tokens/train")[0].nbytes
    draws = {f"file {split}": _from_file(store, params.probe) for split, store in stores.items()}
    draws |= {f"held {split}": _held(store.path, params.probe) for split, store in stores.items()}
    draws |= {f"tokens {split}": _tokens(folder, split, params.dynamics) for split in SPLITS}
    draws |= {"copies": _copies(frames * stores["train"].read(0, 1).nbytes), "token copies": _copies(token_bytes)}
    seconds = take_turns({name: _many(draw) for name, draw in draws.items()}, ROUNDS)

    def speed(name: str) -> float:
        return BATCHES * (token_frames if "token" in name else frames) / seconds[name]

    figures = [
        Figure("reading.copied_frames_per_second", speed("copies"), "frames/s"),
        Figure("reading.copied_token_frames_per_second", speed("token copies"), "frames/s"),
    ]
    for kind, beside in (("file", "copied"), ("held", "copied"), ("tokens", "copied_token")):
        name, grown = f"reading.{kind}.frames_per_second", speed(f"{kind} train") / speed(f"{kind} val")
        figures.append(Figure(name, speed(f"{kind} train"), "frames/s", f"reading.{beside}_frames_per_second"))
        figures.append(Figure(f"reading.{kind}.frames_x{GROWTH}.speed", grown, f"of a {GROWTH}th of the frames"))
    return [*figures, peak_memory("reading", beside="machine.peak_memory")]


def _from_file(store: EpisodeStore, params: ProbeParams) -> Draw:
    """Draws windows as `FrameWindows` does if the frames do not fit into memory."""
    starts, rng = window_starts(store.episode_starts, store.num_frames, params.window), np.random.default_rng(0)
    return lambda: read_windows(store, rng.choice(starts, params.batch_size), params.window)


def _held(path: Path, params: ProbeParams) -> Draw:
    windows = FrameWindows(EpisodeStore(path), params.window, params.batch_size, params.seed, WITHOUT_END)
    windows.hold()
    return _in_order(windows)


def _tokens(folder: Path, split: str, params: DynamicsParams) -> Draw:
    caches = read_tokens(folder / "tokens" / split), read_latent_actions(folder / "actions" / f"{split}.h5")
    return _in_order(TokenWindows(*caches, params.window, params.batch_size, params.seed, WITHOUT_END))


def _in_order(windows: FrameWindows | TokenWindows) -> Draw:
    steps = count()
    return lambda: windows[next(steps)]


def _copies(num_bytes: int) -> Draw:
    source, target = np.ones(max(COPIED_BYTES, num_bytes), np.uint8), np.empty(num_bytes, np.uint8)
    starts = cycle(range(0, len(source) - num_bytes + 1, num_bytes))

    def copy() -> None:
        start = next(starts)
        target[:] = source[start : start + num_bytes]

    return copy


def _many(draw: Draw) -> Callable[[], None]:
    def draw_many() -> None:
        for _ in range(BATCHES):
            draw()

    return draw_many
