"""Computes the tokens of every frame once, since training reads them repeatedly."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from tqdm import tqdm

from genie.core.paths import resume_folder
from genie.data.caches import CacheFileError, cache_attributes, read_token_shard, write_tokens
from genie.data.episodes import EpisodeFile, EpisodeStore
from genie.data.parallel_writing import write_shards
from genie.data.read_ahead import read_ahead
from genie.data.shards import Shard
from genie.distributed.claims import claim, release
from genie.models.chunks import rows_at_once
from genie.models.tokenizer import Tokenizer

FRAMES_AT_ONCE = 64  # on a CPU: small enough to stay in its cache


def tokenize(
    tokenizer: Tokenizer, stores: Mapping[str, EpisodeStore], folder: str | Path, accelerator: Accelerator
) -> None:
    """Writes the tokens of every split, one file per shard of frames; several processes share the shards.

    An interrupted call is resumed.

    Args:
        tokenizer: the tokenizer, on the accelerator's device.
        stores: the frames of each split.
        folder: output folder; its previous contents are replaced.
        accelerator: its device and precision also determine the result.

    Raises:
        SharingError: if there are more processes than shards; raised before any work.
    """
    files = {
        Shard(split, index, len(store.files), file.num_frames): file
        for split, store in stores.items()
        for index, file in enumerate(store.files)
    }
    known = {"fingerprint": tokenizer.fingerprint, "num_codes": tokenizer.num_codes, "grid": tokenizer.grid}

    def write(paths: Mapping[Shard, Path], bar: tqdm) -> None:
        with accelerator.autocast():
            for shard, path in paths.items():
                write_tokens(path, tokens_of(tokenizer, files[shard], bar), shard, **known)

    def is_finished(shard: Shard, path: Path) -> bool:
        try:
            tokens, attributes = read_token_shard(path, tokenizer.fingerprint), cache_attributes(path)
        except CacheFileError:
            return False
        return len(tokens) == shard.num_frames and attributes.items() >= shard.attributes.items()

    identity = {
        "tokenizer": tokenizer.fingerprint,
        "frames": {split: store.attributes for split, store in stores.items()},
        "device": accelerator.device.type,
        "precision": accelerator.mixed_precision,
    }
    unfinished = resume_folder("tokenize", identity)
    claim(unfinished)
    write_shards(folder, list(files), unfinished, is_finished=is_finished, write=write, name="tokenize")
    release(unfinished)


def tokens_of(tokenizer: Tokenizer, file: EpisodeFile, bar: tqdm) -> Iterator[np.ndarray]:
    """Yields the tokens of a shard in order, `(M, N)` uint16 of M frames at a time."""
    device = next(tokenizer.parameters()).device
    size = rows_at_once(device, FRAMES_AT_ONCE)
    spans = [(start, min(start + size, file.num_frames)) for start in range(0, file.num_frames, size)]
    for frames in read_ahead(file.read, spans, device):
        yield tokenizer.encode(frames).cpu().numpy().astype(np.uint16)
        bar.update(len(frames))
