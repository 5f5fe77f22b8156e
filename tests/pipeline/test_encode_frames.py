from pathlib import Path

import numpy as np
import pytest
import torch

from genie.data.caches import read_tokens
from genie.data.windows import FrameWindows, TokenWindows
from genie.models.checkpoint import fingerprint
from genie.models.tokenizer import build_tokenizer
from genie.pipeline import encode_frames as tokenizing
from genie.pipeline.encode_frames import tokenize


@pytest.fixture
def tokenizer(tiny_params, scrambled, accelerator):
    tokenizer = scrambled(build_tokenizer(tiny_params.tokenizer, 64))
    tokenizer.fingerprint = fingerprint(tokenizer)
    return tokenizer


def test_cached_tokens_are_those_encoded_on_the_fly(tokenizer, coinrun, accelerator, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "FRAMES_AT_ONCE", 150)  # 200 frames are not a whole number of batches
    store = coinrun["train"]
    tokenize(tokenizer, {"train": store}, tmp_path / "tokens", accelerator)
    tokens = read_tokens(tmp_path / "tokens/train", tokenizer.fingerprint)
    assert [len(shard) for shard in tokens.shards] == [file.num_frames for file in store.files] == [200] * 3
    assert len(np.unique(tokens[:])) > 20, "of constant tokens this would tell nothing"
    # The same random windows, as pixels and as tokens.
    latent_actions = np.zeros(store.num_frames, np.uint8)
    latent_actions[store.episode_starts[1:] - 1] = 255
    latent_actions[-1] = 255
    sampling = {"window": 4, "batch_size": 3, "seed": 5, "num_batches": 2}
    frames, cached = FrameWindows(store, **sampling), TokenWindows(tokens, latent_actions, **sampling)
    for step in range(2):
        encoded_BTN = torch.stack([tokenizer.encode(clip) for clip in frames[step]])
        assert torch.equal(encoded_BTN, cached[step]["tokens_BTN"])


@pytest.fixture
def begun(tokenizer, coinrun, accelerator, monkeypatch):
    """A tokenizer interrupted in the second of three shards by `tokenize`, and the call's other arguments."""
    encoded = []

    def encode(frames):
        if len(encoded) == 5:  # a shard is four batches
            raise KeyboardInterrupt
        encoded.append(len(frames))
        return type(tokenizer).encode(tokenizer, frames)

    given = {"train": coinrun["train"]}, "tokens", accelerator
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "encode", encode)
        with pytest.raises(KeyboardInterrupt):
            tokenize(tokenizer, *given)
    assert not Path("tokens").exists()
    return tokenizer, given


def written(folder):
    return [path.read_bytes() for path in sorted(Path(folder).rglob("*.h5"))]


def test_an_interrupted_call_is_gone_on_from_to_the_same_bytes(begun):
    tokenizer, given = begun
    [path] = Path(".cache/resume/tokenize").rglob("*.h5")
    first = path.stat().st_ino
    tokenize(tokenizer, *given)
    assert Path("tokens/train/00000.h5").stat().st_ino == first
    assert not list(Path(".cache/resume/tokenize").iterdir())
    tokenize(tokenizer, given[0], "whole", given[2])
    assert len(written("whole")) == 3
    assert written("tokens") == written("whole")


def test_a_damaged_shard_is_written_again(begun):
    tokenizer, given = begun
    [path] = Path(".cache/resume/tokenize").rglob("*.h5")
    path.write_bytes(path.read_bytes()[:-100])
    tokenize(tokenizer, *given)
    tokenize(tokenizer, given[0], "whole", given[2])
    assert written("tokens") == written("whole")


def test_what_another_tokenizer_or_precision_left_is_not_used(begun, scrambled):
    tokenizer, (stores, folder, accelerator) = begun
    [path] = Path(".cache/resume/tokenize").rglob("*.h5")
    accelerator.state._mixed_precision = "bf16"
    tokenize(tokenizer, stores, folder, accelerator)
    accelerator.state._mixed_precision = "no"
    scrambled(tokenizer).fingerprint = "of others"
    tokenize(tokenizer, stores, folder, accelerator)
    assert path.exists()
