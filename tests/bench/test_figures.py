import json
import math

import pytest

from genie.bench.card import describe
from genie.bench.figures import Figure, as_json, as_table, ratios

FIGURES = [
    Figure("bare.frames_per_second", 12345.6, "frames/s"),
    Figure("collect.frames_per_second", 6172.8, "frames/s", "bare.frames_per_second"),
    Figure("lam.data_seconds", 0.00012345, "s", "lam.step_seconds"),  # no figure of that name
]


def test_a_ratio_is_of_two_figures_measured():
    assert ratios(FIGURES) == {"collect.frames_per_second": 0.5}


def test_json_is_flat_and_round_trips():
    assert json.loads(as_json(FIGURES)) == {
        "bare.frames_per_second": 12350,
        "collect.frames_per_second": 6173,
        "collect.frames_per_second.ratio": 0.5,
        "lam.data_seconds": 0.0001234,
    }


def test_json_names_the_card_if_there_is_one(tiny_params):
    card = {"card": "H200", "driver": "570.1"}
    assert json.loads(as_json(FIGURES, card)) == card | json.loads(as_json(FIGURES))
    assert describe(tiny_params) == {}, "a CPU"


def test_table_is_plain_and_aligned():
    assert as_table(FIGURES).splitlines() == [
        "name                         figure  unit      ratio  beside",
        "bare.frames_per_second       12,346  frames/s",
        "collect.frames_per_second     6,173  frames/s  0.500  bare.frames_per_second",
        "lam.data_seconds           0.000123  s",
    ]


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_no_figure_is_meaningless(value):
    with pytest.raises(AssertionError, match=r"lam\.frames"):
        Figure("lam.frames_per_second", value, "frames/s")
