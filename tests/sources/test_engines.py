import hashlib
import json

import numpy as np

from genie.sources.engines import distribution, open_engine
from tests.conftest import ROOT

# Of levels without backgrounds: only backgrounds differ between the packages.
STATES = ROOT / "tests/assets/simulator/states.json"


def digest(parts):
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def test_every_package_plays_the_same_game():
    """Frames, lives, levels and saved states equal those of the first package."""
    engine = open_engine(
        4,
        1,
        env_name="coinrun",
        distribution_mode="easy",
        use_backgrounds=False,
        start_level=7,
        num_levels=3,
        rand_seed=5,
    )
    seen = [engine.observe()[0].tobytes()]
    for actions in np.random.default_rng(0).integers(0, 15, (200, 4)):
        engine.act(actions.astype(np.int32))
        frames, is_first = engine.observe()
        seen += [frames.tobytes(), is_first.astype(np.uint8).tobytes(), engine.level_seeds().tobytes()]
    played = {"frames": digest(seen), "states": digest(engine.save())}
    engine.close()
    assert played == json.loads(STATES.read_text()), distribution()
