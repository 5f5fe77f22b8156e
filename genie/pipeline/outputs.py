"""What stages write beside models and data: metrics and curves, each file in one move."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from genie.core.files import replacing
from genie.core.paths import CURVES_FOLDER, METRICS_FOLDER


def write_metrics(name: str, metrics: Mapping[str, float]) -> None:
    """Writes `data/metrics/<name>.json`: flat, keys sorted, floats with six significant digits.

    Raises:
        ValueError: a value is not finite; nothing is written then.
    """
    write_json(name, {key: _round(key, value) for key, value in sorted(metrics.items())})


def write_json(name: str, tree: Mapping) -> None:
    """Writes `data/metrics/<name>.json` as it is."""
    with replacing(METRICS_FOLDER / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(tree, indent=2) + "\n")


def write_fingerprints(*models) -> None:
    """Writes `data/metrics/fingerprints.json`: which checkpoints were measured, by the models' kinds."""
    write_json("fingerprints", {model.kind: model.fingerprint for model in models})


def write_curve(name: str, rows: Sequence[Mapping[str, float]], columns: Sequence[str] = ()) -> None:
    """Writes `data/curves/<name>.csv`; a column that a row lacks stays empty there. The header is `columns`, needed if
    there are no rows, or the keys of the rows."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    with replacing(CURVES_FOLDER / f"{name}.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _round(key: str, value: Any) -> float | int:
    value = value.item() if hasattr(value, "item") else value  # numpy and torch scalars
    if not math.isfinite(value):
        raise ValueError(f"metric {key} is {value}, which says that the model or its data is broken")
    return value if isinstance(value, int) else float(f"{value:.6g}")
