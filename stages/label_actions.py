"""Gives every transition its latent action: data/actions/{train,val,test}.h5, tied to their LAM."""

from genie.data.episodes import SPLITS, EpisodeStore
from genie.data.tokens import write_latent_actions
from genie.models.lam import LatentActionModel
from genie.params import Params
from genie.runtime import make_accelerator
from genie.stage import run_stage
from genie.training.checkpoint import load_model
from genie.training.labelling import latent_actions_of
from genie.training.tracking import Tracker


def main(params: Params, tracker: Tracker) -> None:
    accelerator = make_accelerator(params.runtime)
    lam = load_model("data/models/lam", LatentActionModel, accelerator.device)
    for split in SPLITS:
        store = EpisodeStore(f"data/frames/{split}.h5")
        with accelerator.autocast():
            write_latent_actions(
                f"data/actions/{split}.h5",
                latent_actions_of(lam, store, name=f"label {split}"),
                store.num_frames,
                fingerprint=lam.fingerprint,
                num_actions=lam.num_actions,
            )


if __name__ == "__main__":
    run_stage("label_actions", main)
