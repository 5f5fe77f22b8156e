"""Checkpoints: `model.safetensors` and `config.json`, enough to rebuild the model alone."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from genie.models.config import hashable


class CheckpointError(ValueError):
    """A checkpoint folder is missing, damaged or of another model."""


def fingerprint(model: nn.Module) -> str:
    """A hash of config and weights: 16 hexadecimal digits that tie tokens to their tokenizer and latent actions to
    their LAM."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(folder: str | Path, model: nn.Module) -> str:
    """Writes a checkpoint, whole or not at all; returns its fingerprint."""
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, partial / "model.safetensors")
    content = {"model": model.kind, "fingerprint": fingerprint(model), "config": asdict(model.config)}
    (partial / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return content["fingerprint"]


def load_model(folder: str | Path, model_class: type, device: torch.device | str = "cpu") -> nn.Module:
    """Rebuilds the model of a checkpoint folder, in eval mode, with its `fingerprint` as an attribute.

    Args:
        folder: what `save_model` wrote.
        model_class: what it must be: `Tokenizer`, `LatentActionModel` or `Dynamics`.
        device: where to put it.

    Raises:
        CheckpointError: the folder is missing, damaged, or holds another model.
    """
    folder, kind = Path(folder), model_class.kind
    rebuild = f"rebuild it with: dvc repro train_{kind}"
    try:
        content = json.loads((folder / "config.json").read_text())
        if content["model"] != kind:
            raise CheckpointError(f"{folder}: holds a {content['model']}, not a {kind}")
        config = hashable(content["config"])
        model = model_class(model_class.config_class(**config))
        model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: no checkpoint here ({Path(error.filename).name} is missing); {rebuild}"
        ) from None
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: damaged or of another version ({str(error).splitlines()[0]}); {rebuild}"
        ) from None
    model.fingerprint = content["fingerprint"]
    if fingerprint(model) != model.fingerprint:
        raise CheckpointError(f"{folder}: weights do not fit their fingerprint; {rebuild}")
    return model.to(device).eval()
