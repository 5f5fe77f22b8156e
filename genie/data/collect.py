"""Plays the simulator and records every split."""

from pathlib import Path

import numpy as np

from genie.data.episodes import BLOCK_FRAMES, FRAME_SHAPE, SPLITS, EpisodeStore, EpisodeWriter
from genie.data.files import replacing
from genie.data.motion import is_moving
from genie.data.simulator import (
    JUMP, JUMP_LEFT, JUMP_RIGHT, LEFT, NUM_ACTIONS, RIGHT, STAY, Simulator, distribution,
)  # fmt: skip
from genie.params import CollectParams
from genie.progress import progress

MAX_EPISODE_FRAMES = 256
BUFFER_BYTES = 2**28


class CollectError(ValueError):
    """The collect params are each fine but cannot be played together; the message names the key and the fix."""


def fresh_action_shares(env_name: str) -> np.ndarray:
    """How often `sticky_right` draws each of the simulator's 15 actions when it does not keep the last one.

    CoinRun: only the six actions that do something, leaning right because levels run that way. In the other games
    any action may matter: half of the draws lean right the same way, half are uniform.
    """
    shares = np.zeros(NUM_ACTIONS)
    shares[[STAY, LEFT, RIGHT, JUMP, JUMP_LEFT, JUMP_RIGHT]] = 0.08, 0.17, 0.25, 0.10, 0.15, 0.25
    return shares if env_name == "coinrun" else shares / 2 + 0.5 / NUM_ACTIONS


class Policy:
    """Draws the next actions of all environments without looking at them.

    `uniform` draws each of the 15 actions alike. `sticky_right` keeps the last action with probability `stickiness`
    and else draws by `fresh_action_shares`, so that agents run on instead of trembling at the start.
    """

    def __init__(self, params: CollectParams, rng: np.random.Generator):
        self._rng = rng
        if params.policy == "uniform":
            self._stickiness, shares = 0.0, np.full(NUM_ACTIONS, 1 / NUM_ACTIONS)
        else:
            self._stickiness, shares = params.stickiness, fresh_action_shares(params.env_name)
        self._thresholds = np.cumsum(shares)[:-1]
        self._actions = self._fresh(params.num_envs)

    def __call__(self) -> np.ndarray:
        """`(num_envs,)` actions 0..14."""
        keep = self._rng.random(len(self._actions)) < self._stickiness
        self._actions = np.where(keep, self._actions, self._fresh(len(self._actions)))
        return self._actions

    def _fresh(self, count: int) -> np.ndarray:
        return np.searchsorted(self._thresholds, self._rng.random(count), side="right")


def collect(params: CollectParams, folder: str | Path, num_threads: int = 0) -> dict[str, int | float]:
    """Records every split as `folder/<split>.h5` and measures what came out.

    Args:
        num_threads: of the simulator; 0 takes one a core. The same params give the same bytes for any number.

    Returns:
        `frames`, `episodes` and `levels` (those seen) over all splits, `bytes_per_frame` on disk, and
        `moving_fraction`, the share of the test split's transitions that `is_moving`.

    Raises:
        CollectError: the params cannot be played; said before anything is.
    """
    _check(params)
    paths = {split: Path(folder) / f"{split}.h5" for split in SPLITS}
    for split, path in paths.items():
        _collect_split(params, split, path, num_threads)
    stores = {split: EpisodeStore(path) for split, path in paths.items()}
    num_frames = sum(store.num_frames for store in stores.values())
    return {
        "frames": num_frames,
        "episodes": sum(len(store.episode_starts) for store in stores.values()),
        "levels": sum(len(np.unique(store.level_seeds)) for store in stores.values()),
        "bytes_per_frame": sum(path.stat().st_size for path in paths.values()) / num_frames,
        "moving_fraction": moving_fraction(stores["test"]),
    }


def moving_fraction(store: EpisodeStore) -> float:
    """The share of a split's transitions that `is_moving`."""
    num_moving = num_transitions = 0
    for episode in store.episode_slices():
        frames = store.read(episode.start, episode.stop)
        num_moving += int(is_moving(frames[:-1], frames[1:]).sum())
        num_transitions += len(frames) - 1
    return num_moving / max(num_transitions, 1)


def _check(params: CollectParams) -> None:
    for split, num_frames in params.frames:
        if num_frames < 2 * params.num_envs:
            raise CollectError(
                f"collect.frames.{split}: {num_frames} frames cannot hold a transition of each of {params.num_envs} "
                f"environments; ask for at least {2 * params.num_envs}, or lower collect.num_envs"
            )
    num_levels = sum(count for _, count in params.levels)
    if num_levels >= 2**31:
        raise CollectError(f"collect.levels: {num_levels} levels in all, the simulator knows {2**31 - 1}; ask for fewer")


def _collect_split(params: CollectParams, split: str, path: Path, num_threads: int) -> None:
    """Plays until the split's frames are recorded and writes them to `path`, whole or not at all."""
    index = SPLITS.index(split)
    num_frames, num_levels = getattr(params.frames, split), getattr(params.levels, split)
    start_level = sum(getattr(params.levels, earlier) for earlier in SPLITS[:index])
    seed, policy_seed = np.random.SeedSequence([params.seed, index]).generate_state(2)
    simulator = Simulator(
        env_name=params.env_name,
        distribution_mode=params.distribution_mode,
        backgrounds=params.backgrounds,
        num_envs=params.num_envs,
        start_level=start_level,
        num_levels=num_levels,
        action_repeat=params.action_repeat,
        seed=int(seed >> 1),  # the simulator takes 31 bits
        num_threads=num_threads,
    )
    policy = Policy(params, np.random.default_rng(policy_seed))
    with replacing(path) as temporary:
        writer = EpisodeWriter(temporary, num_frames, params.compression, _attributes(params, split, start_level))
        try:
            with progress(name=f"collect {split}", total=num_frames, unit="frame") as bar:
                _record(simulator, policy, writer, params.num_envs, bar)
            writer.close()
        except BaseException:
            writer.abandon()
            raise
        finally:
            simulator.close()


def _record(simulator: Simulator, policy: Policy, writer: EpisodeWriter, num_envs: int, bar) -> None:
    frame_bytes = int(np.prod(FRAME_SHAPE))
    max_length = min(MAX_EPISODE_FRAMES, max(2, BUFFER_BYTES // (num_envs * frame_bytes)))
    frames = np.empty((num_envs, max_length, *FRAME_SHAPE), np.uint8)  # of the life each environment is in
    actions = np.empty((num_envs, max_length), np.uint8)
    lengths = np.zeros(num_envs, int)
    envs = np.arange(num_envs)
    # At first every environment would fill its buffer at once and the simulator wait for them all to be written.
    limits = max_length - envs * (max_length // 2) // num_envs
    seeds = simulator.level_seeds()
    num_recorded = 0
    while True:
        observed, is_new = simulator.observe()
        ends = np.flatnonzero((lengths > 0) & (is_new | (lengths == limits)))
        next_seeds = simulator.level_seeds() if is_new.any() else seeds
        held = policy()
        is_last = num_recorded + num_envs >= writer.num_frames
        if not is_last:
            simulator.act(held)  # from here on the simulator's threads work beside this one
        for env in ends:
            writer.append(frames[env, : lengths[env]], actions[env], int(seeds[env]))
        lengths[ends] = 0
        limits[ends] = max_length
        frames[envs, lengths] = observed
        actions[envs, lengths] = held
        lengths += 1
        seeds = next_seeds
        num_recorded += num_envs
        bar.update(num_envs)
        writer.flush(1 + num_envs // BLOCK_FRAMES)
        if is_last:
            break
    for env in envs:
        writer.append(frames[env, : lengths[env]], actions[env], int(seeds[env]))


def _attributes(params: CollectParams, split: str, start_level: int) -> dict:
    name, version = distribution()
    flat = params.model_dump(exclude={"frames", "levels"})
    flat |= {f"{key}_{part}": count for key in ("frames", "levels") for part, count in getattr(params, key)}
    return {**flat, "split": split, "start_level": start_level, "simulator": name, "simulator_version": version}
