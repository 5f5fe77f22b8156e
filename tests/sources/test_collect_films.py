import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from genie.core.actions import NO_ACTION
from genie.core.params import load_params
from genie.data.episodes import EpisodeStore
from genie.data.shards import SPLITS
from genie.sources import collect_films as module
from genie.sources.collect_films import collect_films, film_metrics
from genie.sources.film_frames import FrameScaler
from genie.sources.films import FilmError, decode
from tests.films import moving, still, write_film, write_pictures


def changed(params, **changes):
    return params.model_copy(update={"films": params.films.model_copy(update=changes)})


@pytest.fixture(scope="module")
def params():
    params = load_params().collect.model_copy(update={"source": "films", "shard_frames": 100})
    return changed(params, fps=10.0, shortest_episode=10)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Four films: of two scenes and a short one, of another rate, with a still stretch, and a folder of pictures."""
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "two scenes.mp4", [*moving(60, hue=0), *moving(60, hue=1), *moving(5, hue=2)])
    write_film(folder / "fast.mkv", moving(90, hue=3), rate=30)
    write_film(folder / "pause.webm", [*moving(30), *still(80), *moving(30)], codec="libvpx-vp9")
    write_pictures(folder / "pictures", moving(40, hue=4))
    return folder


@pytest.fixture(scope="module")
def collected(params, films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected") / "frames"
    collect_films(params, folder, num_threads=1, films=films)
    return folder


def hashes(folder):
    paths = sorted(folder.rglob("*.*"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def sidecar(folder, name, actions):
    rows = "".join(f"{frame},{action}\n" for frame, action in enumerate(actions))
    (folder / f"{name}.actions.csv").write_text(f"frame,action\n{rows}")


def stores_of(folder):
    return {split: EpisodeStore(folder / split) for split in SPLITS}


def test_the_same_bytes_in_several_workers(params, films, collected, tmp_path):
    assert collect_films(params, tmp_path / "frames", num_threads=3, films=films) > 0
    assert hashes(tmp_path / "frames") == hashes(collected)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_frames_are_those_of_the_films_in_order(params, films, collected):
    names = ["fast.mkv", "pause.webm", "pictures", "two scenes.mp4"]
    for store in stores_of(collected).values():
        assert list(store.films) == names
        for episode, film in zip(store.episode_slices(), store.level_seeds, strict=True):
            scaler = FrameScaler(params.films.crop, params.frame_size)
            shown = {scaler(frame).tobytes(): index for index, frame in enumerate(decode(films / names[film]))}
            frames = [shown[frame.tobytes()] for frame in store.read(episode.start, episode.stop)]
            assert min(np.diff(frames)) >= 0 or names[film] == "pause.webm"


def test_splits_share_no_film(collected):
    films = [set(store.level_seeds.tolist()) for store in stores_of(collected).values()]
    assert [len(own) for own in films] == [2, 1, 1]
    assert set.union(*films) == {0, 1, 2, 3}


def test_scenes_end_an_episode_and_stretches_are_left_out(films, collected):
    lengths = {}
    for store in stores_of(collected).values():
        for episode, film in zip(store.episode_slices(), store.level_seeds, strict=True):
            lengths.setdefault(store.films[film], []).append(episode.stop - episode.start)
    assert lengths["two scenes.mp4"] == [60, 60]
    assert lengths["fast.mkv"] == [30]
    assert lengths["pictures"] == [40]
    assert 100 <= sum(lengths["pause.webm"]) <= 125
    metrics = film_metrics(collected)
    total = 60 + 60 + 5 + 30 + 140 + 40
    assert metrics["frames"] == sum(map(sum, lengths.values()))
    assert metrics["cuts"] == 2
    assert metrics["films"] == 4
    assert metrics["hours"] == pytest.approx((12.5 + 3 + 14 + 4) / 3600, rel=0.01)
    assert metrics["short_share"] == pytest.approx(5 / total)
    assert metrics["still_share"] == pytest.approx((140 - sum(lengths["pause.webm"])) / total)
    assert 0 < metrics["moving_share"] <= 0.1
    assert 0 < metrics["moving_fraction"] <= 1


def test_shards_hold_whole_episodes(params, collected):
    store = EpisodeStore(collected / "train")
    assert len(store.files) > 1
    assert all(file.num_frames <= params.shard_frames for file in store.files)
    assert store.action_names == ()
    assert store.attributes["films.fps"] == 10
    assert store.attributes["source"] == "films"


def test_long_scenes_are_cut_and_lose_nothing(params, tmp_path):
    (tmp_path / "films").mkdir()
    write_film(tmp_path / "films/a.mp4", moving(700, height=16, width=16))
    whole = params.model_copy(update={"shard_frames": 65536})
    assert collect_films(whole, tmp_path / "frames", films=tmp_path / "films") == 700
    stores = stores_of(tmp_path / "frames")
    assert np.diff(stores["train"].episode_starts, append=560).tolist() == [186, 187, 187]
    assert [len(stores[split]) for split in ("val", "test")] == [70, 70]


@pytest.mark.parametrize("size", [96, 128])
def test_other_frame_sizes(size, params, tmp_path):
    (tmp_path / "films").mkdir()
    write_film(tmp_path / "films/a.mp4", moving(60))
    larger = params.model_copy(update={"frame_size": size})
    collect_films(larger, tmp_path / "frames", films=tmp_path / "films")
    assert EpisodeStore(tmp_path / "frames/train").frame_shape == (size, size, 3)


def test_true_actions_come_from_sidecars(params, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for index, name in enumerate(("b", "a", "c")):
        write_film(folder / f"{name}.mp4", moving(60 + index, hue=index), rate=20)
        sidecar(folder, name, [("up", "down")[frame // 6 % 2] for frame in range(60 + index)])
    collect_films(params, tmp_path / "frames", films=folder)
    for store in stores_of(tmp_path / "frames").values():
        assert store.action_names == ("up", "down")
        actions = store.actions()
        assert actions[-1] == NO_ACTION
        assert actions[:7].tolist() == [0, 0, 0, 1, 1, 1, 0]


def test_sidecars_of_some_films_are_no_true_actions(params, films, tmp_path, capsys):
    folder = shutil.copytree(films, tmp_path / "films")
    sidecar(folder, "fast", ["up"] * 90)
    collect_films(params, tmp_path / "frames", films=folder)
    assert EpisodeStore(tmp_path / "frames/train").action_names == ()
    assert "3 of 4 films have no sidecar, such as pause.webm: true actions count as unknown" in capsys.readouterr().err


def test_a_sidecar_that_disagrees_is_one_line(params, films, tmp_path):
    folder = shutil.copytree(films, tmp_path / "films")
    for name, count in (("fast", 90), ("pause", 140), ("pictures", 40), ("two scenes", 124)):
        sidecar(folder, name, ["up"] * count)
    with pytest.raises(FilmError, match=r"two scenes\.actions\.csv: 124 rows, but two scenes\.mp4 has 125 frames"):
        collect_films(params, tmp_path / "frames", films=folder)
    assert not (tmp_path / "frames").exists()


def test_no_films_say_how_to_get_some(params, tmp_path, monkeypatch):
    with pytest.raises(FilmError, match="no films in it; import some with `genie import PATH"):
        collect_films(params, tmp_path / "frames", films=tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(FilmError, match=r"--copy-paths .*/FILM` for each film"):
        collect_films(params, tmp_path / "frames", films=tmp_path)


@pytest.mark.parametrize(
    ("pictures", "message"), [(still(40), "nothing moves in it"), (moving(2), "no scene of it has 10 frames")]
)
def test_a_film_without_scenes_is_named_and_left_out(pictures, message, params, films, tmp_path, capsys):
    folder = shutil.copytree(films, tmp_path / "films")
    write_film(folder / "odd.mp4", pictures)
    collect_films(params, tmp_path / "frames", films=folder)
    assert f"odd.mp4: {message}" in capsys.readouterr().err
    for path in folder.iterdir():
        if path.name != "odd.mp4":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FilmError, match=r"^collect\.films: too little film"):
        collect_films(params, tmp_path / "alone", films=folder)
    assert not (tmp_path / "alone").exists()


def test_a_broken_film_is_named_and_those_sampled_are_kept(params, films, collected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    folder = shutil.copytree(films, tmp_path / "films")
    (folder / "zz.mp4").write_text("no film")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/old").write_text("the old one")
    with pytest.raises(FilmError, match=r"zz\.mp4: FFmpeg cannot read it"):
        collect_films(params, "frames", num_threads=1, resume=True, films=folder)
    assert [path.name for path in Path("frames").iterdir()] == ["old"]
    [kept] = Path(".cache/resume/collect").iterdir()
    inodes = {path.stat().st_ino for path in kept.glob("*.h5")}
    assert len(inodes) == 4

    (folder / "zz.mp4").unlink()
    monkeypatch.setattr("genie.sources.sampled_films._Sampler.blocks", None)  # nothing is decoded again
    collect_films(params, "frames", num_threads=1, resume=True, films=folder)
    assert hashes(Path("frames")) == hashes(collected)
    assert not kept.exists()


def test_a_film_with_other_bytes_is_sampled_anew(params, films, collected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    folder = shutil.copytree(films, tmp_path / "films")
    (folder / "fast.mkv").unlink()
    write_film(folder / "fast.mkv", moving(60, hue=1), rate=30)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect_films(params, "frames", num_threads=1, resume=True, films=folder)
    shutil.copy(films / "fast.mkv", folder / "fast.mkv")
    collect_films(params, "frames", num_threads=1, resume=True, films=folder)
    assert hashes(Path("frames")) == hashes(collected)


def interrupted(*_):
    raise KeyboardInterrupt


def test_attributes_name_every_film(collected):
    names = json.loads(EpisodeStore(collected / "val").attributes["films"])
    assert names == sorted(names)
