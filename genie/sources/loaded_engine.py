"""Importing this module loads the simulator's pictures, of which processes that are then forked share one copy.

The simulator decodes the pictures of all games when it is first opened: more than a second, and 300 MB.
"""

from contextlib import suppress

from genie.sources.engines import EngineError, open_engine

with suppress(EngineError):  # raised again, and reported, when a process opens a simulator of its own
    open_engine(1, 0, env_name="coinrun", distribution_mode="easy", start_level=0, num_levels=1, rand_seed=0).close()
