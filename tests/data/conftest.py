"""A few hundred real frames, collected once."""

import pytest

from genie.data.episodes import EpisodeStore


@pytest.fixture
def store(collected):
    return EpisodeStore(collected / "train")
