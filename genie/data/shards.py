"""Shards: the files that together hold a split; readers see them as one.

They are `<split>/00000.h5`, `<split>/00001.h5` and so on. Each stores its index and the number of shards as attributes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
# Attributes that differ between the shards of a set; all others are equal.
OWN_ATTRIBUTES = ("shard", "start_level", "num_levels", "simulator_seed", "policy_seed")


@dataclass(frozen=True)
class Shard:
    """One of the files of a split.

    Attributes:
        split: name of the split.
        index: index of the shard in its split, from 0.
        count: number of shards in the split.
        num_frames: number of frames in the shard.
    """

    split: str
    index: int
    count: int
    num_frames: int

    @property
    def name(self) -> str:
        """Path relative to the folder of all splits."""
        return f"{self.split}/{shard_file(self.index)}"

    @property
    def attributes(self) -> dict[str, int]:
        """Attributes that its file stores."""
        return {"shard": self.index, "num_shards": self.count}


def shard_file(index: int) -> str:
    """File name of a shard in the folder of its split."""
    return f"{index:05d}.h5"


def share_of(index: int, count: int, total: int) -> range:
    """Range of `total` items that belongs to shard `index` of `count`; sizes differ by at most one."""
    return range(total * index // count, total * (index + 1) // count)


def cut(split: str, num_frames: int, shard_frames: int) -> list[Shard]:
    """Divides a split of `num_frames` into the fewest shards, of near-equal size, of at most `shard_frames` each."""
    count = -(-num_frames // shard_frames)
    return [Shard(split, index, count, len(share_of(index, count, num_frames))) for index in range(count)]


def check_set(folder: Path, attributes: Sequence[Mapping], fault: Callable[[Path, str], Exception]) -> None:
    """Checks that shards form a complete and consistent set.

    Args:
        folder: folder of the split.
        attributes: attributes of each shard, in the order of their names.
        fault: makes the exception to raise from a file and a cause.
    """
    count, first = len(attributes), attributes[0]
    for index, own in enumerate(attributes):
        path = folder / shard_file(index)
        if (own["shard"], own["num_shards"]) != (index, count):
            raise fault(path, f"shard {own['shard']} of {own['num_shards']} in the place of {index} of {count}")
        for key in sorted((own.keys() | first.keys()) - set(OWN_ATTRIBUTES)):
            if own.get(key) != first.get(key):
                raise fault(path, f"`{key}` is {own.get(key)}, but {first.get(key)} in {shard_file(0)}")
    others = {path.name for path in folder.glob("*.h5")} - {shard_file(index) for index in range(count)}
    if others:
        raise fault(folder / min(others), f"none of the {count} shards of this split")
