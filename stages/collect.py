"""Plays the simulator and records the frames of every split: data/frames/{train,val,test}.h5."""

from time import perf_counter

from genie.data.collect import collect
from genie.params import Params
from genie.stage import run_stage, write_metrics
from genie.training.tracking import Tracker


def main(params: Params, tracker: Tracker) -> None:
    start = perf_counter()
    metrics = collect(params.collect, "data/frames", params.runtime.threads)
    tracker.log_metrics({"collect/frames_per_second": metrics["frames"] / (perf_counter() - start)}, step=0)
    write_metrics("collect", metrics)
    tracker.log_final(metrics)


if __name__ == "__main__":
    run_stage("collect", main)
