"""Levels and seeds of each shard, and the simulator and policy that play them."""

import numpy as np

from genie.core.params import CollectParams
from genie.data.shards import SPLITS, Shard, cut, share_of
from genie.sources.policies import Policy
from genie.sources.simulator import Simulator


def shards_of(params: CollectParams, split: str) -> list[Shard]:
    """Shards that a split is recorded as."""
    return cut(split, getattr(params.frames, split), params.shard_frames)


def levels_and_seeds(params: CollectParams, shard: Shard) -> dict[str, int]:
    """`start_level`, `num_levels`, `simulator_seed` and `policy_seed` of a shard; shards share no levels."""
    split = SPLITS.index(shard.split)
    start = sum(getattr(params.levels, earlier) for earlier in SPLITS[:split])
    levels = share_of(shard.index, shard.count, getattr(params.levels, shard.split))
    # The simulator takes seeds of 31 bits.
    simulator_seed, policy_seed = np.random.SeedSequence([params.seed, split, shard.index]).generate_state(2) >> 1
    return {
        "start_level": start + levels.start,
        "num_levels": len(levels),
        "simulator_seed": int(simulator_seed),
        "policy_seed": int(policy_seed),
    }


def simulator_of(params: CollectParams, shard: Shard, num_threads: int = 0) -> tuple[Simulator, Policy]:
    """Simulator and policy of a shard: stepped together, they reproduce its play."""
    played = levels_and_seeds(params, shard)
    simulator = Simulator(
        env_name=params.env_name,
        distribution_mode=params.distribution_mode,
        backgrounds=params.backgrounds,
        num_envs=params.num_envs,
        action_repeat=params.action_repeat,
        start_level=played["start_level"],
        num_levels=played["num_levels"],
        seed=played["simulator_seed"],
        num_threads=num_threads,
    )
    return simulator, Policy(params, played["policy_seed"])
