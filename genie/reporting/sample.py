"""`genie sample`: writes a GIF of one dream under given latent actions, or of one dream per latent action.

Legend: `T` prompt frames, `B` worlds, `S` dreamed frames, `A` latent actions, `H W C` pixels, uint8 RGB.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from genie.core.params import Params
from genie.distributed.devices import resolve_device
from genie.distributed.processes import num_threads
from genie.distributed.progress import progress
from genie.evaluation.pictures import action_sheets, contact_sheet, save_gif
from genie.world.maskgit import Sampling
from genie.world.pretrained import find_world
from genie.world.prompts import Prompt, picture_prompt
from genie.world.world_model import WorldModel

TRAINED = Path("data/models")


class SampleError(ValueError):
    """A dream cannot be made or written as requested; the message names the option and the fix."""


def sample(
    params: Params,
    *,
    actions: str | None,
    image: Path | None,
    frame: int | None,
    out: Path,
    world: str | None,
    sampling: Mapping[str, float],
    quiet: bool,
) -> str:
    """Dreams under the given actions, or once per latent action, held throughout, and writes a GIF to `out`.

    Args:
        params: uses `runtime`, `sampling`, `evaluate.horizon` and `evaluate.seed`.
        actions: latent actions, separated by commas; None: one dream per latent action, held for the horizon.
        image: picture to start from.
        frame: index of the test frame to start from. If neither it nor a picture is given: the first prompt of an
            exported world, or else a lively frame.
        out: GIF to write.
        world: folder of checkpoints or of an exported world, or its name on the Hugging Face hub; None: the world
            trained here, or else the shipped one.
        sampling: overrides of the world's `maskgit_steps` and `temperature`.
        quiet: whether to hide the progress bar.

    Returns:
        Message that says what was written.

    Raises:
        SampleError: an option has an invalid value.
        PromptError, CheckpointError, EpisodeFileError: the prompt or the models are unavailable.
    """
    _check_out(out)
    if image is not None and frame is not None:
        raise SampleError("--image and --frame exclude each other; a dream starts from one of them")
    torch.set_num_threads(num_threads(params.runtime))
    played = _load_world(world, params)
    played.sampling = replace(played.sampling, **sampling)
    if actions is None:
        rows = [[action] * params.evaluate.horizon for action in range(played.num_actions)]
    else:
        rows = [parse_actions(actions, played.num_actions)]
    if image is not None:
        prompt = picture_prompt(image, played.frame_shape)
    else:
        prompt = _real_prompt(played, frame, params.evaluate.horizon)

    frames = chain.from_iterable(dream(played, prompt, row, params.evaluate.seed) for row in rows)
    if not quiet:
        frames = progress(frames, name="dream", total=len(rows) * len(rows[0]), unit="frame")
    dreamed_BSHWC = np.stack(list(frames)).reshape(len(rows), len(rows[0]), *prompt.frames_THWC[0].shape)

    if actions is None:
        names = [button.caption(latent) for latent, button in enumerate(played.buttons)]
        pictures = action_sheets(prompt.frames_THWC[-1], dreamed_BSHWC, names)
        shown = f"{len(rows)} worlds of {len(rows[0])} frames, a latent action held in each"
    else:
        pictures = world_sheets(prompt.frames_THWC, dreamed_BSHWC[0], rows[0])
        shown = f"{len(rows[0])} dreamed frames"
    try:
        save_gif(out, pictures)
    except OSError as error:
        raise SampleError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    return f"wrote {out}: {shown}, from {prompt.source}"


def parse_actions(text: str, num_actions: int) -> list[int]:
    """Parses latent actions such as `3,3,5`, each in [0, A).

    Raises:
        SampleError: the text is not such a list.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit() and int(word) < num_actions):
            raise SampleError(
                f"--actions: {word!r} is no latent action; this world has 0 to {num_actions - 1}, "
                "given with commas between: --actions 0,0,1"
            )
    return [int(word) for word in words]


def dream(world: WorldModel, prompt: Prompt, actions: Sequence[int], seed: int) -> Iterator[np.ndarray]:
    """Yields the frames `(H, W, C)` of one dream.

    Dreams are not batched, since each item of a batch draws different noise: this way, two dreams with the same prompt
    and seed differ only by their actions.
    """
    known = None if prompt.actions is None else torch.from_numpy(prompt.actions[None]).to(world.device)
    frames = world.stream(
        torch.from_numpy(prompt.frames_THWC[None]).to(world.device),
        torch.tensor([actions], device=world.device),
        torch.Generator(world.device).manual_seed(seed),
        prompt_actions_BS=known,
    )
    return (frame_BHWC[0].cpu().numpy() for frame_BHWC in frames)


def world_sheets(prompt_THWC: np.ndarray, dreamed_SHWC: np.ndarray, actions: Sequence[int]) -> list[np.ndarray]:
    """Pictures of a GIF: the prompt, then the frames dreamed under the actions."""
    captions = ["prompt"] * len(prompt_THWC)
    captions += [f"frame {time}, action {action}" for time, action in enumerate(actions, start=1)]
    frames = np.concatenate([prompt_THWC, dreamed_SHWC])
    return [contact_sheet(panel[None, None], [[name]]) for panel, name in zip(frames, captions, strict=True)]


def _check_out(out: Path) -> None:
    """Checks the output path, before a dream takes minutes."""
    if out.suffix.lower() != ".gif":
        raise SampleError(f"--out {out}: only GIFs are written; end the name in .gif")
    if not out.parent.is_dir():
        raise SampleError(f"--out {out}: there is no folder {out.parent}")


def _load_world(source: str | None, params: Params) -> WorldModel:
    if source is None and (TRAINED / "dynamics").is_dir():
        source = str(TRAINED)
    device = resolve_device(params.runtime)
    if source is not None and any((Path(source) / kind).is_dir() for kind in ("tokenizer", "dynamics")):
        return WorldModel.load(source, Sampling(**params.sampling.model_dump()), device)
    return WorldModel.from_pretrained(find_world(source), device)


def _real_prompt(world: WorldModel, frame: int | None, horizon: int) -> Prompt:
    """Prompt at the test frame `frame`; if None, the first prompt of the world, or else a lively test frame."""
    if frame is None and world.prompts:
        return world.prompts[0]
    try:
        from genie.data.held_out import held_out_prompt, lively_frame  # imported here, since it needs HDF5
    except ImportError:
        raise SampleError("--frame: reading frames needs HDF5: pip install 'mini-genie[train]'") from None
    if frame is None:
        frame = lively_frame(world.context_frames, horizon)
    return held_out_prompt(frame, world.context_frames, world.dynamics.config.lam_fingerprint)
