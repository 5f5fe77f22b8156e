"""Writes the shards of all splits, by one or several processes; a killed run is gone on from."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from genie.data.shards import Shard
from genie.distributed.processes import num_processes, rank, wait_for_all
from genie.distributed.progress import progress


class SharingError(ValueError):
    """The shards cannot be shared out; the message names the key and the fix."""


def write_shards(
    folder: str | Path,
    shards: Sequence[Shard],
    unfinished: Path,
    *,
    is_finished: Callable[[Shard, Path], bool],
    write: Callable[[Shard, Path, tqdm], None],
    name: str,
) -> int:
    """Writes `folder/<split>/<shard>.h5`; process k of n writes every n-th shard from k on.

    Finished shards wait in another folder until all are there. Then the first process puts that in the place of
    `folder`; the others return.

    Args:
        folder: what was there is replaced once all are there.
        shards: of all splits.
        unfinished: where they wait; those found there are not written again. Its name must tell apart all that decides
            what they hold.
        is_finished: whether a file is there and is this shard, whole.
        write: writes one, whole or not at all, and counts its frames in the bar.
        name: of the bar.

    Returns:
        Frames of the shards that were missing.

    Raises:
        SharingError: there are more processes than shards; said before anything is written.
    """
    if num_processes() > len(shards):
        raise SharingError(
            f"runtime.processes: {num_processes()} processes cannot share {len(shards)} shards; lower it to "
            f"{len(shards)} or lower collect.shard_frames"
        )
    missing = [shard for shard in shards if not is_finished(shard, unfinished / shard.name)]
    own = shards[rank() :: num_processes()]
    with progress(name=name, total=_num_frames(own), unit="frame") as bar:
        bar.n = bar.initial = _num_frames(shard for shard in own if shard not in missing)
        bar.refresh()
        for shard in own:
            if shard in missing:
                write(shard, unfinished / shard.name, bar)
    wait_for_all()
    if rank() == 0:
        _move(unfinished, Path(folder), shards)
    return _num_frames(missing)


def _num_frames(shards) -> int:
    return sum(shard.num_frames for shard in shards)


def _move(unfinished: Path, folder: Path, shards: Sequence[Shard]) -> None:
    """All at once, so that a run killed meanwhile finds all shards where they waited or all where they belong."""
    whole = {unfinished / shard.name for shard in shards}
    for path in unfinished.rglob("*"):
        if path.is_file() and path not in whole:  # what a killed process has begun
            path.unlink()
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(unfinished, folder)  # copies where it is another file system
