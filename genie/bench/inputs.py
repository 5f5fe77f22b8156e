"""Benchmark inputs: simulator frames, and random tokens and latent actions, which cost as much as real ones.

The split `train` is `GROWTH` times as large as `val`, to measure how reading speed depends on the frames stored.
"""

import io
import math
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np

from genie.core.actions import NO_ACTION
from genie.core.params import CollectParams, Params, SplitCounts
from genie.data.caches import write_latent_actions, write_tokens
from genie.data.shards import cut
from genie.distributed.processes import num_threads
from genie.models.dynamics import Dynamics
from genie.sources.collect import collect
from genie.training.costs import build

GROWTH = 4
FRAMES = 16384  # in `train`
TOKEN_FRAMES = 2**17  # in the token cache's `train`, about the default of training: too large for a CPU cache
LIFE = 256  # maximum number of frames per episode of the random latent actions


def write_data(params: Params, folder: Path, frames: int = FRAMES, token_frames: int = TOKEN_FRAMES) -> None:
    """Writes `frames/`, `tokens/` and `actions/` into a folder, as the pipeline does into `data/`.

    Args:
        frames, token_frames: number of frames in `train`, stored as pixels and as tokens.
    """
    counts = {"train": frames, "val": frames // GROWTH, "test": 2 * params.collect.num_envs}
    collect_quietly(params.collect, SplitCounts(**counts), folder / "frames", num_threads(params.runtime))
    write_random_caches(params, folder, token_frames)


def write_random_caches(params: Params, folder: Path, token_frames: int) -> None:
    """Writes `tokens/` and `actions/` into a folder; `token_frames` as in `write_data`."""
    dynamics = build("dynamics", params)
    assert isinstance(dynamics, Dynamics)
    known = dynamics.config
    rng = np.random.default_rng(0)
    for split, count in (("train", token_frames), ("val", token_frames // GROWTH)):
        for shard in cut(split, count, params.collect.shard_frames):
            write_tokens(
                folder / "tokens" / shard.name,
                _random_tokens(rng, shard.num_frames, known.num_codes, math.prod(known.grid)),
                shard,
                fingerprint="random",
                num_codes=known.num_codes,
                grid=known.grid,
            )
        actions = rng.integers(known.num_actions, size=count).astype(np.uint8)
        actions[LIFE - 1 :: LIFE] = actions[-1] = NO_ACTION
        path = folder / "actions" / f"{split}.h5"
        write_latent_actions(path, [actions], count, fingerprint="random", num_actions=known.num_actions)


def collect_quietly(params: CollectParams, counts: SplitCounts, folder: Path, threads: int) -> None:
    """Collects the given number of frames per split, without a progress bar."""
    with redirect_stderr(io.StringIO()):
        collect(params.model_copy(update={"frames": counts}), folder, threads)


def _random_tokens(rng: np.random.Generator, count: int, num_codes: int, num_tokens: int) -> Iterator[np.ndarray]:
    for start in range(0, count, 4096):
        yield rng.integers(num_codes, size=(min(4096, count - start), num_tokens)).astype(np.uint16)
