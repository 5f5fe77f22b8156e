"""Checkpoints: `model.safetensors` and `config.json`, which suffice to rebuild a model."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, overload

import safetensors.torch
import torch
from torch import nn

from genie.core.files import replacing_folder
from genie.models.config import hashable

Model = TypeVar("Model", bound=nn.Module)

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Exceptions that reading a damaged checkpoint can raise.
DAMAGE = (
    json.JSONDecodeError,
    UnicodeDecodeError,
    KeyError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    safetensors.SafetensorError,
)


class CheckpointError(ValueError):
    """A checkpoint folder is missing, damaged or holds another model."""


def fingerprint(model: nn.Module) -> str:
    """Hash of config and weights: 16 hexadecimal digits that tie tokens to their tokenizer and latent actions to
    their LAM."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())  # pyright: ignore[reportArgumentType]
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(folder: str | Path, model: nn.Module) -> str:
    """Writes a checkpoint atomically; returns its fingerprint.

    Raises:
        OSError: it cannot be written; a previous checkpoint is kept.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = {"model": model.kind, "fingerprint": fingerprint(model), "config": asdict(model.config)}  # pyright: ignore[reportArgumentType]
    with replacing_folder(folder) as temporary:
        # Not `safetensors.torch.save_file`: on a full disk it does not raise an OSError.
        (temporary / WEIGHTS).write_bytes(safetensors.torch.save(state))
        (temporary / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
    return content["fingerprint"]


def save_untrained(folder: str | Path, model_class: Any, why: str) -> None:
    """Writes, atomically, that a stage trained no model, for `load_if_trained`."""
    with replacing_folder(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps({"model": model_class.kind, "untrained": why}, indent=2) + "\n")


def load_if_trained(folder: str | Path, model_class: type[Model], device: torch.device | str = "cpu") -> Model | None:
    """Same as `load_model`, but None if `save_untrained` wrote the folder."""
    with suppress(OSError, ValueError):
        if "untrained" in json.loads((Path(folder) / CONFIG).read_bytes()):
            return None
    return load_model(folder, model_class, device)


@overload
def load_model(folder: str | Path, model_class: type[Model], device: torch.device | str = "cpu") -> Model: ...
@overload
def load_model(folder: str | Path, model_class: UnionType, device: torch.device | str = "cpu") -> Any: ...
def load_model(folder: str | Path, model_class: Any, device: torch.device | str = "cpu") -> Any:
    """Rebuilds the model of a checkpoint folder, in eval mode, with its `fingerprint` as an attribute.

    Args:
        folder: folder written by `save_model`.
        model_class: expected class: `Tokenizer`, `ActionProbe`, `Dynamics`, or `LatentActionModel` for either kind.
        device: device of the model.

    Raises:
        CheckpointError: the folder is missing, damaged, or holds another model.
    """
    folder, kinds = Path(folder), {kind.kind: kind for kind in get_args(model_class) or (model_class,)}
    rebuild = f"rebuild it with: dvc repro {next(iter(kinds.values())).stage}"
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no checkpoint here ({name} is missing); {rebuild}")
    try:
        content = json.loads((folder / CONFIG).read_bytes())
        found, told = content["model"], content["fingerprint"]
        if found not in kinds:
            raise CheckpointError(f"{folder}: holds a {found}, not a {' or '.join(kinds)}; {rebuild}")
        model = kinds[found](kinds[found].config_class(**hashable(content["config"])))
        model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except DAMAGE as error:
        raise CheckpointError(
            f"{folder}: damaged or of another version ({str(error).splitlines()[0]}); {rebuild}"
        ) from None
    model.fingerprint = fingerprint(model)
    if model.fingerprint != told:
        raise CheckpointError(f"{folder}: weights do not fit their fingerprint; {rebuild}")
    return model.to(device).eval()
