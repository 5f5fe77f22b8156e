"""Plays the simulator and records every split."""

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from genie.core.frames import FRAME_SHAPE
from genie.core.motion import is_moving
from genie.core.params import CollectParams
from genie.core.paths import resume_folder
from genie.data.episodes import SCHEMA_VERSION, EpisodeFile, EpisodeFileError, EpisodeStore, EpisodeWriter
from genie.data.hdf5 import writing_hdf5
from genie.data.parallel_writing import write_shards
from genie.data.shards import SPLITS, Shard
from genie.distributed.claims import claim, release
from genie.distributed.processes import num_cores
from genie.sources.bursts import Bursts
from genie.sources.engines import distribution
from genie.sources.levels import levels_and_seeds, shards_of, simulator_of
from genie.sources.policies import Policy
from genie.sources.side_by_side import largest_first, run_side_by_side, thread_shares

MAX_EPISODE_FRAMES = 256  # longer lives are cut: memory stays bounded, and few windows are lost
BUFFER_BYTES = 2**28  # of frames of unfinished episodes; with many environments, lives are cut earlier
BURSTS_OF_A_LIFE = 16  # number of bursts that the longest life spans
PROCESS_BYTES = 200 * 10**6  # of a process that records: blocks to be compressed, its part of the shared pictures
ENV_BYTES = 6 * 10**6  # of an environment


class CollectError(ValueError):
    """The collect params are individually valid but inconsistent; the message names the key and the fix."""


def collect(params: CollectParams, folder: str | Path, num_threads: int = 0, *, resume: bool = False) -> int:
    """Records every split as shards `folder/<split>/<shard>.h5`, divided among all processes.

    Each process records several shards side by side, in workers of its own.

    Args:
        folder: output folder; existing content is replaced.
        num_threads: threads of the simulator, shared by the workers; 0 means one per core. The same params give the
            same bytes for any number of threads, workers and processes.
        resume: whether to keep the shards that an interrupted call has finished; required with several processes.

    Returns:
        Number of frames recorded by this call, over all processes.

    Raises:
        CollectError: the params cannot be played; raised before anything is played.
        SharingError: there are more processes than shards; raised before anything is played.
        WorkerError: a worker was killed. Finished shards are kept if `resume`.
    """
    _check(params)
    shards = [shard for split in SPLITS for shard in shards_of(params, split)]
    record = partial(_collect_shards, params, num_threads or num_cores())
    write = partial(write_shards, folder, shards, is_finished=partial(_is_finished, params), write=record)
    if resume:
        identity = {"params": _flat(params), "schema_version": SCHEMA_VERSION, **distribution()}
        unfinished = resume_folder("collect", identity)
        claim(unfinished)
        num_frames = write(unfinished, name="collect")
        release(unfinished)
        return num_frames
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".collect-", dir=Path(folder).parent) as scratch:
        return write(Path(scratch) / "frames", name="collect")


def collect_metrics(folder: str | Path) -> dict[str, int | float]:
    """Metrics of the recorded data: `frames`, `episodes` and `levels` (those seen) over all splits, `bytes_per_frame`
    on disk, and `moving_fraction`, the share of the test split's transitions that `is_moving`."""
    stores = {split: EpisodeStore(Path(folder) / split) for split in SPLITS}
    num_frames = sum(store.num_frames for store in stores.values())
    num_bytes = sum(file.path.stat().st_size for store in stores.values() for file in store.files)
    return {
        "frames": num_frames,
        "episodes": sum(len(store.episode_starts) for store in stores.values()),
        "levels": sum(len(np.unique(store.level_seeds)) for store in stores.values()),
        "bytes_per_frame": num_bytes / num_frames,
        "moving_fraction": moving_fraction(stores["test"]),
    }


def moving_fraction(store: EpisodeStore) -> float:
    """Share of a split's transitions that `is_moving`, by the split's own share of the pixels."""
    num_moving = num_transitions = 0
    for episode in store.episode_slices():
        frames = store.read(episode.start, episode.stop)
        num_moving += int(is_moving(frames[:-1], frames[1:], store.moving_share).sum())
        num_transitions += len(frames) - 1
    return num_moving / max(num_transitions, 1)


def _check(params: CollectParams) -> None:
    for split, num_frames in params.frames:
        if num_frames < 2 * params.num_envs:
            raise CollectError(
                f"collect.frames.{split}: {num_frames} frames cannot hold a transition of each of "
                f"{params.num_envs} environments; ask for at least {2 * params.num_envs} or lower "
                "collect.num_envs"
            )
        shards, num_levels = shards_of(params, split), getattr(params.levels, split)
        fewest = min(shard.num_frames for shard in shards)
        if fewest < 2 * params.num_envs:
            raise CollectError(
                f"collect.shard_frames: {params.shard_frames} leave a shard of {split} {fewest} frames, which cannot "
                f"hold a transition of each of {params.num_envs} environments; ask for at least "
                f"{4 * params.num_envs} or lower collect.num_envs"
            )
        if num_levels < len(shards):
            raise CollectError(
                f"collect.levels.{split}: {num_levels} levels are too few for {len(shards)} shards, none of which "
                f"shares its own; ask for at least {len(shards)} or raise collect.shard_frames"
            )
    num_levels = sum(count for _, count in params.levels)
    if num_levels >= 2**31:
        raise CollectError(f"collect.levels: {num_levels} in all, but the simulator knows {2**31 - 1}; ask for fewer")


def _attributes(params: CollectParams, shard: Shard) -> dict:
    played = levels_and_seeds(params, shard)
    return {"split": shard.split, **shard.attributes, **played, **_flat(params), **distribution()}


def _is_finished(params: CollectParams, shard: Shard, path: Path) -> bool:
    try:
        file = EpisodeFile(path)
    except EpisodeFileError:
        return False
    wanted = {"schema_version": SCHEMA_VERSION, **_attributes(params, shard)}
    return file.num_frames == shard.num_frames and file.attributes == wanted


def _collect_shards(params: CollectParams, num_threads: int, paths: Mapping[Shard, Path], bar: tqdm) -> None:
    jobs = largest_first(paths.items(), lambda job: job[0].num_frames)
    shares = thread_shares([shard.num_frames for shard, _ in jobs], num_threads, _process_bytes(params.num_envs))
    run_side_by_side(partial(_collect_shard, params), jobs, shares, bar.update, preload="genie.sources.loaded_engine")


def _collect_shard(
    params: CollectParams, num_threads: int, job: tuple[Shard, Path], advance: Callable[[int], object]
) -> None:
    shard, path = job
    simulator, policy = simulator_of(params, shard, num_threads)
    with (
        closing(simulator),
        closing(Bursts(simulator, num_threads)) as bursts,
        writing_hdf5(path) as file,
        EpisodeWriter(file, shard.num_frames, params.compression, _attributes(params, shard)) as writer,
    ):
        _record(bursts, policy, writer, shard.num_frames, advance)
        writer.finish()


def _record(
    bursts: Bursts, policy: Policy, writer: EpisodeWriter, num_frames: int, advance: Callable[[int], object]
) -> None:
    """Fills the writer; stores each burst of frames while the simulator plays the next one."""
    num_envs, num_steps = bursts.num_envs, -(-num_frames // bursts.num_envs)
    max_length, burst, size = _lengths(num_envs)
    # Ring buffer: frame t is at t % size, and stays there until its life is stored, while the next burst is played.
    frames = np.empty((num_envs, size, *FRAME_SHAPE), np.uint8)
    actions = np.empty((num_envs, size), np.uint8)
    starts = np.zeros(num_envs, int)  # of each environment's current life
    seeds = np.empty(num_envs, np.int64)
    # Staggered: otherwise all environments would first be cut at the same step and wait until all are written.
    limits = max_length - np.arange(num_envs) * (max_length // 2) // num_envs

    def begin(start: int) -> None:
        held = np.stack([policy() for _ in range(start, min(start + burst, num_steps))], axis=1)
        slots = slice(start % size, start % size + held.shape[1])
        actions[:, slots] = held
        bursts.begin(held, frames[:, slots])

    def end_lives(which: np.ndarray, stop: int) -> None:
        for env in which:
            first = starts[env] % size
            last = first + stop - starts[env]
            pieces = slice(first, last), slice(max(last - size, 0))  # up to the end of the ring, then from its start
            writer.append([(frames[env, piece], actions[env, piece]) for piece in pieces], int(seeds[env]))
        starts[which] = stop
        limits[which] = max_length

    begin(0)
    for start in range(0, num_steps, burst):
        is_new, level_seeds = bursts.finish()
        if start + burst < num_steps:
            begin(start + burst)
        for step, (new, new_seeds) in enumerate(zip(is_new.T, level_seeds.T, strict=True), start):
            lengths = step - starts
            end_lives(np.flatnonzero((new | (lengths == limits)) & (lengths > 0)), step)
            seeds = new_seeds
        advance(min(is_new.size, num_frames - start * num_envs))
    end_lives(np.arange(num_envs), num_steps)


def _lengths(num_envs: int) -> tuple[int, int, int]:
    """Frames of the longest life, of a burst and of the ring buffer, per environment."""
    max_length = min(MAX_EPISODE_FRAMES, max(2, BUFFER_BYTES // (num_envs * math.prod(FRAME_SHAPE))))
    burst = -(-max_length // BURSTS_OF_A_LIFE)
    return max_length, burst, burst * (-(-max_length // burst) + 2)


def _process_bytes(num_envs: int) -> int:
    """Memory of a process that records."""
    _, _, size = _lengths(num_envs)
    return PROCESS_BYTES + num_envs * (ENV_BYTES + size * math.prod(FRAME_SHAPE))


def _flat(params: CollectParams) -> dict:
    tree = params.model_dump(exclude={"source", "frame_size", "films"})
    counts = {f"{key}.{split}": tree[key][split] for key in ("frames", "levels") for split in SPLITS}
    return {key: value for key, value in tree.items() if not isinstance(value, dict)} | counts
