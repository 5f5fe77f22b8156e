"""Configs from parameters: what a config shares with a section of `params.yaml` is read from there, by name."""

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from genie.core.params import Strict


Config = TypeVar("Config")


def config_from(config_class: type[Config], params: "Strict", **more) -> Config:
    """A config whose fields are those of `params` with the same name, and `more`."""
    shared = params.model_dump(include={field.name for field in fields(config_class)})
    return config_class(**hashable(shared), **more)


def hashable(values: dict) -> dict:
    """The same values, lists as tuples: a frozen config holds no lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
