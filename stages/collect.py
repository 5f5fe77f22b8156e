"""Plays the simulator and records the frames of every split: data/frames/{train,val,test}/."""

from time import perf_counter

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.distributed.processes import num_threads, rank
from genie.pipeline.outputs import write_metrics
from genie.pipeline.stage import run_stage
from genie.sources.collect import collect, collect_metrics


def main(params: Params, tracker: Tracker) -> None:
    start = perf_counter()
    num_frames = collect(params.collect, "data/frames", num_threads(params.runtime), resume=True)
    if rank() > 0:
        return
    tracker.log_metrics({"collect/frames_per_second": num_frames / (perf_counter() - start)}, step=0)
    metrics = collect_metrics("data/frames")
    write_metrics("collect", metrics)
    tracker.log_final(metrics)


if __name__ == "__main__":
    run_stage("collect", main, in_processes=True, on_device=False)
