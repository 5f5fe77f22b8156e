"""`genie results`: the table in docs/results.md of all metrics and their baselines."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genie.core.files import replacing
from genie.core.paths import METRICS_FOLDER

BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
TRUE_ACTIONS = "true_actions"  # file with the metrics of `evaluate` for dynamics conditioned on the true actions
SEEDS = "seeds"  # file with mean and spread over seeds
BASELINES = {  # suffixes by column; the first one found is shown
    "copy last": ["_copy_last"],
    "random action": ["_random_action", "_chance"],
    "true actions": ["_true_actions"],
    "ceiling": ["_tokenizer", "_ceiling"],
}


class ResultsError(ValueError):
    """Metrics or the place for the table are missing; the message names the cause and the fix."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        file: name of a file in `data/metrics/`, without its suffix.
        key: key of the metric in that file; `{}` is the place of a baseline's suffix, `{horizon}` and `{drift}` are the
            last dreamed frames of short and of long clips.
        digits: number of decimals.
        meaning: one-line description.
        needs: what this metric is measured of, if not every run has it: a kind of LAM, or the true actions.
    """

    file: str
    key: str
    digits: int
    meaning: str
    needs: str | None = None


ROWS = (
    Row("collect", "frames", 0, "frames recorded, of all splits"),
    Row("collect", "moving_fraction", 3, "share of held-out transitions in which the picture moves"),
    Row("tokenizer", "psnr", 2, "dB, a frame after encoding and decoding"),
    Row("tokenizer", "ssim", 3, "structural similarity of the same, at most 1"),
    Row("tokenizer", "codebook_usage", 3, "share of the codes in use"),
    Row("tokenizer", "codebook_perplexity", 1, "codes in use if all were equally frequent"),
    Row("lam", "psnr{}_moving", 2, "dB, the LAM's own decoder draws the next frame; moving frames", "pixels"),
    Row("lam", "information", 2, "bits that latent actions give of the next motion beyond the past", "surprise"),
    Row("lam", "codebook_usage", 3, "share of the latent actions in use"),
    Row("lam", "codebook_perplexity", 2, "latent actions in use if all were equally frequent"),
    Row("lam", "min_code_share", 3, "share of transitions that the rarest latent action explains"),
    Row("lam", "action_nmi{}", 3, "mutual information with the true actions, normalised to [0, 1]", "true actions"),
    Row("motion", "motion_error{}", 2, "pixels between how far the picture moves and how far was predicted"),
    Row(
        "steering",
        "arrow_bits{}",
        2,
        "bits that a latent action still takes to tell from the past and the arrow",
        "true actions",
    ),
    Row("dynamics", "cross_entropy", 3, "nats a token, next frame wholly masked"),
    Row("dynamics", "token_accuracy", 3, "share of that frame's tokens guessed right"),
    Row("evaluate", "action_nmi_ground{}", 3, "`action_nmi` of branches of the real game, where a jump can start"),
    Row("evaluate", "action_nmi_air{}", 3, "`action_nmi` of branches in the air, of stay, left and right"),
    Row("evaluate", "action_nmi_branches{}", 3, "`action_nmi` of branches of a real game without jumps"),
    Row("evaluate", "action_bits_ground{}", 2, "bits of the action on branches of the ground, of 2.58"),
    Row("evaluate", "action_bits_ground_within{}", 2, "the same within each state: are its branches told apart?"),
    Row("evaluate", "action_bits_air{}", 2, "bits of the action on branches in the air, of 1.58"),
    Row("evaluate", "action_bits_air_within{}", 2, "the same within each state"),
    Row("evaluate", "counterfactual_accuracy{}", 3, "share of frames in which a button does what its name says"),
    Row("evaluate", "steering_accuracy{}_1", 3, "share of arrows pressed whose frame is nearest to the real game's"),
    Row("evaluate", "steering_accuracy{}", 3, "the same, after holding the arrow for some frames"),
    Row("evaluate", "psnr_steered{}_1", 2, "dB, the frame after an arrow beside the real game's"),
    Row("evaluate", "psnr_steered{}", 2, "the same, after holding the arrow for some frames"),
    Row("evaluate", "psnr{}", 2, "dB, first dreamed frame"),
    Row("evaluate", "psnr{}_moving", 2, "the same, where the picture moves"),
    Row("evaluate", "ssim{}", 3, "structural similarity, first dreamed frame"),
    Row("evaluate", "ssim{}_moving", 3, "the same, where the picture moves"),
    Row("evaluate", "psnr{}_{horizon}_moving", 2, "dB, last dreamed frame, where the picture moves"),
    Row("evaluate", "psnr{}_{drift}_moving", 2, "the same, of long dreams"),
    Row("evaluate", "ssim{}_{drift}_moving", 3, "structural similarity, the same frames"),
    Row("evaluate", "frechet_probe{}", 3, "distance of dreamed from real motion in the probe's features; 0 is best"),
    Row("evaluate", "delta_psnr_1{}", 2, "dB that the inferred action is worth over a random one, frame 1"),
    Row("evaluate", "delta_psnr_1_moving{}", 2, "the same, where the picture moves"),
    Row("evaluate", "delta_psnr_4{}", 2, "the same as `delta_psnr_1`, after 4 frames"),
    Row("evaluate", "delta_psnr_4_moving{}", 2, "the same, where the picture moves"),
)


def read_metrics(folder: Path = METRICS_FOLDER) -> dict[str, dict]:
    """Reads the metrics of the table, by file and key; `true_actions` and `seeds` are optional.

    Raises:
        ResultsError: a file is missing or is not JSON.
    """
    metrics = {}
    for name in dict.fromkeys([*(row.file for row in ROWS), TRUE_ACTIONS, SEEDS]):
        path = folder / f"{name}.json"
        if name in (TRUE_ACTIONS, SEEDS) and not path.exists():
            continue
        try:
            metrics[name] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            cause = "no such file" if isinstance(error, FileNotFoundError) else error
            raise ResultsError(f"{path}: {cause}; the pipeline writes it: make repro") from None
    return metrics


def results_table(metrics: Mapping[str, Mapping]) -> str:
    """The metrics returned by `read_metrics` as a Markdown table, without rows of what could not be measured.

    Raises:
        ResultsError: a metric is missing.
    """
    lines = [
        ["metric", "value", "over seeds", *BASELINES, "meaning"],
        ["---", "---:", "---:", *["---:"] * len(BASELINES), "---"],
    ]
    told, spreads = metrics.get(TRUE_ACTIONS, {}), metrics.get(SEEDS, {})
    for row in ROWS:
        found = dict(metrics[row.file])
        horizons = [int(t) for key in found for t in re.findall(r"^psnr_(\d+)$", key)]
        dreamed = {"horizon": min(horizons, default=0), "drift": max(horizons, default=0)}
        name = row.key.format("", **dreamed)
        # What cannot be measured is left out: not every source has true actions, moving frames or a game to branch.
        if name not in found and (row.needs or row.file == "evaluate"):
            continue
        if name not in found:
            raise ResultsError(f"{row.file}.json: holds no {name}; write it anew: make repro")
        of_lam = name.startswith(("action_nmi", "action_bits"))  # of the LAM, which is not conditioned on actions
        if row.file == "evaluate" and name in told and not of_lam:
            found[row.key.format("_true_actions", **dreamed)] = told[name]
        shown = {key: f"{value:,.{row.digits}f}" for key, value in found.items()}
        value = shown.pop(name)  # removed, since a metric without `{}` would be its own baseline
        baselines = [
            # The chance level of `counterfactual_accuracy` is named `counterfactual_chance`.
            [row.key.format(suffix, **dreamed).replace("accuracy_chance", "chance") for suffix in each]
            for each in BASELINES.values()
        ]
        cells = [next((shown[key] for key in keys if key in shown), "") for keys in baselines]
        spread = spreads.get(row.file, {}).get(name)
        over_seeds = f"{spread['mean']:,.{row.digits}f} ± {spread['std']:,.{row.digits}f}" if spread else ""
        lines.append([f"{row.file} `{name}`", value, over_seeds, *cells, row.meaning])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write_results(page: Path, table: str) -> None:
    """Replaces what is between the two marks of a page by the table.

    Raises:
        ResultsError: the page lacks the marks.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ResultsError(f"{page}: no {BEGIN.strip()} followed by {END}; add both, each on its own line")
    with replacing(page) as temporary:
        temporary.write_text(before + begin + table + end + after)
