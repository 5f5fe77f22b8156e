import threading

import numpy as np
import pytest
import torch

from genie.data.episodes import EpisodeFileError, EpisodeStore
from genie.data.read_ahead import one_ahead, read_ahead

SPANS = [(0, 64), (60, 61), (61, 61), (10, 250)]


def test_frames_are_those_of_the_store(coinrun):
    store = coinrun["val"]
    pieces = list(read_ahead(store.read, SPANS, torch.device("cpu")))
    assert len(pieces) == len(SPANS)
    for piece, span in zip(pieces, SPANS, strict=True):
        np.testing.assert_array_equal(piece.numpy(), store.read(*span))


def test_other_devices_get_them_from_a_thread(coinrun):
    threads = set()

    def read(start, stop):
        threads.add(threading.current_thread())
        return coinrun["val"].read(start, stop)

    pieces = list(read_ahead(read, SPANS, torch.device("meta")))
    assert [(len(piece), piece.device.type) for piece in pieces] == [(stop - start, "meta") for start, stop in SPANS]
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_one_item_is_made_ahead_and_no_more():
    made = [threading.Event() for _ in range(4)]

    def items():
        for number, event in enumerate(made):
            event.set()
            yield number

    for number in one_ahead(items()):
        if number < 3:
            assert made[number + 1].wait(60)
        assert not any(event.is_set() for event in made[number + 2 :])


def test_a_fault_of_the_thread_is_raised(coinrun, tmp_path):
    path = tmp_path / "val"
    path.mkdir()
    [shard] = [file.path for file in coinrun["val"].files[:1]]
    (path / shard.name).write_bytes(shard.read_bytes())
    store = EpisodeStore(path)
    (path / shard.name).write_bytes(shard.read_bytes()[:-5000])
    with pytest.raises(EpisodeFileError, match="truncated"):
        list(read_ahead(store.read, SPANS, torch.device("meta")))
