"""Pretrained worlds: one flat folder per world, in the layout of models on the Hugging Face hub.

    model.safetensors   weights of tokenizer, dynamics and steering, in half precision
    config.json         their configs, the sampling, the buttons, and the fingerprints of the checkpoints
    README.md           the model card
    prompts.npz         prompts, optional

Loading never unpickles anything.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from huggingface_hub import snapshot_download

from genie.models.checkpoint import CONFIG, DAMAGE, WEIGHTS, fingerprint
from genie.models.config import hashable
from genie.models.dynamics import Dynamics
from genie.models.steering import Steering
from genie.models.tokenizer import Tokenizer
from genie.world.controls import Button, buttons_from_json, buttons_to_json
from genie.world.maskgit import Sampling

CARD, PROMPTS = "README.md", "prompts.npz"
VERSION = 2  # of the folder's format
SHIPPED = Path(__file__).parent / "shipped" / "coinrun"
# Not bfloat16: no weight needs its range, and its eight times coarser precision changes frames that float16 does not.
HALF = torch.float16

CARD_TEMPLATE = """---
{{ card_data }}
---

# A world to play

Press one of {{ world.num_actions }} buttons, and a model draws what comes next.
It was learned from video alone by mini-genie, an implementation of [Genie]({{ paper_url }}) at the size of two cores.
Nobody told it what its buttons do.
{%- if world.buttons[0].names %} What they came to do was counted afterwards, on video that it was not trained on:
{%- elif world.buttons | selectattr("motion") | list %} The mean motion under each was measured afterwards, on video
that it was not trained on, in pixels of a frame 64 wide:
{%- else %} `genie play` shows each of them by what it makes of a frame.
{%- endif %}
{% if world.buttons | selectattr("title") | list %}
| button | does |
| ---: | --- |
{% for button in world.buttons -%}
| {{ loop.index0 }} | {{ button.title }} |
{% endfor %}
{% endif -%}
{% if world.action_names -%}
Which of them an arrow presses, in which state, was learnt afterwards too, from recorded play.
{% endif %}
## Play

```python
from genie.world import WorldModel

world = WorldModel.from_pretrained("this folder, or its name on the hub")
frame_HWC = world.reset(frames_THWC)  # uint8, {{ world.frame_shape[:2] | join("x") }}, RGB; `world.prompts` holds some
frame_HWC = world.step({{ world.num_actions - 1 }})  # a button
{% if world.action_names -%}
frame_HWC = world.step(world.steer(0))  # "{{ world.action_names[0] }}"; `world.action_names` lists the arrows
{% endif -%}
```

or in a browser: `genie play --world FOLDER`.

## Made

{% if made -%}
{{ made }}
{% endif -%}
Checkpoints: tokenizer `{{ tokenizer }}`, dynamics `{{ dynamics }}`.
The weights are kept in half precision and computed with in single.
{%- if halving_cost is defined %}
That visibly changes {{ "%.3f" | format(100 * halving_cost) }}% of the pixels of a first frame dreamed at temperature 0.
{%- endif %}

The dynamics sees {{ world.context_frames }} frames of the past: what leaves the view is forgotten.
{%- if metrics %}

## Measured

On held-out video, in full precision. PSNR is in dB; docs/results.md of mini-genie explains each baseline.

{{ metrics }}
{%- endif %}
"""


class PretrainedError(ValueError):
    """A world is missing or damaged; the message names the cause and the fix."""


def find_world(world: str | Path | None = None, **download) -> Path:
    """Finds the folder of a world, and downloads the world if necessary.

    Args:
        world: its folder, or its name on the hub (`owner/name`), to be downloaded; None: the shipped world.
        download: further options of `huggingface_hub.snapshot_download`: `revision`, `cache_dir`, `token`, ...

    Raises:
        PretrainedError: the world does not exist.
    """
    if world is None:
        if not SHIPPED.is_dir():
            raise PretrainedError(
                f"no world is shipped with this copy ({SHIPPED} is missing); make one: "
                "`make repro`, then `genie export`, and name its folder"
            )
        return SHIPPED
    if Path(world).is_dir():
        return Path(world)
    if isinstance(world, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", world):
        raise PretrainedError(f"{world}: no such folder; `genie export --out {world}` writes one")
    try:
        # Only these four files, even if the repository holds others.
        return Path(snapshot_download(world, allow_patterns=[CONFIG, WEIGHTS, CARD, PROMPTS], **download))
    except (OSError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise PretrainedError(f"{world}: neither a folder here nor a world on the hub ({cause})") from None


def write_world(
    folder: Path,
    tokenizer: Tokenizer,
    dynamics: Dynamics,
    steering: Steering | None,
    sampling: Sampling,
    buttons: Sequence[Button],
) -> None:
    """Writes weights and config into an existing folder."""
    models = [model for model in (tokenizer, dynamics, steering) if model is not None]
    state = {
        f"{model.kind}.{name}": tensor.detach().to("cpu", HALF).contiguous()
        for model in models
        for name, tensor in model.state_dict().items()
    }
    weights = safetensors.torch.save(state, metadata={"format": "pt"})
    content = {
        "version": VERSION,
        "weights": _digest(weights),
        **{model.kind: {"made_from": made_from(model), "config": asdict(model.config)} for model in models},
        "sampling": asdict(sampling),
        "actions": list(buttons[0].names),
        "buttons": buttons_to_json(buttons),
    }
    # Not `safetensors.torch.save_file`: on a full disk it does not raise an OSError.
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")


def read_world(
    folder: Path, device: torch.device | str = "cpu"
) -> tuple[Tokenizer, Dynamics, Steering | None, Sampling, tuple[Button, ...]]:
    """Reads a folder written by `write_world`; the models are in eval mode and single precision.

    Raises:
        PretrainedError: it is missing, damaged or of another version.
    """
    again = "write it anew with `genie export`, or download it again"
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise PretrainedError(f"{folder}: no world here ({name} is missing); {again}")
    try:
        content = json.loads((folder / CONFIG).read_bytes())
        if content["version"] != VERSION:
            raise PretrainedError(f"{folder}: of version {content['version']}, but this code reads {VERSION}; {again}")
        weights = (folder / WEIGHTS).read_bytes()
        if content["weights"] != _digest(weights):
            raise PretrainedError(f"{folder}: {WEIGHTS} is damaged, or not the one that {CONFIG} tells of; {again}")
        state, models = safetensors.torch.load(weights), []
        for model_class in (Tokenizer, Dynamics, Steering):
            if model_class is Steering and Steering.kind not in content:  # no true actions were recorded
                assert not any(name.startswith(f"{Steering.kind}.") for name in state), "weights of a missing steering"
                models.append(None)
                continue
            told, prefix = content[model_class.kind], f"{model_class.kind}."
            model = model_class(model_class.config_class(**hashable(told["config"])))  # pyright: ignore[reportArgumentType]
            model.load_state_dict(
                {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            )
            model.fingerprint = told["made_from"]
            models.append(model.to(device).eval())
        sampling = Sampling(**content["sampling"])
        buttons = buttons_from_json(content["buttons"], content["actions"])
        assert len(buttons) == models[1].config.num_actions, "a button a latent action"
        if models[2] is not None:
            assert len(buttons) == models[2].config.num_actions, "arrows of other latent actions"
    except PretrainedError:
        raise
    except (*DAMAGE, ValueError, AssertionError) as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise PretrainedError(f"{folder}: damaged or of another version ({cause}); {again}") from None
    return *models, sampling, buttons


def made_from(model: Tokenizer | Dynamics | Steering) -> str:
    """Fingerprint of the checkpoint of a model, before conversion to half precision."""
    return getattr(model, "fingerprint", None) or fingerprint(model)


@contextmanager
def replacing_files(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder; moves its files to `folder` on exit, or deletes them after an error.

    Other files in `folder` are kept, since they may be the user's.
    """
    folder = Path(folder).resolve()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        folder.mkdir(exist_ok=True)
        for file in partial.iterdir():
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _digest(weights: bytes) -> str:
    return hashlib.sha256(weights).hexdigest()[:16]
