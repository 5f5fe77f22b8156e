"""A few hundred real frames, collected once."""

import pytest

from genie.data.collect import collect
from genie.data.episodes import EpisodeStore
from genie.params import load_params


@pytest.fixture(scope="session")
def collect_params():
    params = load_params().collect.model_dump()
    counts = {"train": 600, "val": 100, "test": 130}
    return type(load_params().collect)(
        **{**params, "num_envs": 8, "frames": counts, "shard_frames": 250, "levels": {"train": 20, "val": 5, "test": 5}}
    )


@pytest.fixture(scope="session")
def collected(collect_params, tmp_path_factory):
    """The folder of one `collect`; `train` is three shards."""
    folder = tmp_path_factory.mktemp("collected") / "frames"
    assert collect(collect_params, folder, num_threads=2) == 830
    return folder


@pytest.fixture
def store(collected):
    return EpisodeStore(collected / "train")
