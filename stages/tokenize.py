"""Writes every frame as tokens: data/tokens/{train,val,test}/, tied to the tokenizer by its fingerprint."""

from genie.data.episodes import SPLITS, EpisodeStore
from genie.models.tokenizer import Tokenizer
from genie.params import Params
from genie.runtime import make_accelerator
from genie.stage import run_stage
from genie.training.checkpoint import load_model
from genie.training.tokenizing import tokenize
from genie.training.tracking import Tracker


def main(params: Params, tracker: Tracker) -> None:
    accelerator = make_accelerator(params.runtime)
    tokenizer = load_model("data/models/tokenizer", Tokenizer, accelerator.device)
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in SPLITS}
    tokenize(tokenizer, stores, "data/tokens", accelerator)


if __name__ == "__main__":
    run_stage("tokenize", main, in_processes=True)
