"""Gives every transition its action: data/actions/, tied to the LAM whose latent actions they are.

With `dynamics.actions: true` these are the simulator's effective actions, for the upper bound of control.
"""

from collections.abc import Iterable

import numpy as np

from genie.data.buttons import TRUE_BUTTONS, read_buttons, write_buttons
from genie.data.episodes import SPLITS, EpisodeStore
from genie.data.tokens import TRUE_ACTIONS, write_latent_actions
from genie.models.lam import LatentActionModel
from genie.params import Params
from genie.runtime import make_accelerator
from genie.stage import run_stage
from genie.training.checkpoint import load_model
from genie.training.labelling import latent_actions_of, true_actions_of
from genie.training.tracking import Tracker

LAM, ACTIONS = "data/models/lam", "data/actions"


def main(params: Params, tracker: Tracker) -> None:
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in SPLITS}
    if params.dynamics.actions is True:
        labels = {split: [true_actions_of(store)] for split, store in stores.items()}
        write(stores, labels, TRUE_ACTIONS, TRUE_BUTTONS)
        return
    accelerator = make_accelerator(params.runtime)
    lam = load_model(LAM, LatentActionModel, accelerator.device)
    labels = {split: latent_actions_of(lam, store, name=f"label {split}") for split, store in stores.items()}
    with accelerator.autocast():
        write(stores, labels, lam.fingerprint, read_buttons(LAM))


def write(stores: dict[str, EpisodeStore], labels: dict[str, Iterable[np.ndarray]], fingerprint: str, buttons) -> None:
    for split, store in stores.items():
        write_latent_actions(
            f"{ACTIONS}/{split}.h5",
            labels[split],
            store.num_frames,
            fingerprint=fingerprint,
            num_actions=len(buttons),
        )
    write_buttons(ACTIONS, buttons)


if __name__ == "__main__":
    run_stage("label_actions", main)
