"""Encodes every frame as tokens: data/tokens/{train,val,test}/, tied to the tokenizer by its fingerprint."""

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.data.episodes import EpisodeStore
from genie.data.shards import SPLITS
from genie.distributed.accelerator import make_accelerator
from genie.models.checkpoint import load_model
from genie.models.tokenizer import Tokenizer
from genie.pipeline.encode_frames import tokenize
from genie.pipeline.stage import run_stage


def main(params: Params, tracker: Tracker) -> None:
    accelerator = make_accelerator(params.runtime)
    tokenizer = load_model("data/models/tokenizer", Tokenizer, accelerator.device)
    stores = {split: EpisodeStore(f"data/frames/{split}") for split in SPLITS}
    tokenize(tokenizer, stores, "data/tokens", accelerator)


if __name__ == "__main__":
    run_stage("tokenize", main, in_processes=True)
