"""Writes every frame as tokens: data/tokens/{train,val,test}.h5, tied to the tokenizer by its fingerprint."""

from genie.data.episodes import SPLITS, EpisodeStore
from genie.data.tokens import write_tokens
from genie.models.tokenizer import Tokenizer
from genie.params import Params
from genie.runtime import make_accelerator
from genie.stage import run_stage
from genie.training.checkpoint import load_model
from genie.training.tokenizing import tokens_of
from genie.training.tracking import Tracker


def main(params: Params, tracker: Tracker) -> None:
    accelerator = make_accelerator(params.runtime)
    tokenizer = load_model("data/models/tokenizer", Tokenizer, accelerator.device)
    for split in SPLITS:
        store = EpisodeStore(f"data/frames/{split}.h5")
        with accelerator.autocast():
            write_tokens(
                f"data/tokens/{split}.h5",
                tokens_of(tokenizer, store, name=f"tokenize {split}"),
                store.num_frames,
                fingerprint=tokenizer.fingerprint,
                num_codes=tokenizer.num_codes,
                grid=tokenizer.grid,
            )


if __name__ == "__main__":
    run_stage("tokenize", main)
