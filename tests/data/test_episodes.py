import os
import pickle
from itertools import pairwise

import h5py
import numpy as np
import pytest

from genie.data.episodes import (
    BLOCK_FRAMES,
    FRAME_SHAPE,
    MAX_BLOCKS,
    NO_ACTION,
    EpisodeFileError,
    EpisodeStore,
    EpisodeWriter,
)
from genie.data.files import writing_hdf5


def write(path, lengths, num_frames):
    rng = np.random.default_rng(0)
    episodes = [rng.integers(0, 256, (length, *FRAME_SHAPE), np.uint8) for length in lengths]
    with writing_hdf5(path) as file, EpisodeWriter(file, num_frames, "zstd", {"split": "train"}) as writer:
        for i, frames in enumerate(episodes):
            pieces = np.split(frames, [i])
            writer.append([(piece, np.full(len(piece), i, np.uint8)) for piece in pieces], 100 + i)
        writer.finish()
    return np.concatenate(episodes)


@pytest.mark.parametrize(("lengths", "num_frames"), [([130, 1, 70, 3], 204), ([100, 50], 140), ([2, 5], 7)])
def test_what_is_appended_is_read(lengths, num_frames, tmp_path):
    written = write(tmp_path / "a.h5", lengths, num_frames)
    store = EpisodeStore(tmp_path / "a.h5")
    np.testing.assert_array_equal(store.read(0, store.num_frames), written[:num_frames])
    np.testing.assert_array_equal(store.read(1, 6), written[1:6])
    kept = np.minimum(np.cumsum([0, *lengths]), num_frames)
    assert [(e.start, e.stop) for e in store.episode_slices()] == list(pairwise(kept))
    assert store.level_seeds.tolist() == [100 + i for i in range(len(lengths))]
    assert store.attributes["split"] == "train"
    for i, episode in enumerate(store.episode_slices()):
        assert store.actions()[episode].tolist() == [i] * (episode.stop - episode.start - 1) + [NO_ACTION]


def test_frames_after_the_last_are_dropped_with_their_episode(tmp_path):
    write(tmp_path / "a.h5", [20, 10], 20)
    assert EpisodeStore(tmp_path / "a.h5").episode_starts.tolist() == [0]


def test_a_fault_of_the_thread_is_raised_soon_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(EpisodeWriter, "_write", full)

    def append_much():
        block = np.zeros((BLOCK_FRAMES, *FRAME_SHAPE), np.uint8), np.zeros(BLOCK_FRAMES)
        with writing_hdf5(tmp_path / "a.h5") as file, EpisodeWriter(file, 10**6, "none", {}) as writer:
            for _ in range(MAX_BLOCKS):
                writer.append([block], 0)
        pytest.fail("nobody noticed")

    with pytest.raises(OSError, match="No space left"):
        append_much()
    assert not list(tmp_path.iterdir())


def test_frames_are_chunked_by_16(store):
    with h5py.File(store.path) as file:
        assert file["frames"].chunks == (16, *FRAME_SHAPE)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 10**6), (5, 4)])
def test_reading_is_bounded(start, stop, store):
    with pytest.raises(IndexError, match="asked of 600"):
        store.read(start, stop)


def test_store_can_be_pickled_and_forked(store):
    frames = store.read(0, 5)  # the file is open now
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(0, 5), frames)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(store.read(0, 5), frames) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_missing_file(tmp_path):
    with pytest.raises(EpisodeFileError, match=r"no such file; .* `dvc repro -f collect`"):
        EpisodeStore(tmp_path / "train.h5")


def test_truncated_file(store, tmp_path):
    whole = store.path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EpisodeFileError, match="truncated"):
        EpisodeStore(tmp_path / "cut.h5")


def test_file_damaged_inside(store, tmp_path):
    with h5py.File(store.path) as file:
        offset = file["frames"].id.get_chunk_info(3).byte_offset
    damaged = bytearray(store.path.read_bytes())
    damaged[offset : offset + 64] = bytes(64)
    (tmp_path / "a.h5").write_bytes(damaged)
    with pytest.raises(EpisodeFileError, match="truncated"):
        EpisodeStore(tmp_path / "a.h5").read(0, 600)


def test_foreign_files(store, tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["frames"] = np.zeros((3, 2))
    for name in ("text.h5", "other.h5"):
        with pytest.raises(EpisodeFileError, match="not an episode file"):
            EpisodeStore(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("actions", np.zeros(5, np.uint8), "`actions` is uint8"),
        ("episode_starts", np.array([1, 5]), "does not ascend from 0"),
        ("level_seeds", np.zeros(2, np.float32), "`level_seeds` is float32"),
    ],
)
def test_inconsistent_datasets(name, value, message, tmp_path):
    write(tmp_path / "a.h5", [20, 20], 40)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file[name]
        file[name] = value
    with pytest.raises(EpisodeFileError, match=message):
        EpisodeStore(tmp_path / "a.h5")


def test_other_schema(tmp_path):
    write(tmp_path / "a.h5", [20], 20)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(EpisodeFileError, match="schema version 99"):
        EpisodeStore(tmp_path / "a.h5")


def test_held_frames_are_those_of_the_file(tmp_path, monkeypatch):
    written = write(tmp_path / "a.h5", [30, 12], 42)
    store = EpisodeStore(tmp_path / "a.h5")
    monkeypatch.setattr("genie.data.episodes.HELD_BYTES", 41 * 64 * 64 * 3)
    assert not store.hold(), "there is no room"
    monkeypatch.setattr("genie.data.episodes.HELD_BYTES", 42 * 64 * 64 * 3)
    assert store.hold()
    (tmp_path / "a.h5").unlink()
    frames = store.read(5, 40)
    np.testing.assert_array_equal(frames, written[5:40])
    frames[:] = 0  # whoever changes what was read does not change what is held
    np.testing.assert_array_equal(store.read(5, 40), written[5:40])
    with pytest.raises(IndexError):
        store.read(40, 43)
