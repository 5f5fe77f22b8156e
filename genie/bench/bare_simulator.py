"""Benchmark of collecting frames, compared with a simulator that is only stepped."""

import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from genie.bench.figures import Figure
from genie.bench.inputs import collect_quietly
from genie.bench.peak import peak_memory
from genie.bench.timing import take_turns
from genie.core.params import CollectParams, Params, SplitCounts
from genie.distributed.processes import num_threads
from genie.sources.levels import shards_of, simulator_of

ROUNDS = 3
FEW, MANY = 32, 128  # recorded frames per environment
ONE_SHARD = 10**9  # frames, more than any split has: a single simulator plays them all, as in the bare run
ALL_BUFFERS = 320  # frames per environment, more than the longest life, so that all buffers have been filled


def measure(params: Params, folder: Path) -> list[Figure]:
    """Recorded frames per second without start-up: from the difference in time between `MANY` and `FEW` frames."""
    threads = num_threads(params.runtime)
    single = params.collect.model_copy(update={"shard_frames": ONE_SHARD})
    wide = single.model_copy(update={"num_envs": 2 * single.num_envs})
    with tempfile.TemporaryDirectory(dir=folder) as scratch:

        def collecting(settings: CollectParams, frames: int) -> Callable[[], None]:
            least = 2 * settings.num_envs
            counts = SplitCounts(train=frames * params.collect.num_envs, val=least, test=least)
            return lambda: collect_quietly(settings, counts, Path(scratch) / "frames", threads)

        collecting(single, ALL_BUFFERS)()
        peak = peak_memory("collect", beside="machine.peak_memory")
        sides = {
            "few": collecting(single, FEW),
            "many": collecting(single, MANY),
            "few wide": collecting(wide, FEW),
            "many wide": collecting(wide, MANY),
        }
        simulator, policy = simulator_of(single, shards_of(single, "train")[0], threads)
        held = [policy() for _ in range(MANY - FEW)]

        def step() -> None:
            for actions in held:
                simulator.observe()
                simulator.act(actions)

        with closing(simulator):
            seconds = take_turns({**sides, "bare": step}, ROUNDS)
    frames = (MANY - FEW) * params.collect.num_envs
    taken, taken_wide = seconds["many"] - seconds["few"], seconds["many wide"] - seconds["few wide"]
    if min(taken, taken_wide) <= 0:
        raise ValueError("too much else runs here to tell how fast frames are collected; try again when it has ended")
    return [
        Figure("simulator.frames_per_second", frames / seconds["bare"], "frames/s"),
        Figure("collect.frames_per_second", frames / taken, "frames/s", "simulator.frames_per_second"),
        Figure("collect.envs_x2.frames_per_second", frames / taken_wide, "frames/s", "collect.frames_per_second"),
        peak,
    ]
