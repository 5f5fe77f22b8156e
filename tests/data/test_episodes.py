import json
import os
import pickle
from itertools import pairwise
from shutil import copy, copytree

import h5py
import numpy as np
import pytest

from genie.core.actions import NO_ACTION, game_actions
from genie.core.frames import FRAME_SHAPE
from genie.data.episodes import BLOCK_FRAMES, MAX_BLOCKS, EpisodeFileError, EpisodeStore, EpisodeWriter
from genie.data.hdf5 import writing_hdf5
from genie.data.windows import read_windows, window_starts

NAMES = json.dumps([f"action {index}" for index in range(4)])


def write(path, lengths, num_frames, **attributes):
    rng = np.random.default_rng(0)
    attributes = {"split": "train", "shard": 0, "num_shards": 1, "action_names": NAMES, **attributes}
    episodes = [rng.integers(0, 256, (length, *FRAME_SHAPE), np.uint8) for length in lengths]
    with writing_hdf5(path) as file, EpisodeWriter(file, num_frames, "zstd", attributes) as writer:
        for i, frames in enumerate(episodes):
            pieces = np.split(frames, [i])
            writer.append([(piece, np.full(len(piece), i, np.uint8)) for piece in pieces], 100 + i)
        writer.finish()
    return np.concatenate(episodes)


@pytest.mark.parametrize(("lengths", "num_frames"), [([130, 1, 70, 3], 204), ([100, 50], 140), ([2, 5], 7)])
def test_what_is_appended_is_read(lengths, num_frames, tmp_path):
    written = write(tmp_path / "00000.h5", lengths, num_frames)
    store = EpisodeStore(tmp_path)
    np.testing.assert_array_equal(store.read(0, store.num_frames), written[:num_frames])
    np.testing.assert_array_equal(store.read(1, 6), written[1:6])
    kept = np.minimum(np.cumsum([0, *lengths]), num_frames)
    assert [(e.start, e.stop) for e in store.episode_slices()] == list(pairwise(kept))
    assert store.level_seeds.tolist() == [100 + i for i in range(len(lengths))]
    assert store.attributes["split"] == "train"
    for i, episode in enumerate(store.episode_slices()):
        assert store.actions()[episode].tolist() == [i] * (episode.stop - episode.start - 1) + [NO_ACTION]


def test_frames_after_the_last_are_dropped_with_their_episode(tmp_path):
    write(tmp_path / "00000.h5", [20, 10], 20)
    assert EpisodeStore(tmp_path).episode_starts.tolist() == [0]


def test_a_fault_of_the_thread_is_raised_soon_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(EpisodeWriter, "_write", full)

    def append_much():
        block = np.zeros((BLOCK_FRAMES, *FRAME_SHAPE), np.uint8), np.zeros(BLOCK_FRAMES)
        with writing_hdf5(tmp_path / "00000.h5") as file, EpisodeWriter(file, 10**6, "none", {}) as writer:
            for _ in range(MAX_BLOCKS):
                writer.append([block], 0)
        pytest.fail("nobody noticed")

    with pytest.raises(OSError, match="No space left"):
        append_much()
    assert not list(tmp_path.iterdir())


def test_frames_are_chunked_by_16(store):
    with h5py.File(store.files[0].path) as file:
        assert file["frames"].chunks == (16, *FRAME_SHAPE)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 10**6), (5, 4)])
def test_reading_is_bounded(start, stop, store):
    with pytest.raises(IndexError, match="asked of 600"):
        store.read(start, stop)


def test_store_can_be_pickled_and_forked(store):
    frames = store.read(0, 5)  # opens the file
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(0, 5), frames)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(store.read(0, 5), frames) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_missing_file(tmp_path):
    with pytest.raises(EpisodeFileError, match=r"no such file; .* `dvc repro -f collect`"):
        EpisodeStore(tmp_path / "train")


def test_truncated_file(store, tmp_path):
    whole = store.files[0].path.read_bytes()
    (tmp_path / "00000.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EpisodeFileError, match="truncated"):
        EpisodeStore(tmp_path)


def test_file_damaged_inside(store, tmp_path):
    path = copytree(store.path, tmp_path / "train") / "00001.h5"
    with h5py.File(path) as file:
        offset = file["frames"].id.get_chunk_info(3).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 64] = bytes(64)
    path.write_bytes(damaged)
    with pytest.raises(EpisodeFileError, match=r"00001\.h5: truncated"):
        EpisodeStore(tmp_path / "train").read(0, 600)


def test_foreign_files(tmp_path):
    (tmp_path / "00000.h5").write_text("no HDF5 at all")
    with pytest.raises(EpisodeFileError, match="not an episode file"):
        EpisodeStore(tmp_path)
    with h5py.File(tmp_path / "00000.h5", "w") as file:
        file["frames"] = np.zeros((3, 2))
    with pytest.raises(EpisodeFileError, match="not an episode file"):
        EpisodeStore(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("actions", np.zeros(5, np.uint8), "`actions` is uint8"),
        ("episode_starts", np.array([1, 5]), "does not ascend from 0"),
        ("level_seeds", np.zeros(2, np.float32), "`level_seeds` is float32"),
    ],
)
def test_inconsistent_datasets(name, value, message, tmp_path):
    write(tmp_path / "00000.h5", [20, 20], 40)
    with h5py.File(tmp_path / "00000.h5", "r+") as file:
        del file[name]
        file[name] = value
    with pytest.raises(EpisodeFileError, match=message):
        EpisodeStore(tmp_path)


def test_other_schema(tmp_path):
    write(tmp_path / "00000.h5", [20], 20)
    with h5py.File(tmp_path / "00000.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(EpisodeFileError, match="schema version 99"):
        EpisodeStore(tmp_path)


def test_shards_read_as_one_equal_their_files_in_a_row(store):
    assert [file.num_frames for file in store.files] == [200, 200, 200]
    frames = np.concatenate([file.read(0, 200) for file in store.files])
    np.testing.assert_array_equal(store.read(0, 600), frames)
    for start, stop in ((0, 200), (199, 201), (200, 200), (150, 450), (200, 401), (599, 600)):
        np.testing.assert_array_equal(store.read(start, stop), frames[start:stop])
    actions = np.concatenate([file.actions() for file in store.files])
    taken = actions != NO_ACTION
    actions[taken] = game_actions("coinrun").effective(actions[taken])
    np.testing.assert_array_equal(store.actions(), actions)
    starts = [file.episode_starts + 200 * index for index, file in enumerate(store.files)]
    np.testing.assert_array_equal(store.episode_starts, np.concatenate(starts))
    np.testing.assert_array_equal(store.level_seeds, np.concatenate([file.level_seeds for file in store.files]))
    assert [episode.start for episode in store.episode_slices()] == store.episode_starts.tolist()
    assert (store.actions()[[199, 399, 599]] == NO_ACTION).all(), "no episode goes on in another shard"


def test_windows_at_the_edges_of_shards(store):
    starts = window_starts(store.episode_starts, store.num_frames, 4)
    assert not {start + ahead for start in starts for ahead in (1, 2, 3)} & {200, 400}, "none crosses an edge"
    near = starts[(abs(starts - 200) < 20) | (abs(starts - 400) < 20)][::-1]
    frames = store.read(0, store.num_frames)
    np.testing.assert_array_equal(read_windows(store, near, 4), frames[near[:, None] + np.arange(4)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "00001.h5").unlink(), r"00001\.h5: no such file; .*`dvc repro -f collect`"),
        (lambda path: (path / "00002.h5").unlink(), r"00002\.h5: no such file"),
        (lambda path: copy(path / "00000.h5", path / "00001.h5"), r"00001\.h5: shard 0 of 3 in the place of 1 of 3"),
        (lambda path: copy(path / "00000.h5", path / "00003.h5"), r"00003\.h5: none of the 3 shards"),
        (lambda path: (path / "00001.h5").write_text("no HDF5"), r"00001\.h5: truncated or not an episode file"),
        (
            lambda path: write(path / "00001.h5", [5], 5, shard=1, num_shards=4),
            r"00001\.h5: shard 1 of 4 in the place of 1 of 3",
        ),
        (
            lambda path: write(path / "00001.h5", [5], 5, shard=1, num_shards=3),
            r"00001\.h5: `action_names` is .*, but None in 00000\.h5",
        ),
    ],
)
def test_a_set_that_is_not_whole(spoil, message, store, tmp_path):
    spoil(copytree(store.path, tmp_path / "train"))
    with pytest.raises(EpisodeFileError, match=message) as fault:
        EpisodeStore(tmp_path / "train")
    assert "\n" not in str(fault.value)


def test_files_are_opened_when_they_are_read(store):
    fresh = EpisodeStore(store.path)
    fresh.read(250, 260)
    assert [file._file is not None for file in fresh.files] == [False, True, False]
