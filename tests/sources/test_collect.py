import fcntl
import hashlib
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from genie.core.actions import NO_ACTION, NUM_ACTIONS, game_actions
from genie.core.motion import is_moving
from genie.data.episodes import EpisodeStore
from genie.data.parallel_writing import SharingError
from genie.data.shards import SPLITS
from genie.sources import collect as collect_module
from genie.sources.collect import CollectError, collect, collect_metrics
from genie.sources.engines import open_engine
from genie.sources.levels import shards_of
from genie.sources.policies import Policy, fresh_action_shares


@pytest.fixture
def store(collected):
    return EpisodeStore(collected / "train")


def hashes(folder):
    paths = sorted(folder.rglob("*.*"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def changed(params, **changes):
    return params.model_copy(update=changes)


def test_same_params_give_the_same_bytes_for_any_number_of_threads(collect_params, collected, tmp_path):
    collect(collect_params, tmp_path / "frames", num_threads=1)
    assert hashes(tmp_path / "frames") == hashes(collected)
    assert len(hashes(collected)) == 5, "three shards and two"


def test_another_seed_gives_other_frames(collect_params, collected, tmp_path):
    collect(changed(collect_params, seed=1), tmp_path / "frames")
    frames = [EpisodeStore(folder / "val").read(0, 100) for folder in (tmp_path / "frames", collected)]
    assert not np.array_equal(*frames)


def test_splits_hold_the_frames_asked_for_and_share_no_level(collect_params, collected):
    stores = {split: EpisodeStore(collected / split) for split in SPLITS}
    seen = {split: set(store.level_seeds.tolist()) for split, store in stores.items()}
    assert {split: store.num_frames for split, store in stores.items()} == dict(collect_params.frames)
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))


def test_shards_play_levels_of_their_own_which_are_all_of_their_split(collect_params, collected):
    stop = 0
    for split in SPLITS:
        start = stop
        for file in EpisodeStore(collected / split).files:
            first, count = file.attributes["start_level"], file.attributes["num_levels"]
            assert first == stop
            assert set(file.level_seeds.tolist()) <= set(range(first, first + count))
            stop = first + count
        assert stop - start == getattr(collect_params.levels, split)


def test_shards_are_seeded_apart(collected):
    files = [file for split in SPLITS for file in EpisodeStore(collected / split).files]
    for key in ("simulator_seed", "policy_seed"):
        assert len({file.attributes[key] for file in files}) == len(files)


def test_attributes_hold_every_param(collect_params, collected):
    attributes = EpisodeStore(collected / "test").attributes
    for key, value in collect_params:
        if key in ("source", "frame_size", "films"):  # of no effect on what a simulator draws
            continue
        for part, count in value if key in ("frames", "levels") else [(None, value)]:
            assert attributes[f"{key}.{part}" if part else key] == count
    assert attributes["split"] == "test"
    assert attributes["simulator"].startswith("procgen")


def test_metrics_agree_with_the_files(collected):
    stores = [EpisodeStore(collected / split) for split in SPLITS]
    moving = [
        is_moving(*stores[2].read(t, t + 2))
        for episode in stores[2].episode_slices()
        for t in range(episode.start, episode.stop - 1)
    ]
    assert collect_metrics(collected) == {
        "frames": 830,
        "episodes": sum(len(store.episode_starts) for store in stores),
        "levels": sum(len(set(store.level_seeds)) for store in stores),
        "bytes_per_frame": sum(path.stat().st_size for path in collected.rglob("*.h5")) / 830,
        "moving_fraction": np.mean(moving),
    }


def replayed_episodes(params, attributes, num_frames):
    """Slow reference: steps the simulator by hand and keeps whole lives in lists."""
    engine = open_engine(
        params.num_envs,
        num_threads=0,
        env_name=params.env_name,
        distribution_mode=params.distribution_mode,
        use_backgrounds=params.backgrounds,
        start_level=attributes["start_level"],
        num_levels=attributes["num_levels"],
        rand_seed=attributes["simulator_seed"],
    )
    policy = Policy(params, attributes["policy_seed"])
    num_steps = -(-num_frames // params.num_envs)
    lives = [[] for _ in range(params.num_envs)]
    done, frames = [], engine.observe()[0].copy()
    seeds = engine.level_seeds()
    for step in range(num_steps):
        actions = policy()
        for i, life in enumerate(lives):
            life.append((frames[i], actions[i]))
        if step == num_steps - 1:
            break
        died = np.zeros(params.num_envs, bool)
        for _ in range(params.action_repeat):
            engine.act(actions.astype(np.int32))
            frames, is_first = engine.observe()
            died |= is_first
        frames = frames.copy()
        for i in np.flatnonzero(died):
            done.append((seeds[i], lives[i]))
            lives[i] = []
        seeds = engine.level_seeds()
    return done + list(zip(seeds, lives, strict=True))


@pytest.mark.parametrize("shard", [0, 2])
def test_a_shard_equals_the_simulator_stepped_by_hand(shard, collect_params, store):
    file = store.files[shard]
    expected = replayed_episodes(collect_params, file.attributes, file.num_frames)
    assert len(expected) > collect_params.num_envs, "no life ended, so the test would prove little"
    frames, actions = file.read(0, file.num_frames), file.actions()
    assert len(file.episode_starts) == len(expected)
    stops = [*file.episode_starts[1:], file.num_frames]
    recorded = zip(file.episode_starts, stops, file.level_seeds, expected, strict=True)
    for start, stop, seed, (life_seed, life) in recorded:
        assert seed == life_seed
        np.testing.assert_array_equal(frames[start:stop], [frame for frame, _ in life])
        assert actions[start:stop].tolist() == [*(action for _, action in life[:-1]), NO_ACTION]


def test_long_lives_are_cut_and_memory_stays_bounded(collect_params, tmp_path, monkeypatch):
    monkeypatch.setattr(collect_module, "MAX_EPISODE_FRAMES", 10)
    collect(collect_params, tmp_path / "frames")
    store = EpisodeStore(tmp_path / "frames/train")
    assert max(episode.stop - episode.start for episode in store.episode_slices()) == 10
    assert np.flatnonzero(store.actions() == NO_ACTION).tolist() == [
        episode.stop - 1 for episode in store.episode_slices()
    ]


@pytest.mark.parametrize("compression", ["lzf", "gzip", "none"])
def test_every_compression_stores_the_same_frames(compression, collect_params, collected, tmp_path):
    collect(changed(collect_params, compression=compression), tmp_path / "frames")
    frames = [EpisodeStore(folder / "val").read(0, 100) for folder in (tmp_path / "frames", collected)]
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize(
    "changes",
    [{"env_name": "starpilot"}, {"policy": "uniform"}, {"backgrounds": False}, {"action_repeat": 1}],
)
def test_other_worlds_can_be_collected(changes, collect_params, tmp_path):
    assert collect(changed(collect_params, **changes), tmp_path / "frames") == 830


def test_uniform_draws_all_actions_alike(collect_params):
    policy = Policy(changed(collect_params, policy="uniform", num_envs=1000), seed=0)
    counts = np.bincount(np.concatenate([policy() for _ in range(30)]), minlength=NUM_ACTIONS)
    np.testing.assert_allclose(counts / counts.sum(), 1 / NUM_ACTIONS, atol=0.01)


def test_sticky_right_keeps_actions_and_leaves_no_effect_out(collect_params):
    policy = Policy(changed(collect_params, stickiness=0.5, num_envs=1000), seed=0)
    actions = np.stack([policy() for _ in range(30)])
    repeats = 0.5 + 0.5 * (fresh_action_shares("coinrun") ** 2).sum()
    assert np.mean([np.mean(a == b) for a, b in pairwise(actions)]) == pytest.approx(repeats, abs=0.02)
    effects = np.bincount(game_actions("coinrun").effective(actions.ravel()), minlength=6) / actions.size
    assert effects.min() > 0.05
    assert effects[[2, 5]].sum() > effects[[1, 4]].sum(), "leans right"


def test_other_games_get_every_action():
    shares = fresh_action_shares("starpilot")
    assert shares.min() > 0
    assert shares.sum() == pytest.approx(1)


def test_too_few_frames_for_the_environments(collect_params, tmp_path):
    with pytest.raises(CollectError, match=r"collect\.frames\.val: 100 frames .* lower collect\.num_envs"):
        collect(changed(collect_params, num_envs=64), tmp_path / "frames")
    assert not list(tmp_path.iterdir())


def test_too_many_levels(collect_params, tmp_path):
    levels = collect_params.levels.model_copy(update={"train": 2**31})
    with pytest.raises(CollectError, match=r"collect\.levels: .* ask for fewer"):
        collect(changed(collect_params, levels=levels), tmp_path / "frames")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_frames": 12}, r"collect\.shard_frames: 12 .* 12 frames, .* at least 32 or lower collect\.num_envs"),
        ({"shard_frames": 16}, r"collect\.shard_frames: 16 .* a shard of train 15 frames"),
        ({"shard_frames": 20}, r"collect\.levels\.train: 20 levels are too few for 30 shards, .* at least 30 or raise"),
    ],
)
def test_shards_too_small(changes, message, collect_params, tmp_path):
    with pytest.raises(CollectError, match=message):
        collect(changed(collect_params, **changes), tmp_path / "frames")
    assert not list(tmp_path.iterdir())


def test_the_least_that_is_asked_for_does(collect_params):
    for num_frames in range(16, 200):
        frames = collect_params.frames.model_copy(update={"train": num_frames, "val": 16, "test": 16})
        shards = shards_of(changed(collect_params, frames=frames, shard_frames=4 * collect_params.num_envs), "train")
        assert min(shard.num_frames for shard in shards) >= 2 * collect_params.num_envs
        assert sum(shard.num_frames for shard in shards) == num_frames


def interrupted(*_):
    raise KeyboardInterrupt


def test_interruption_leaves_what_was_there(collect_params, tmp_path, monkeypatch):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/old").write_text("the old one")
    monkeypatch.setattr(collect_module, "_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(collect_params, tmp_path / "frames")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["frames", "frames/old"]


@pytest.fixture
def begun(collect_params, tmp_path, monkeypatch):
    """Folder of the two shards that an interrupted `collect` finished, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    recording = iter([collect_module._record] * 2 + [interrupted])
    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "_record", lambda *args: next(recording)(*args))
        with pytest.raises(KeyboardInterrupt):
            collect(collect_params, "data/frames", resume=True)
    [folder] = tmp_path.glob(".cache/resume/collect/*")
    assert [path.name for path in sorted(folder.rglob("*.h5"))] == ["00000.h5", "00001.h5"]
    return folder


def test_an_interrupted_collect_goes_on_to_the_same_bytes(begun, collect_params, collected, capfd):
    kept = [(begun / f"train/0000{i}.h5").stat().st_ino for i in range(2)]
    (begun / "train/.00002.h5.1.tmp").write_text("what a killed process left")
    assert collect(collect_params, "data/frames", resume=True) == 830 - 400
    assert hashes(Path("data/frames")) == hashes(collected)
    assert [Path(f"data/frames/train/0000{i}.h5").stat().st_ino for i in range(2)] == kept
    assert not begun.exists()
    assert "400/830" in capfd.readouterr().err.replace(" ", ""), "the bar starts at what is there"


def test_a_damaged_shard_is_recorded_again(begun, collect_params, collected):
    path = begun / "train/00000.h5"
    path.write_bytes(path.read_bytes()[:-100])
    (begun / "train/00001.h5").write_bytes((collected / "train/00002.h5").read_bytes())
    assert collect(collect_params, "data/frames", resume=True) == 830
    assert hashes(Path("data/frames")) == hashes(collected)


def test_what_other_params_left_is_not_used(begun, collect_params):
    assert collect(changed(collect_params, seed=1), "data/frames", resume=True) == 830
    assert len(list(begun.rglob("*.h5"))) == 2


def test_more_processes_than_shards_is_one_line(collect_params, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "6")
    with pytest.raises(SharingError, match=r"^runtime\.processes: 6 .* 5 shards; .* lower collect\.shard_frames$"):
        collect(collect_params, tmp_path / "frames")
    assert not list(tmp_path.iterdir())


def test_a_shard_that_another_program_has_locked_is_not_recorded_anew(collect_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with monkeypatch.context() as stopped:
        stopped.setattr("genie.data.parallel_writing._move", lambda *_: None)  # all is recorded, but not moved
        collect(collect_params, tmp_path / "frames", resume=True)
    shards = sorted((tmp_path / ".cache").rglob("*.h5"))
    with ExitStack() as stack:
        for shard in shards:
            fcntl.flock(stack.enter_context(shard.open()), fcntl.LOCK_EX)
        assert collect(collect_params, tmp_path / "frames", resume=True) == 0
    assert len(hashes(tmp_path / "frames")) == len(shards) == 5
