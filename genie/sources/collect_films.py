"""Samples films and writes the frames of every split.

Each film is first sampled into a file of its own. These files depend on one film each, so that a run that was
interrupted, or ended by one film, finds those of all others. Then scenes are chosen, divided among the splits and
written.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from genie.core.files import replacing_folder
from genie.core.motion import MOVING_SHARE
from genie.core.params import CollectParams
from genie.core.paths import project_root, resume_folder
from genie.data.episodes import EpisodeStore, EpisodeWriter
from genie.data.hdf5 import writing_hdf5
from genie.data.shards import SPLITS, Shard, share_of
from genie.distributed.claims import claim, release
from genie.distributed.processes import num_cores, num_processes, rank, wait_for_all
from genie.distributed.progress import progress
from genie.sources.collect import MAX_EPISODE_FRAMES, moving_fraction
from genie.sources.cuts import find_cuts
from genie.sources.film_splits import Episodes, split_films
from genie.sources.films import FILMS_FOLDER, FilmError, expected_frames, find_films, sidecar_path
from genie.sources.sampled_films import SampledFilm, sample_film, sampling_identity
from genie.sources.scenes import Scenes, find_scenes, pieces_of
from genie.sources.side_by_side import largest_first, run_side_by_side, workers_in_memory
from genie.sources.sidecars import action_names, check_sidecar, label, read_sidecar

PROCESS_BYTES = 500 * 10**6  # of a process that decodes: frames of the decoder, and blocks to be compressed


def collect_films(
    params: CollectParams,
    folder: str | Path,
    num_threads: int = 0,
    *,
    resume: bool = False,
    films: Path = FILMS_FOLDER,
) -> int:
    """Writes the frames of films as shards `folder/<split>/<shard>.h5`.

    All processes sample films, each in several workers; the first process then writes the shards.

    Args:
        folder: output folder; existing content is replaced.
        num_threads: threads that decode; 0 means one per core. The same films and params give the same bytes for any
            number of threads, workers and processes.
        resume: whether to keep the films that an interrupted call has sampled; required with several processes.
        films: folder of films and sidecars.

    Returns:
        Number of frames written.

    Raises:
        FilmError: there is no film, or one cannot be used, or there is too little for three splits. Films that are
            sampled are kept if `resume`.
        WorkerError: a worker was killed.
    """
    found = find_films(films)
    if not found:
        fix = "import some with `genie import PATH...`, or set collect.source to simulator"
        if project_root() != Path.cwd():  # an experiment in a copy of the project, which has only what git tracks
            fix = f"give `dvc exp run` the option `--copy-paths {films}/FILM` for each film"
        raise FilmError(f"{films}: no films in it; {fix}")
    sidecars = _read_sidecars(found)
    record = partial(_collect, params, Path(folder), num_threads or num_cores(), found, sidecars)
    if not resume:
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".collect-", dir=Path(folder).parent) as scratch:
            return record(Path(scratch))
    unfinished = resume_folder("collect", sampling_identity(params))
    claim(unfinished)
    num_frames = record(unfinished)
    if rank() == 0:
        shutil.rmtree(unfinished)
    release(unfinished)
    return num_frames


def film_metrics(folder: str | Path) -> dict[str, int | float]:
    """Metrics of frames from films: `frames`, `episodes`, `films` and `hours` of film over all splits, `cuts` between
    scenes, `short_share` and `still_share` (shares of the sampled frames that are left out: of short scenes, and where
    nothing moves), `bytes_per_frame` on disk, and of the test split `moving_fraction`, the share of its transitions
    that are moving: those in which more than the share `moving_share` of the pixels changed."""
    stores = {split: EpisodeStore(Path(folder) / split) for split in SPLITS}
    num_frames = sum(store.num_frames for store in stores.values())
    num_bytes = sum(file.path.stat().st_size for store in stores.values() for file in store.files)
    told = stores["test"].attributes
    return {
        "frames": num_frames,
        "episodes": sum(len(store.episode_starts) for store in stores.values()),
        "films": len(stores["test"].films),
        "hours": told["seconds"] / 3600,
        "cuts": told["num_cuts"],
        "short_share": told["num_short"] / told["num_sampled"],
        "still_share": told["num_still"] / told["num_sampled"],
        "bytes_per_frame": num_bytes / num_frames,
        "moving_fraction": moving_fraction(stores["test"]),
        "moving_share": stores["test"].moving_share,
    }


def _read_sidecars(films: Sequence[Path]) -> list[list[str]]:
    """Actions of each film; empty if not every film has a sidecar."""
    paths = [sidecar_path(film) for film in films]
    missing = [film.name for film, path in zip(films, paths, strict=True) if not path.is_file()]
    if missing:
        if len(missing) < len(films) and rank() == 0:
            print(
                f"{len(missing)} of {len(films)} films have no sidecar, such as {missing[0]}: true actions count as "
                "unknown",
                file=sys.stderr,
            )
        return []
    return [read_sidecar(path) for path in paths]


def _collect(
    params: CollectParams,
    folder: Path,
    num_threads: int,
    films: Sequence[Path],
    sidecars: list[list[str]],
    unfinished: Path,
) -> int:
    paths = [unfinished / f"{hashlib.sha256(film.name.encode()).hexdigest()[:16]}.h5" for film in films]
    jobs = list(zip(films, paths, strict=True))
    _sample_films(params, num_threads, jobs[rank() :: num_processes()])
    wait_for_all()
    if rank() > 0:
        return 0
    sampled = [SampledFilm(path) for path in paths]
    labels, names = _label(films, sidecars, sampled)
    scenes = [_scenes_of(params, film, own) for film, own in zip(films, sampled, strict=True)]
    splits = split_films([own.scenes for own in scenes], params.films.held_out, params.seed)
    most = min(MAX_EPISODE_FRAMES, params.shard_frames)
    episodes = {
        split: [(film, piece) for film, scene in own for piece in pieces_of(scene, most)]
        for split, own in splits.items()
    }
    attributes = _attributes(params, films, sampled, scenes, _moving_share(sampled, episodes["train"]))
    if names:
        attributes["action_names"] = json.dumps(names, ensure_ascii=False)
    return _write(params, folder, sampled, labels, episodes, attributes)


def _sample_films(params: CollectParams, num_threads: int, jobs: list[tuple[Path, Path]]) -> None:
    sizes = {film: expected_frames(film) for film, _ in jobs}
    num_workers = min(num_threads, len(jobs), workers_in_memory(PROCESS_BYTES))
    shares = [len(share_of(worker, num_workers, num_threads)) for worker in range(num_workers)]
    with progress(name="decode", total=sum(sizes.values()) or None, unit="frame") as bar:
        run_side_by_side(
            partial(sample_film, params),
            largest_first(jobs, lambda job: sizes[job[0]]),
            shares,
            bar.update,
            preload="genie.sources.sampled_films",
        )


def _label(
    films: Sequence[Path], sidecars: list[list[str]], sampled: Sequence[SampledFilm]
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Actions of each film's sampled frames, and the names of all actions; both empty if they are unknown."""
    for film, sidecar, own in zip(films, sidecars, sampled, strict=False):
        check_sidecar(sidecar_path(film), sidecar, film.name, own.num_film_frames)
    names = action_names(sidecars)
    return [label(sidecar, own.film_frames, names) for sidecar, own in zip(sidecars, sampled, strict=False)], names


def _scenes_of(params: CollectParams, film: Path, sampled: SampledFilm) -> Scenes:
    shortest, max_still = params.films.shortest_episode, params.films.max_still
    is_cut = find_cuts(sampled.distances)
    found = find_scenes(is_cut, sampled.is_still & ~is_cut, shortest=shortest, max_still=max_still)
    if not found.scenes:
        num_frames = len(is_cut)
        cause = "nothing moves in it" if sampled.is_still[1:].all() else f"no scene of it has {shortest} frames"
        print(f"{film}: {cause} ({num_frames} sampled): it is left out", file=sys.stderr)
    return found


def _moving_share(sampled: Sequence[SampledFilm], episodes: Episodes) -> float:
    """Share of the pixels that change where a transition counts as moving: the median over the transitions in which
    anything does, but no more than in CoinRun, whose picture scrolls."""
    # Where frames were left out after a frame, the one that followed it shows what the next one kept shows.
    changed = np.concatenate([sampled[film].changed[frames[:-1] + 1] for film, frames in episodes])
    visible = changed[changed > 0]
    return min(MOVING_SHARE, float(np.median(visible))) if len(visible) else MOVING_SHARE


def _attributes(
    params: CollectParams,
    films: Sequence[Path],
    sampled: Sequence[SampledFilm],
    scenes: Sequence[Scenes],
    moving_share: float,
) -> dict:
    """Attributes that all shards of all splits share, but for the split."""
    flat = {f"films.{key}": value if isinstance(value, int | float) else str(value) for key, value in params.films}
    return {
        "source": params.source,
        "frame_size": params.frame_size,
        **flat,
        "seed": params.seed,
        "shard_frames": params.shard_frames,
        "compression": params.compression,
        "films": json.dumps([film.name for film in films], ensure_ascii=False),
        "moving_share": moving_share,
        "seconds": sum(own.seconds for own in sampled),
        "num_sampled": sum(len(own.film_frames) for own in sampled),
        "num_cuts": sum(own.num_cuts for own in scenes),
        "num_still": sum(own.num_still for own in scenes),
        "num_short": sum(own.num_short for own in scenes),
    }


def _write(
    params: CollectParams,
    folder: Path,
    sampled: Sequence[SampledFilm],
    labels: Sequence[np.ndarray],
    splits: dict[str, Episodes],
    attributes: dict,
) -> int:
    total = sum(len(frames) for episodes in splits.values() for _, frames in episodes)
    with replacing_folder(folder) as temporary, progress(name="write", total=total, unit="frame") as bar:
        for split, episodes in splits.items():
            for shard, own in _shards(split, episodes, params.shard_frames):
                told = {"split": split, **shard.attributes, **attributes}
                with (
                    writing_hdf5(temporary / shard.name) as file,
                    EpisodeWriter(
                        file,
                        shard.num_frames,
                        params.compression,
                        told,
                        frame_shape=params.frame_shape,
                        has_actions=bool(labels),
                    ) as writer,
                ):
                    for film, frames in own:
                        writer.append([(sampled[film].read(frames), labels[film][frames] if labels else None)], film)
                        bar.update(len(frames))
                    writer.finish()
    return total


def _shards(split: str, episodes: Episodes, shard_frames: int) -> list[tuple[Shard, Episodes]]:
    """Fills shards one after the other, each with whole episodes of at most `shard_frames` frames together."""
    groups: list[Episodes] = []
    room = 0
    for film, frames in episodes:
        if len(frames) > room:
            groups.append([])
            room = shard_frames
        groups[-1].append((film, frames))
        room -= len(frames)
    return [
        (Shard(split, index, len(groups), sum(len(frames) for _, frames in group)), group)
        for index, group in enumerate(groups)
    ]
