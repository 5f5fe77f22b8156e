"""Labels every transition with its latent action: data/actions/, tied to the LAM by its fingerprint.

Then counts the effective action that each latent action stands for: data/models/buttons.json. With
`dynamics.actions: true` the labels are the simulator's effective actions, for the upper bound of control.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from genie.core.actions import EFFECTIVE_ACTIONS
from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.caches import TRUE_ACTIONS, read_latent_actions, write_latent_actions
from genie.data.episodes import EpisodeStore
from genie.data.shards import SPLITS
from genie.data.true_actions import true_actions_of
from genie.distributed.accelerator import make_accelerator
from genie.models.checkpoint import load_model
from genie.models.lam import LatentActionModel
from genie.pipeline.infer_actions import count_buttons, latent_actions_of
from genie.pipeline.stage import run_stage
from genie.world.controls import write_buttons

ACTIONS = "data/actions"


def main(params: Params, tracker: Tracker) -> None:
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in SPLITS}
    if params.dynamics.actions is True:
        labels = {split: [true_actions_of(store)] for split, store in stores.items()}
        write(stores, labels, TRUE_ACTIONS, len(EFFECTIVE_ACTIONS))
        return
    accelerator = make_accelerator(params.runtime)
    lam = load_model("data/models/lam", LatentActionModel, accelerator.device)
    labels = {split: latent_actions_of(lam, store, name=f"label {split}") for split, store in stores.items()}
    with accelerator.autocast():
        write(stores, labels, lam.fingerprint, lam.num_actions)


def write(
    stores: dict[str, EpisodeStore], labels: Mapping[str, Iterable[np.ndarray]], fingerprint: str, num_actions: int
) -> None:
    for split, store in stores.items():
        file = f"{ACTIONS}/{split}.h5"
        write_latent_actions(file, labels[split], store.num_frames, fingerprint=fingerprint, num_actions=num_actions)
    known = read_latent_actions(f"{ACTIONS}/val.h5", fingerprint)
    write_buttons("data/models", count_buttons(stores["val"], known, num_actions))


if __name__ == "__main__":
    run_stage("label_actions", main)
