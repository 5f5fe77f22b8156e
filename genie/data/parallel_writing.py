"""Writes the shards of all splits, in one or several processes; a killed run can be resumed."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from genie.data.shards import Shard
from genie.distributed.processes import num_processes, rank, wait_for_all
from genie.distributed.progress import progress


class SharingError(ValueError):
    """The shards cannot be distributed over the processes; the message names the key and the fix."""


def write_shards(
    folder: str | Path,
    shards: Sequence[Shard],
    unfinished: Path,
    *,
    is_finished: Callable[[Shard, Path], bool],
    write: Callable[[Mapping[Shard, Path], tqdm], None],
    name: str,
) -> int:
    """Writes `folder/<split>/<shard>.h5`; process k of n writes every n-th shard from k on.

    Finished shards are kept in `unfinished` until all are complete. The first process then replaces `folder` with it;
    the other processes return.

    Args:
        folder: destination; its previous content is replaced once all shards are complete.
        shards: shards of all splits.
        unfinished: folder of finished shards; those already there are not written again. Its name must identify
            everything that determines their content.
        is_finished: whether a file exists and is this shard, complete.
        write: writes shards, each atomically, and advances the progress bar by their frames.
        name: label of the progress bar.

    Returns:
        Number of frames of the shards that were missing.

    Raises:
        SharingError: there are more processes than shards; raised before anything is written.
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
        write({shard: unfinished / shard.name for shard in own if shard in missing}, bar)
    wait_for_all()
    if rank() == 0:
        _move(unfinished, Path(folder), shards)
    return _num_frames(missing)


def _num_frames(shards) -> int:
    return sum(shard.num_frames for shard in shards)


def _move(unfinished: Path, folder: Path, shards: Sequence[Shard]) -> None:
    """Moves all shards at once, so that a run killed meanwhile finds them all in `unfinished` or all in `folder`."""
    whole = {unfinished / shard.name for shard in shards}
    for path in unfinished.rglob("*"):
        if path.is_file() and path not in whole:  # left incomplete by a killed process
            path.unlink()
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(unfinished, folder)  # copies if the destination is on another file system
