import h5py
import numpy as np
import pytest

from genie.data.episodes import NO_ACTION
from genie.data.tokens import (
    CacheFileError,
    CacheMismatchError,
    cache_attributes,
    read_latent_actions,
    read_tokens,
    write_latent_actions,
    write_tokens,
)

TOKENS = np.random.default_rng(0).integers(0, 1024, (50, 256))
ACTIONS = np.where(np.arange(50) % 10 == 9, NO_ACTION, np.arange(50) % 8)


@pytest.fixture
def caches(tmp_path):
    chunks = np.array_split(TOKENS, 7)
    write_tokens(tmp_path / "t.h5", chunks, 50, fingerprint="abc", num_codes=1024, grid=(16, 16))
    write_latent_actions(tmp_path / "a.h5", iter([ACTIONS]), 50, fingerprint="def", num_actions=8)
    return tmp_path


def test_caches_give_back_what_was_written(caches):
    tokens = read_tokens(caches / "t.h5", "abc")
    actions = read_latent_actions(caches / "a.h5", "def")
    np.testing.assert_array_equal(tokens, TOKENS)
    np.testing.assert_array_equal(actions, ACTIONS)
    assert (tokens.dtype, actions.dtype) == (np.uint16, np.uint8)
    assert cache_attributes(caches / "t.h5") == {
        "tokenizer_fingerprint": "abc",
        "num_codes": 1024,
        "grid": [16, 16],
    }
    assert cache_attributes(caches / "a.h5") == {"lam_fingerprint": "def", "num_actions": 8}


def test_caches_are_mapped_read_only(caches):
    tokens = read_tokens(caches / "t.h5")
    assert isinstance(tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens[0, 0] = 1


@pytest.mark.parametrize(("read", "name"), [(read_tokens, "t.h5"), (read_latent_actions, "a.h5")])
def test_cache_of_another_model(read, name, caches):
    with pytest.raises(CacheMismatchError, match=r"(abc|def), but the model here is 123; run `dvc repro`"):
        read(caches / name, "123")


@pytest.mark.parametrize(("read", "name"), [(read_tokens, "a.h5"), (read_latent_actions, "t.h5")])
def test_cache_of_another_kind(read, name, caches):
    with pytest.raises(CacheFileError, match="not a cache of"):
        read(caches / name)


def test_missing_truncated_and_foreign_files(caches):
    (caches / "cut.h5").write_bytes((caches / "t.h5").read_bytes()[:-1000])
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
            read_tokens(caches / name)


def test_a_fault_while_writing_leaves_nothing(tmp_path):
    def broken():
        yield TOKENS[:10]
        raise RuntimeError("the encoder failed")

    with pytest.raises(RuntimeError, match="the encoder failed"):
        write_tokens(tmp_path / "t.h5", broken(), 50, fingerprint="abc", num_codes=1024, grid=(16, 16))
    assert not list(tmp_path.iterdir())


def test_a_cache_is_whole(tmp_path):
    with pytest.raises(AssertionError, match="10 of 50 frames"):
        write_latent_actions(tmp_path / "a.h5", [ACTIONS[:10]], 50, fingerprint="def", num_actions=8)
