"""Plays the simulator, or samples films, and writes the frames of every split: data/frames/{train,val,test}/."""

from time import perf_counter

from genie.core.params import Params
from genie.core.protocols import Tracker
from genie.distributed.processes import num_threads, rank
from genie.pipeline.outputs import write_metrics
from genie.pipeline.stage import run_stage
from genie.sources.collect import collect, collect_metrics
from genie.sources.collect_films import collect_films, film_metrics

SOURCES = {"simulator": (collect, collect_metrics), "films": (collect_films, film_metrics)}


def main(params: Params, tracker: Tracker) -> None:
    start = perf_counter()
    settings = params.collect
    record, measure = SOURCES[settings.source]
    num_frames = record(settings, "data/frames", num_threads(params.runtime), resume=True)
    if rank() > 0:
        return
    tracker.log_metrics({"collect/frames_per_second": num_frames / (perf_counter() - start)}, step=0)
    metrics = measure("data/frames")
    write_metrics("collect", metrics)
    tracker.log_final(metrics)


if __name__ == "__main__":
    run_stage("collect", main, in_processes=True, on_device=False)
