"""Measured figures, and their output as a table and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEADER = ("name", "figure", "unit", "ratio", "beside")
NOTE = (
    "model_tflops: matrix products and convolutions of forward and backward, by torch's FlopCounterMode, a\n"
    "multiply-add being 2, over the whole step's seconds; tflops: those of the optimizer too; matmul_tflops:\n"
    "square products, which took turns with the steps, at their best."
)


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: unique and stable: `part.what_unit`.
        value: finite and positive.
        unit: unit of the value.
        beside: name of the figure that it is compared with; its ratio is its value divided by that figure's.
    """

    name: str
    value: float
    unit: str
    beside: str = ""

    def __post_init__(self):
        assert 0 < self.value < math.inf, f"{self.name} is {self.value}"


def ratios(figures: Sequence[Figure]) -> dict[str, float]:
    """Ratio of each figure, by name, to the figure it is compared with, where that was measured too."""
    values = {figure.name: figure.value for figure in figures}
    return {figure.name: figure.value / values[figure.beside] for figure in figures if figure.beside in values}


def as_json(figures: Sequence[Figure], card: Mapping[str, str] | None = None) -> str:
    """Flat JSON object: `name` to value and, if there is a ratio, `name.ratio` to it; four significant digits. Names of
    the card and its driver come first."""
    values = {figure.name: figure.value for figure in figures}
    values |= {f"{name}.ratio": ratio for name, ratio in ratios(figures).items()}
    return json.dumps({**(card or {}), **{name: float(f"{value:.4g}") for name, value in values.items()}}, indent=2)


def as_table(figures: Sequence[Figure]) -> str:
    """Plain-text table with one line per figure and aligned columns."""
    quotients = ratios(figures)
    rows: list[tuple[str, ...]] = [HEADER]
    for figure in figures:
        ratio = _short(quotients[figure.name]) if figure.name in quotients else ""
        rows.append((figure.name, _short(figure.value), figure.unit, ratio, figure.beside if ratio else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {unit:<{widths[2]}}  {ratio:>{widths[3]}}  {beside}".rstrip()
        for name, value, unit, ratio, beside in rows
    )


def _short(value: float) -> str:
    """Formats a value with three significant digits, without an exponent."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"
