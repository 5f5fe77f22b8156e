import numpy as np
import torch

from genie.data.tokens import read_tokens, write_tokens
from genie.data.windows import FrameWindows, TokenWindows
from genie.models.tokenizer import build_tokenizer
from genie.training import tokenizing
from genie.training.checkpoint import fingerprint
from genie.training.tokenizing import tokens_of


def test_cached_tokens_are_those_encoded_on_the_fly(tiny_params, coinrun, scrambled, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "FRAMES_AT_ONCE", 150)  # 400 frames are no whole number of batches
    store, tokenizer = coinrun["val"], scrambled(build_tokenizer(tiny_params.tokenizer))
    write_tokens(
        tmp_path / "val.h5",
        tokens_of(tokenizer, store, "tokenize"),
        store.num_frames,
        fingerprint=fingerprint(tokenizer),
        num_codes=tokenizer.num_codes,
        grid=tokenizer.grid,
    )
    tokens = read_tokens(tmp_path / "val.h5", fingerprint(tokenizer))
    assert len(np.unique(tokens)) > 20, "of constant tokens this would tell nothing"
    # The same draws of the same windows, as pixels and as tokens.
    latent_actions = np.zeros(store.num_frames, np.uint8)
    latent_actions[store.episode_starts[1:] - 1] = 255
    latent_actions[-1] = 255
    sampling = {"window": 4, "batch_size": 3, "seed": 5, "num_batches": 2}
    frames, cached = FrameWindows(store, **sampling), TokenWindows(tokens, latent_actions, **sampling)
    for step in range(2):
        encoded_BTN = torch.stack([tokenizer.encode(clip) for clip in frames[step]])
        assert torch.equal(encoded_BTN, cached[step]["tokens_BTN"])
