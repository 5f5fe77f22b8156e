import json
from pathlib import Path

import numpy as np
import pytest

from genie.core.params import parse_params
from tests.conftest import merged
from tools.judge_films import JudgeError, Verdict, check_frames, judge

FILMS = {"source": "films"}


def test_the_verdict_as_table_and_json():
    verdict = Verdict(0.3, 0.6, ("noop", "up"), np.array([[30, 10], [0, 60], [0, 0]]))
    assert verdict.ratio == pytest.approx(0.5)
    rows = [line.split() for line in verdict.as_table().splitlines()]
    assert rows[-3:] == [["0", "40%", "75%", "25%"], ["1", "60%", "0%", "100%"], ["2", "0%", "0%", "0%"]]
    assert json.loads(verdict.as_json())["shares"] == [[0.75, 0.25], [0.0, 1.0], [0.0, 0.0]]
    assert Verdict(0.3, 0.0, verdict.names, verdict.counts_AE).ratio == 0.0


def test_frames_of_another_run_are_refused(coinrun):
    check_frames(coinrun["val"], coinrun["val"])
    with pytest.raises(JudgeError, match="run `dvc repro`"):
        check_frames(coinrun["val"], coinrun["test"])


@pytest.mark.parametrize(
    ("films", "collect", "message"),
    [
        ([], {}, "collect.source is not films"),
        ([], FILMS, "data/films holds no film"),
        (["walk.mp4"], FILMS, "walk.actions.csv is missing"),
    ],
)
def test_what_cannot_be_judged_is_named(films, collect, message, tiny_tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for film in films:
        Path("data/films").mkdir(parents=True)
        (Path("data/films") / film).touch()
    with pytest.raises(JudgeError, match=message):
        judge(parse_params(merged(tiny_tree, {"collect": collect})), Path("sidecars"))
