"""Model configs built from a section of `params.yaml`, whose values are matched to fields by name."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from genie.core.params import Strict


Config = TypeVar("Config")


def config_from(config_class: type[Config], params: "Strict", **more: Any) -> Config:
    """Builds a config from the values of `params` that match its fields by name, and from `more`."""
    shared = params.model_dump(include={field.name for field in fields(config_class)})  # pyright: ignore[reportArgumentType]
    return config_class(**hashable(shared), **more)


def hashable(values: dict) -> dict:
    """Converts lists to tuples, since a frozen config holds no lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
