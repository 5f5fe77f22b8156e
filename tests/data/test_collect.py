import hashlib
from itertools import pairwise

import numpy as np
import pytest
from procgen import ProcgenGym3Env

from genie.data import collect as collect_module
from genie.data.collect import CollectError, Policy, collect, fresh_action_shares
from genie.data.episodes import NO_ACTION, SPLITS, EpisodeStore
from genie.data.motion import is_moving
from genie.data.simulator import NUM_ACTIONS, effective_action


def hashes(folder):
    return {split: hashlib.sha256((folder / f"{split}.h5").read_bytes()).hexdigest() for split in SPLITS}


def changed(params, **changes):
    return params.model_copy(update=changes)


def test_same_params_give_the_same_bytes_for_any_number_of_threads(collect_params, collected, tmp_path):
    assert collect(collect_params, tmp_path, num_threads=1) == collected[1]
    assert hashes(tmp_path) == hashes(collected[0])


def test_another_seed_gives_other_frames(collect_params, collected, tmp_path):
    collect(changed(collect_params, seed=1), tmp_path)
    frames = [EpisodeStore(folder / "val.h5").read(0, 100) for folder in (tmp_path, collected[0])]
    assert not np.array_equal(*frames)


def test_splits_hold_the_frames_asked_for_and_share_no_level(collect_params, collected):
    stores = {split: EpisodeStore(collected[0] / f"{split}.h5") for split in SPLITS}
    seen = {split: set(store.level_seeds.tolist()) for split, store in stores.items()}
    assert {split: store.num_frames for split, store in stores.items()} == dict(collect_params.frames)
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))
    for split, store in stores.items():
        first, count = store.attributes["start_level"], store.attributes["num_levels"]
        assert seen[split] <= set(range(first, first + count))


def test_attributes_hold_every_param(collect_params, collected):
    attributes = EpisodeStore(collected[0] / "test.h5").attributes
    for key, value in collect_params:
        for part, count in value if key in ("frames", "levels") else [(None, value)]:
            assert attributes[f"{key}.{part}" if part else key] == count
    assert attributes["split"] == "test"
    assert attributes["simulator"].startswith("procgen")


def test_metrics_agree_with_the_files(collected):
    folder, metrics = collected
    stores = [EpisodeStore(folder / f"{split}.h5") for split in SPLITS]
    moving = [
        is_moving(*stores[2].read(t, t + 2))
        for episode in stores[2].episode_slices()
        for t in range(episode.start, episode.stop - 1)
    ]
    assert metrics == {
        "frames": 830,
        "episodes": sum(len(store.episode_starts) for store in stores),
        "levels": sum(len(set(store.level_seeds)) for store in stores),
        "bytes_per_frame": sum((folder / f"{split}.h5").stat().st_size for split in SPLITS) / 830,
        "moving_fraction": np.mean(moving),
    }


def replayed_episodes(params, attributes):
    """The slow and obvious way: step the simulator by hand and keep whole lives in lists."""
    env = ProcgenGym3Env(
        num=params.num_envs,
        env_name=params.env_name,
        distribution_mode=params.distribution_mode,
        use_backgrounds=params.backgrounds,
        start_level=attributes["start_level"],
        num_levels=attributes["num_levels"],
        rand_seed=attributes["simulator_seed"],
        num_threads=0,
    )
    policy = Policy(params, attributes["policy_seed"])
    num_steps = -(-params.frames.train // params.num_envs)
    lives = [[] for _ in range(params.num_envs)]
    seeds = [info["level_seed"] for info in env.get_info()]
    done = []
    for step in range(num_steps):
        actions = policy()
        frames = env.observe()[1]["rgb"]
        for i, life in enumerate(lives):
            life.append((frames[i], actions[i]))
        if step == num_steps - 1:
            break
        died = np.zeros(params.num_envs, bool)
        for _ in range(params.action_repeat):
            env.act(actions)
            died |= env.observe()[2]
        for i in np.flatnonzero(died):
            done.append((seeds[i], lives[i]))
            lives[i] = []
        seeds = [info["level_seed"] for info in env.get_info()]
    return done + list(zip(seeds, lives, strict=True))


def test_file_equals_the_simulator_stepped_by_hand(collect_params, store):
    expected = replayed_episodes(collect_params, store.attributes)
    assert len(expected) > collect_params.num_envs, "no life ended, so the test would prove little"
    frames, actions = store.read(0, store.num_frames), store.actions()
    assert len(store.episode_starts) == len(expected)
    for episode, seed, (expected_seed, life) in zip(store.episode_slices(), store.level_seeds, expected, strict=True):
        assert seed == expected_seed
        np.testing.assert_array_equal(frames[episode], [frame for frame, _ in life])
        assert actions[episode].tolist() == [*(action for _, action in life[:-1]), NO_ACTION]


def test_long_lives_are_cut_and_memory_stays_bounded(collect_params, tmp_path, monkeypatch):
    monkeypatch.setattr(collect_module, "MAX_EPISODE_FRAMES", 10)
    collect(collect_params, tmp_path)
    store = EpisodeStore(tmp_path / "train.h5")
    assert max(episode.stop - episode.start for episode in store.episode_slices()) == 10
    assert np.flatnonzero(store.actions() == NO_ACTION).tolist() == [
        episode.stop - 1 for episode in store.episode_slices()
    ]


@pytest.mark.parametrize("compression", ["lzf", "gzip", "none"])
def test_every_compression_stores_the_same_frames(compression, collect_params, collected, tmp_path):
    collect(changed(collect_params, compression=compression), tmp_path)
    frames = [EpisodeStore(folder / "val.h5").read(0, 100) for folder in (tmp_path, collected[0])]
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize(
    "changes",
    [{"env_name": "starpilot"}, {"policy": "uniform"}, {"backgrounds": False}, {"action_repeat": 1}],
)
def test_other_worlds_can_be_collected(changes, collect_params, tmp_path):
    assert collect(changed(collect_params, **changes), tmp_path)["frames"] == 830


def test_uniform_draws_all_actions_alike(collect_params):
    policy = Policy(changed(collect_params, policy="uniform", num_envs=1000), seed=0)
    counts = np.bincount(np.concatenate([policy() for _ in range(30)]), minlength=NUM_ACTIONS)
    np.testing.assert_allclose(counts / counts.sum(), 1 / NUM_ACTIONS, atol=0.01)


def test_sticky_right_keeps_actions_and_leaves_no_effect_out(collect_params):
    policy = Policy(changed(collect_params, stickiness=0.5, num_envs=1000), seed=0)
    actions = np.stack([policy() for _ in range(30)])
    repeats = 0.5 + 0.5 * (fresh_action_shares("coinrun") ** 2).sum()
    assert np.mean([np.mean(a == b) for a, b in pairwise(actions)]) == pytest.approx(repeats, abs=0.02)
    effects = np.bincount(effective_action(actions.ravel()), minlength=6) / actions.size
    assert effects.min() > 0.05
    assert effects[[2, 5]].sum() > effects[[1, 4]].sum(), "leans right"


def test_other_games_get_every_action():
    shares = fresh_action_shares("starpilot")
    assert shares.min() > 0
    assert shares.sum() == pytest.approx(1)


def test_too_few_frames_for_the_environments(collect_params, tmp_path):
    with pytest.raises(CollectError, match=r"collect\.frames\.val: 100 frames .* lower collect\.num_envs"):
        collect(changed(collect_params, num_envs=64), tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_many_levels(collect_params, tmp_path):
    levels = collect_params.levels.model_copy(update={"train": 2**31})
    with pytest.raises(CollectError, match=r"collect\.levels: .* ask for fewer"):
        collect(changed(collect_params, levels=levels), tmp_path)


def test_interruption_leaves_the_file_that_was_there(collect_params, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    (tmp_path / "train.h5").write_text("the old one")
    monkeypatch.setattr(collect_module, "_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(collect_params, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.h5"]
    assert (tmp_path / "train.h5").read_text() == "the old one"
