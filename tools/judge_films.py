"""Judges a run of the pipeline on films by the actions that were hidden from it.

    python -m tools.judge_films films/freeway-judge

The films are collected again, this time with the sidecars of the folder, which must give the same frames. A probe is
trained on the actions. Its normalised mutual information with them on the test split is the ceiling of the latent
actions'. Both count all transitions of the split.

Legend: `N` frames, `A` latent actions, `E` hidden actions.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from genie.core.files import replacing
from genie.core.params import Params, load_params
from genie.core.protocols import NullTracker
from genie.data.caches import cache_attributes, read_latent_actions
from genie.data.episodes import EpisodeStore
from genie.data.shards import SPLITS
from genie.data.true_actions import LabelledFrameWindows
from genie.distributed.accelerator import make_accelerator
from genie.distributed.faults import faults_in_one_line
from genie.distributed.processes import num_threads
from genie.distributed.progress import progress
from genie.evaluation.controllability import action_nmi, action_table
from genie.evaluation.probe_accuracy import validate_probe
from genie.models.checkpoint import load_model
from genie.models.lam import LatentActionModel
from genie.models.probe import build_probe
from genie.pipeline.infer_actions import latent_actions_of
from genie.sources.collect_films import collect_films
from genie.sources.films import FILMS_FOLDER, find_films, sidecar_path
from genie.training.loop import train
from genie.training.resume import ResumeStore

BLOCK = 256  # frames compared at once

Stores = dict[str, EpisodeStore]


class JudgeError(ValueError):
    """A run cannot be judged; the message names cause and fix."""


@dataclass(frozen=True)
class Verdict:
    """What the latent actions of a test split say about the hidden actions.

    Attributes:
        action_nmi: normalised mutual information of latent and hidden actions, in [0, 1].
        probe_nmi: the same of the probe's predictions, which were trained on the hidden actions.
        names: of the hidden actions.
        counts_AE: how often each latent action coincides with each hidden action.
    """

    action_nmi: float
    probe_nmi: float
    names: tuple[str, ...]
    counts_AE: np.ndarray

    @property
    def ratio(self) -> float:
        """`action_nmi` as a share of the probe's; 0 if the probe reads nothing off the frames."""
        return self.action_nmi / self.probe_nmi if self.probe_nmi else 0.0

    @property
    def shares_AE(self) -> np.ndarray:
        """Share of each hidden action among the transitions of a latent action; rows add up to 1, or are 0."""
        return self.counts_AE / self.counts_AE.sum(1, keepdims=True).clip(1)

    def as_table(self) -> str:
        """The figures and the shares, in percent, as text."""
        total, width = self.counts_AE.sum(), max(8, *map(len, self.names))
        lines = [
            f"action_nmi of the latent actions  {self.action_nmi:.3f}",
            f"action_nmi of the probe           {self.probe_nmi:.3f}",
            f"ratio                             {self.ratio:.3f}",
            "",
            " ".join(f"{title:>{width}}" for title in ("latent", "% of all", *self.names)),
        ]
        for latent, (counts_E, shares_E) in enumerate(zip(self.counts_AE, self.shares_AE, strict=True)):
            shares = (counts_E.sum() / total, *shares_E)
            lines.append(" ".join([f"{latent:{width}d}", *(f"{share:{width}.0%}" for share in shares)]))
        return "\n".join(lines)

    def as_json(self) -> str:
        """The same as JSON."""
        tree = {
            "action_nmi": round(self.action_nmi, 4),
            "probe_action_nmi": round(self.probe_nmi, 4),
            "ratio": round(self.ratio, 4),
            "hidden_actions": self.names,
            "counts": self.counts_AE.tolist(),
            "shares": self.shares_AE.round(4).tolist(),
        }
        return json.dumps(tree, indent=2) + "\n"


def judge(params: Params, sidecars: Path) -> Verdict:
    """Judges the run in `data/` of the working directory.

    Args:
        params: those of the run.
        sidecars: folder that has a sidecar of each film in `data/films`.

    Raises:
        JudgeError: the run is not one on films, a sidecar is missing, or `data/` is not of these films and params.
        FilmError: a film or a sidecar cannot be read.
    """
    with TemporaryDirectory() as folder:
        labelled = collect_labelled(params, sidecars, Path(folder))
        for split, store in labelled.items():
            check_frames(store, EpisodeStore(f"data/frames/{split}"))
        lam = load_model("data/models/lam", LatentActionModel)
        latent_actions = read_latent_actions("data/actions/test.h5", lam.fingerprint)
        num_actions = cache_attributes("data/actions/test.h5")["num_actions"]
        test = labelled["test"]
        if len(latent_actions) != len(test):
            raise JudgeError(f"data/actions/test.h5: {len(latent_actions)} frames, not {len(test)}: run `dvc repro`")
        actions, names = test.actions(), test.action_names
        return Verdict(
            action_nmi(latent_actions, actions),
            action_nmi(probe_actions(params, labelled), actions),
            names,
            action_table(latent_actions, actions, num_actions, len(names)),
        )


def collect_labelled(params: Params, sidecars: Path, folder: Path) -> Stores:
    """Collects the films of `data/films` with the sidecars of another folder into `folder`.

    Raises:
        JudgeError: params are not of films, there is no film, or a film has no sidecar.
        FilmError: a film or a sidecar cannot be read.
    """
    if params.collect.source != "films":
        raise JudgeError("params.yaml: collect.source is not films; run `genie import` and `dvc repro` first")
    films = find_films(FILMS_FOLDER)
    missing = [film.name for film in films if not (sidecars / sidecar_path(film).name).is_file()]
    if missing or not films:
        cause = f"{sidecar_path(Path(missing[0])).name} is missing" if missing else f"{FILMS_FOLDER} holds no film"
        raise JudgeError(f"{sidecars}: {cause}; name the folder of the sidecars of the films in {FILMS_FOLDER}")
    linked = folder / "films"
    linked.mkdir()
    for film in films:
        (linked / film.name).symlink_to(film.resolve())
        (linked / sidecar_path(film).name).symlink_to((sidecars / sidecar_path(film).name).resolve())
    collect_films(params.collect, folder / "frames", num_threads(params.runtime), films=linked)
    return {split: EpisodeStore(folder / "frames" / split) for split in SPLITS}


def check_frames(store: EpisodeStore, run: EpisodeStore) -> None:
    """Checks that a split collected again has the episodes and frames of the run's.

    Raises:
        JudgeError: it differs.
    """
    fault = JudgeError(f"{run.path}: not of the films in {FILMS_FOLDER} and params.yaml as they are; run `dvc repro`")
    if not np.array_equal(store.episode_starts, run.episode_starts) or len(store) != len(run):
        raise fault
    for start in progress(range(0, len(run), BLOCK), name=f"compare {run.path.name}", unit="block"):
        stop = min(start + BLOCK, len(run))
        if not np.array_equal(store.read(start, stop), run.read(start, stop)):
            raise fault


def probe_actions(params: Params, labelled: Stores) -> np.ndarray:
    """Trains the probe, and predicts the hidden actions of the test split: `(N,)` uint8, `NO_ACTION` at an episode's
    last frame."""
    settings, train_split = params.probe, labelled["train"]
    accelerator = make_accelerator(params.runtime, training=True)
    probe = build_probe(settings, num_classes=len(train_split.action_names))
    dataset = LabelledFrameWindows(train_split, settings.window, settings.batch_size, settings.seed, settings.steps)
    inputs = {**train_split.attributes, "actions": hashlib.sha256(dataset.actions.tobytes()).hexdigest()}
    resume = ResumeStore("judge_films", settings, accelerator, inputs)
    validate = validate_probe(labelled["val"], settings.window)
    train(probe, dataset, settings, accelerator, NullTracker(), resume, validate, params.runtime.training_data)
    with accelerator.autocast():
        # It infers actions as a latent action model does.
        told = latent_actions_of(cast(LatentActionModel, probe), labelled["test"], name="predict")
        actions = np.concatenate(list(told))
    resume.clear()
    return actions


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.judge_films", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sidecars", type=Path, help="folder with FILM.actions.csv of each film in data/films")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    with faults_in_one_line("judge_films"):
        verdict = judge(load_params(), given.sidecars)
        print(verdict.as_table())
        if given.out:
            with replacing(given.out) as temporary:
                temporary.write_text(verdict.as_json())


if __name__ == "__main__":
    main()
