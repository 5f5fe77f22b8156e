"""Strict, typed parameters: `params.yaml` is their only source, and all stages read it through `load_params`."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genie.core.frames import FRAME_SHAPE, FRAME_SIZES
from genie.core.yaml_files import YamlError, read_yaml

Count = Annotated[int, Field(gt=0, le=10**9)]
Width = Annotated[int, Field(gt=0, le=16384)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip


class ParamsError(ValueError):
    """`params.yaml` is invalid; the message names the key and the fix."""


class Strict(BaseModel):
    """Base model: no unknown keys, no silent conversions, immutable after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RuntimeParams(Strict):
    """How to compute; only `precision` and, through the order of summation, `compile` affect the numbers."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16"]
    compile: bool | Literal["graphs"]
    threads: Annotated[int, Field(ge=0, le=1024)]
    processes: Annotated[int, Field(ge=1, le=1024)]
    strategy: Literal["ddp", "fsdp"]
    training_data: Literal["auto", "device", "memory", "files"]


class SplitCounts(Strict):
    """One count per split."""

    train: Count
    val: Count
    test: Count


class FilmParams(Strict):
    """How films become frames."""

    fps: Annotated[float, Field(gt=0, le=240)]
    crop: Literal["cover", "contain"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=4, max_length=4)]
    held_out: Annotated[float, Field(gt=0, lt=0.5)]
    shortest_episode: Annotated[int, Field(ge=2, le=10**6)]
    max_still: Share


class CollectParams(Strict):
    """Where frames come from: the simulator, the policy that plays it and the amount of data to record; or films."""

    source: Literal["simulator", "films"]
    frame_size: Literal[FRAME_SIZES]  # pyright: ignore[reportInvalidTypeForm]
    films: FilmParams
    env_name: Literal[GAMES]  # pyright: ignore[reportInvalidTypeForm]
    distribution_mode: Literal["easy", "hard"]
    backgrounds: bool
    policy: Literal["uniform", "sticky_right"]
    stickiness: Annotated[float, Field(ge=0, lt=1)]
    action_repeat: Annotated[int, Field(gt=0, le=64)]
    num_envs: Annotated[int, Field(gt=0, le=4096)]
    frames: SplitCounts
    shard_frames: Count
    levels: SplitCounts
    compression: Literal["zstd", "lzf", "gzip", "none"]
    seed: Seed

    @model_validator(mode="after")
    def _simulator_draws_64(self):
        if self.source == "simulator" and self.frame_size != FRAME_SHAPE[0]:
            raise ValueError(f"frame_size ({self.frame_size}) must be {FRAME_SHAPE[0]}, as the simulator draws")
        return self

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """H, W and 3."""
        return self.frame_size, self.frame_size, 3


class Schedule(Strict):
    """How a model is trained, without its seed."""

    batch_size: Annotated[int, Field(gt=0, le=65536)]
    steps: Count
    lr: Annotated[float, Field(gt=0, le=1)]
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)]
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    grad_clip: Annotated[float, Field(gt=0)]


class TrainingParams(Schedule):
    """Training loop parameters common to all models."""

    seed: Seed


class TokenizerParams(TrainingParams):
    """The per-frame convolutional VQ-VAE."""

    quantizer: Literal["fsq", "vq"]
    fsq_levels: Annotated[list[Annotated[int, Field(ge=3, le=64)]], Field(min_length=1, max_length=16)]
    num_codes: Annotated[int, Field(ge=2, le=65536)]
    code_dim: Width
    commitment_weight: Annotated[float, Field(ge=0)]
    ema_decay: Share
    width: Width
    num_blocks: Annotated[int, Field(gt=0, le=64)]

    @model_validator(mode="after")
    def _codes_fit_the_cache(self):
        if math.prod(self.fsq_levels) > 65536:
            raise ValueError(f"fsq_levels make {math.prod(self.fsq_levels)} codes, and tokens hold 65536 at most")
        return self


class MotionEncoderSection(Schedule):
    """A model that encodes windows of frames with the motion encoder, without its seed."""

    history: Annotated[int, Field(ge=1, le=64)]
    width: Width
    num_blocks: Annotated[int, Field(gt=0, le=64)]
    window: Annotated[int, Field(ge=2, le=256)]

    @model_validator(mode="after")
    def _window_holds_history(self):
        if self.window <= self.history:
            raise ValueError(f"window ({self.window}) must be larger than history ({self.history})")
        return self


class ProbeParams(MotionEncoderSection, TrainingParams):
    """The supervised probe: a motion encoder, and its training."""


class SurpriseSection(Schedule):
    """`lam.surprise`."""

    history: Annotated[int, Field(ge=1, le=64)]
    width: Width
    ema_decay: Share
    expectation_steps: Count
    gate_min_information: float

    @model_validator(mode="after")
    def _refines(self):
        if self.expectation_steps >= self.steps:
            raise ValueError(f"expectation_steps ({self.expectation_steps}) must be fewer than steps ({self.steps})")
        return self


class PixelsSection(MotionEncoderSection):
    """`lam.pixels`."""

    code_dim: Width
    commitment_weight: Annotated[float, Field(ge=0)]
    ema_decay: Share
    gate_min_gain_db: float


class SharedLamParams(Strict):
    """What both kinds of latent action model share."""

    num_actions: Annotated[int, Field(ge=2, le=255)]
    gate_min_perplexity: Annotated[float, Field(ge=0)]
    seed: Seed


class SurpriseLamParams(SharedLamParams, SurpriseSection, TrainingParams):
    """The latent action model of kind `surprise`, and its training."""

    @property
    def window(self) -> int:
        """Frames per measured window: twelve more than the history that predicts a transition."""
        return self.history + 12


class PixelLamParams(SharedLamParams, PixelsSection, TrainingParams):
    """The latent action model of kind `pixels`, and its training."""


class LamParams(SharedLamParams):
    """The kind of latent action model, what both kinds share, and a section for each kind."""

    kind: Literal["surprise", "pixels"]
    surprise: SurpriseSection
    pixels: PixelsSection

    def of_kind(self) -> SurpriseLamParams | PixelLamParams:
        """Parameters of the selected kind, with the shared ones merged in."""
        shared = self.model_dump(include=set(SharedLamParams.model_fields))
        if self.kind == "surprise":
            return SurpriseLamParams(**shared, **self.surprise.model_dump())
        return PixelLamParams(**shared, **self.pixels.model_dump())


class MotionParams(TrainingParams):
    """The motion predictor."""


class SteeringParams(TrainingParams):
    """The steering: which latent action an arrow presses."""


class DynamicsParams(TrainingParams):
    """The block-causal MaskGIT."""

    actions: Literal["latent", True]
    context_frames: Annotated[int, Field(ge=1, le=255)]
    window: Annotated[int, Field(ge=2, le=256)]
    action_injection: Literal["prepend", "adaln", "add"]
    motion_compensation: bool
    patch_size: Literal[1, 2, 4]
    context_noise: Share
    min_mask_rate: Share
    full_mask_share: Share
    width: Width
    num_layers: Annotated[int, Field(gt=0, le=128)]
    num_heads: Annotated[int, Field(gt=0, le=128)]

    @model_validator(mode="after")
    def _heads_share_width(self):
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width {self.width} must be a multiple of twice num_heads ({self.num_heads})")
        return self


class SamplingParams(Strict):
    """How a frame's tokens are sampled from the dynamics."""

    maskgit_steps: Annotated[int, Field(gt=0, le=256)]
    temperature: Annotated[float, Field(ge=0, le=100)]


class EvaluateParams(Strict):
    """How much to evaluate and to show."""

    num_clips: Count
    horizon: Annotated[int, Field(ge=4, le=1000)]
    drift_clips: Count
    drift_horizon: Annotated[int, Field(gt=4, le=1000)]
    i3d_weights: Annotated[str, Field(min_length=1)] | None
    num_gifs: Annotated[int, Field(gt=0, le=64)]
    num_states: Count
    steered_states: Count
    steered_frames: Count
    seed: Seed

    @model_validator(mode="after")
    def _horizons_differ(self):
        if self.drift_horizon <= self.horizon:
            raise ValueError(
                f"drift_horizon ({self.drift_horizon}) must be larger than horizon ({self.horizon}): "
                "metrics are named after both"
            )
        return self


class Params(Strict):
    """All of `params.yaml`."""

    runtime: RuntimeParams
    collect: CollectParams
    tokenizer: TokenizerParams
    probe: ProbeParams
    lam: LamParams
    motion: MotionParams
    steering: SteeringParams
    dynamics: DynamicsParams
    sampling: SamplingParams
    evaluate: EvaluateParams


def parse_params(tree: dict, source: str = "params.yaml") -> Params:
    """Validates a tree of plain values.

    Raises:
        ParamsError: has one line per error, each with the key, the value found and what is expected.
    """
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        faults = "\n".join(_describe(fault) for fault in error.errors())
        raise ParamsError(f"{source}: {faults}") from None


def load_params(path: str | Path = "params.yaml") -> Params:
    """Reads and validates a parameter file.

    Raises:
        ParamsError: the file is missing, not YAML, or invalid.
    """
    return parse_params(read_tree(path), str(path))


def find_params() -> Params:
    """The working directory's `params.yaml`, or the defaults that come with the package: a world is played anywhere.

    Raises:
        ParamsError: as `load_params`.
    """
    here, packaged = Path("params.yaml"), Path(__file__).with_name("params.yaml")
    # A checkout, which may be installed as editable, holds them at its root.
    return load_params(next((path for path in (here, packaged) if path.is_file()), Path(__file__).parents[2] / here))


def read_tree(path: str | Path) -> dict:
    """Reads a parameter file as plain values, without validating them.

    Raises:
        ParamsError: the file is missing or not YAML.
    """
    try:
        return read_yaml(path)
    except YamlError as fault:
        raise ParamsError(str(fault)) from None


def leaves(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields every value of a tree with its dotted key, such as `lam.seed`."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _describe(fault: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "the whole file"
    found = fault["input"]
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or correct its spelling"
    if fault["type"] == "missing":
        return f"{key}: missing key; add it (git diff params.yaml shows what was removed)"
    return f"{key}: {fault['msg']}, got {found!r}"
