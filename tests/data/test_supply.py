import numpy as np
import pytest
import torch

from genie.core.actions import NO_ACTION
from genie.core.frames import FRAME_SHAPE
from genie.data import supply, windows
from genie.data.supply import batches, fitting_place, keep_data
from genie.data.transitions import TransitionWindows
from genie.data.true_actions import LabelledFrameWindows
from genie.data.windows import FrameWindows, TokenWindows
from genie.models.motion_predictor import MotionPredictor, MotionPredictorConfig

CPU = torch.device("cpu")
DRAWN = {"batch_size": 4, "num_batches": 6}


@pytest.fixture(params=["frames", "labelled", "tokens", "transitions"])
def make_dataset(request, store):
    rng = np.random.default_rng(0)
    tokens = rng.integers(2**16, size=(store.num_frames, 256), dtype=np.uint16)
    actions = np.where(store.actions() == NO_ACTION, NO_ACTION, rng.integers(8, size=store.num_frames)).astype(np.uint8)

    def make(seed=0):
        if request.param == "frames":
            return FrameWindows(store, window=3, seed=seed, **DRAWN)
        if request.param == "labelled":
            return LabelledFrameWindows(store, window=3, seed=seed, **DRAWN)
        if request.param == "tokens":
            return TokenWindows(tokens, actions, window=3, seed=seed, **DRAWN)
        observer = MotionPredictor(MotionPredictorConfig(8, FRAME_SHAPE[:2]))
        return TransitionWindows(observer, store, seed=seed, labels={"actions_M": actions}, **DRAWN)

    return make


def parts(batch):
    return {"frames": batch} if torch.is_tensor(batch) else batch


def assert_same(batches, others):
    for batch, other in zip(map(parts, batches), map(parts, others), strict=True):
        assert batch.keys() == other.keys()
        for name, part in batch.items():
            assert part.dtype == other[name].dtype
            assert torch.equal(part, other[name])


def test_a_batch_depends_on_seed_and_step_alone(make_dataset):
    forwards, backwards, another = make_dataset(), make_dataset(), make_dataset(seed=1)
    there = [forwards[step] for step in range(6)]
    assert_same(there, reversed([backwards[step] for step in reversed(range(6))]))
    first, second, other = (torch.cat([x.flatten() for x in parts(b).values()]) for b in (*there[:2], another[0]))
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_datasets_end(make_dataset):
    assert len(make_dataset()) == 6
    with pytest.raises(IndexError):
        make_dataset()[6]


@pytest.mark.parametrize("place", ["auto", "device", "memory", "files"])
@pytest.mark.parametrize("rank", [None, 1])
def test_the_place_of_the_data_changes_nothing(make_dataset, place, rank, monkeypatch):
    plain, dataset = make_dataset(), make_dataset()
    if rank is not None:
        plain.take_share(rank, 2)
        dataset.take_share(rank, 2)
    monkeypatch.setattr(windows, "LOADED_FRAMES", 77)
    keep_data(dataset, CPU, place)
    assert_same(list(batches(dataset, CPU)), [plain[step] for step in range(6)])


def test_a_late_start_and_readers_change_nothing(make_dataset):
    dataset = make_dataset()
    assert_same(list(batches(dataset, CPU, 2, num_readers=2)), [dataset[step] for step in range(2, 6)])


@pytest.mark.parametrize("start", [0, 5, 6])
def test_batches_drawn_by_a_thread_are_the_same(make_dataset, start):
    """As for a GPU whose data are in the machine's memory; a meta device takes the place of the GPU."""
    plain, dataset = make_dataset(), make_dataset()
    dataset.hold()
    seen = []
    draw = type(dataset).__getitem__
    for batch in batches(dataset, torch.device("meta"), start):
        assert all(part.device.type == "meta" for part in parts(batch).values())
        seen.append(batch)
    assert len(seen) == 6 - start
    assert_same([draw(dataset, step) for step in range(start, 6)], [plain[step] for step in range(start, 6)])


def test_loading_leaves_the_global_random_state_alone(make_dataset):
    dataset = make_dataset()
    before = torch.get_rng_state()
    for _ in batches(dataset, CPU):
        pass
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("on_device", "in_memory", "processes", "place"),
    [
        (200, 200, 1, "device"),
        (199, 200, 1, "memory"),
        (199, 199, 1, "files"),
        (199, 399, 2, "files"),  # each process holds a copy
        (199, 400, 2, "memory"),
        (200, 0, 2, "device"),  # each process has a device of its own
    ],
)
def test_data_are_kept_where_they_leave_half_of_the_memory_free(monkeypatch, on_device, in_memory, processes, place):
    monkeypatch.setattr(supply, "free_bytes", lambda device: on_device if device.type == "cuda" else in_memory)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert fitting_place(100, torch.device("cuda")) == place
    assert fitting_place(100, CPU) == ("files" if in_memory < 200 * processes else "memory")


def test_the_memory_that_data_take_is_known_beforehand(make_dataset):
    dataset = make_dataset()
    dataset.hold()
    assert dataset.num_bytes == sum(column.nbytes for column in dataset._held.values())
