"""A playable world: `from genie.world import WorldModel` needs torch, and no part of the pipeline."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie.world.world_model import WorldError, WorldModel

__all__ = ["WorldError", "WorldModel"]


def __getattr__(name: str):
    # When asked for: else each module of this package would load all of them, and torch.
    if name in __all__:
        from genie.world import world_model

        return getattr(world_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
