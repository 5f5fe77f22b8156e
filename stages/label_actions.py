"""Labels every transition with its latent action: data/actions/, tied to the LAM by its fingerprint.

Then counts the true action that each latent action stands for, or measures how it moves the agent where true actions
are unknown: data/models/buttons.json. With `dynamics.actions: true` the labels are the true actions, for the upper
bound of control.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.caches import TRUE_ACTIONS, read_latent_actions, write_latent_actions
from genie.data.episodes import EpisodeStore
from genie.data.shards import SPLITS
from genie.distributed.accelerator import make_accelerator
from genie.models.checkpoint import load_model
from genie.models.lam import LatentActionModel
from genie.pipeline.infer_actions import count_buttons, latent_actions_of, measure_buttons
from genie.pipeline.stage import run_stage
from genie.world.controls import Button, write_buttons

ACTIONS = "data/actions"


def main(params: Params, tracker: Tracker) -> None:
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in SPLITS}
    names = stores["val"].action_names
    if params.dynamics.actions is True:
        labels = {split: [store.actions()] for split, store in stores.items()}
        write(stores, labels, TRUE_ACTIONS, len(names), partial(count_buttons, num_actions=len(names)))
        return
    accelerator = make_accelerator(params.runtime)
    lam = load_model("data/models/lam", LatentActionModel, accelerator.device)
    labels = {split: latent_actions_of(lam, store, name=f"label {split}") for split, store in stores.items()}
    describe = partial(count_buttons, num_actions=lam.num_actions) if names else partial(measure_buttons, lam)
    with accelerator.autocast():
        write(stores, labels, lam.fingerprint, lam.num_actions, describe)


def write(
    stores: dict[str, EpisodeStore],
    labels: Mapping[str, Iterable[np.ndarray]],
    fingerprint: str,
    num_actions: int,
    describe: Callable[[EpisodeStore, np.ndarray], tuple[Button, ...]],
) -> None:
    for split, store in stores.items():
        file = f"{ACTIONS}/{split}.h5"
        write_latent_actions(file, labels[split], store.num_frames, fingerprint=fingerprint, num_actions=num_actions)
    known = read_latent_actions(f"{ACTIONS}/val.h5", fingerprint)
    write_buttons("data/models", describe(stores["val"], known))


if __name__ == "__main__":
    run_stage("label_actions", main)
