from shutil import copy

import h5py
import numpy as np
import pytest

from genie.core.actions import NO_ACTION
from genie.data.caches import (
    CacheFileError,
    CacheMismatchError,
    cache_attributes,
    read_latent_actions,
    read_token_shard,
    read_tokens,
    token_attributes,
    write_latent_actions,
    write_tokens,
)
from genie.data.shards import Shard, cut

TOKENS = np.random.default_rng(0).integers(0, 1024, (50, 256))
STARTS = [0, 16, 33, 50]  # of the shards, and the end of the last
KNOWN = {"fingerprint": "abc", "num_codes": 1024, "grid": (16, 16)}
ACTIONS = np.where(np.arange(50) % 10 == 9, NO_ACTION, np.arange(50) % 8)


@pytest.fixture
def caches(tmp_path):
    for shard in cut("t", 50, 20):
        chunks = np.array_split(TOKENS[STARTS[shard.index] : STARTS[shard.index + 1]], 7)
        write_tokens(tmp_path / shard.name, chunks, shard, **KNOWN)
    write_latent_actions(tmp_path / "a.h5", iter([ACTIONS]), 50, fingerprint="def", num_actions=8)
    return tmp_path


def test_caches_give_back_what_was_written(caches):
    tokens = read_tokens(caches / "t", "abc")
    actions = read_latent_actions(caches / "a.h5", "def")
    np.testing.assert_array_equal(tokens[:], TOKENS)
    np.testing.assert_array_equal(actions, ACTIONS)
    assert (tokens.dtype, actions.dtype) == (np.uint16, np.uint8)
    assert (tokens.shape, len(tokens)) == ((50, 256), 50)
    known = {"tokenizer_fingerprint": "abc", "num_codes": 1024, "grid": [16, 16]}
    assert token_attributes(caches / "t") == known
    assert cache_attributes(caches / "t/00001.h5") == {**known, "shard": 1, "num_shards": 3}
    assert cache_attributes(caches / "a.h5") == {"lam_fingerprint": "def", "num_actions": 8}


def test_caches_are_mapped_read_only(caches):
    for shard in read_tokens(caches / "t").shards:
        assert isinstance(shard, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            shard[0, 0] = 1


@pytest.mark.parametrize(
    "frames",
    [0, np.int64(33), slice(None), slice(10, 40, 3), slice(20, 20), np.array([49, 0, 16, 15]),
     np.array([[14, 15, 16, 17], [31, 32, 33, 34]]), np.empty((0, 3), int)],
)  # fmt: skip
def test_tokens_are_indexed_as_the_whole_would_be(frames, caches):
    tokens = read_tokens(caches / "t")[frames]
    assert tokens.dtype == np.uint16
    np.testing.assert_array_equal(tokens, TOKENS[frames])


@pytest.mark.parametrize("frames", [50, -1, np.array([3, 50])])
def test_tokens_end_where_frames_do(frames, caches):
    with pytest.raises(IndexError, match="asked of 50"):
        read_tokens(caches / "t")[frames]


@pytest.mark.parametrize(("read", "name"), [(read_tokens, "t"), (read_latent_actions, "a.h5")])
def test_cache_of_another_model(read, name, caches):
    with pytest.raises(CacheMismatchError, match=r"(abc|def), but the model here is 123; run `dvc repro`"):
        read(caches / name, "123")


@pytest.mark.parametrize(("read", "name"), [(read_token_shard, "a.h5"), (read_latent_actions, "t/00000.h5")])
def test_cache_of_another_kind(read, name, caches):
    with pytest.raises(CacheFileError, match="not a cache of"):
        read(caches / name)


def test_missing_truncated_and_foreign_files(caches):
    whole = (caches / "t/00001.h5").read_bytes()
    (caches / "cut.h5").write_bytes(whole[:-1000])
    (caches / "text.h5").write_text("no HDF5")
    with h5py.File(caches / "other.h5", "w") as file:
        file["x"] = 1
    for name, message in (
        ("none.h5", "no such file"),
        ("cut.h5", "truncated"),
        ("text.h5", "not HDF5"),
        ("other.h5", "not a cache of tokens"),
    ):
        with pytest.raises(CacheFileError, match=message):
            read_token_shard(caches / name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "00002.h5").unlink(), r"00002\.h5: no such file; run `dvc repro`"),
        (lambda path: copy(path / "00002.h5", path / "00001.h5"), r"00001\.h5: shard 2 of 3 in the place of 1 of 3"),
        (lambda path: copy(path / "00000.h5", path / "00003.h5"), r"00003\.h5: none of the 3 shards"),
        (
            lambda path: write_tokens(
                path / "00001.h5", [TOKENS[16:33]], Shard("t", 1, 3, 17), **{**KNOWN, "fingerprint": "xyz"}
            ),
            r"00001\.h5: `tokenizer_fingerprint` is xyz, but abc in 00000\.h5",
        ),
    ],
)
def test_a_set_that_is_not_whole(spoil, message, caches):
    spoil(caches / "t")
    with pytest.raises(CacheFileError, match=message):
        read_tokens(caches / "t")


def test_a_fault_while_writing_leaves_nothing(tmp_path):
    def broken():
        yield TOKENS[:10]
        raise RuntimeError("the encoder failed")

    with pytest.raises(RuntimeError, match="the encoder failed"):
        write_tokens(tmp_path / "t.h5", broken(), Shard("t", 0, 1, 50), **KNOWN)
    assert not list(tmp_path.iterdir())


def test_a_cache_is_whole(tmp_path):
    with pytest.raises(AssertionError, match="10 of 50 frames"):
        write_latent_actions(tmp_path / "a.h5", [ACTIONS[:10]], 50, fingerprint="def", num_actions=8)
