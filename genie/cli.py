"""The `genie` command."""

from pathlib import Path
from typing import Annotated

import typer

from genie.core.params import find_params, load_params, parse_params
from genie.core.paths import METRICS_FOLDER
from genie.core.scales import load_scale, scale_flags, write_scale, write_values
from genie.distributed.faults import faults_in_one_line
from genie.pipeline.outputs import write_json
from genie.reporting.results import SEEDS, read_metrics, results_table, write_results
from genie.reporting.seeds import read_run, summarise

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def genie() -> None:
    """A playable world learned from unlabelled video. Run the pipeline itself with `dvc repro`."""


@app.command()
def scale(
    name: Annotated[str, typer.Argument(help="Name of a file in scales/ without suffix, such as gpu or paper.")],
    flags: Annotated[
        bool, typer.Option("--flags", help="Print options for `dvc exp run` instead of writing params.yaml.")
    ] = False,
) -> None:
    """Write a scale into params.yaml and keep its comments; `git restore params.yaml` undoes it.

    To queue it as an experiment and leave params.yaml unchanged:

        dvc exp run --queue $(genie scale gpu --flags)
    """
    with faults_in_one_line("genie scale"):
        if flags:
            print(scale_flags(name))
        else:
            write_scale(name)
            print(f"params.yaml now holds scale {name}; `git diff params.yaml` shows what changed")


@app.command("import")
def import_(
    paths: Annotated[
        list[Path], typer.Argument(help="Films (mp4, webm, mkv, avi, mov, gif, ...), folders of films or of pictures.")
    ],
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out films that are broken. Default: import none then.")
    ] = False,
) -> None:
    """Take your own films as the source of frames: check them, put them into data/films, and say so in params.yaml.

    A folder that holds films stands for all of them; one of PNG or JPEG pictures is a film, in the order of their names
    (2.png before 10.png). Each film is decoded whole, then linked into data/films, or copied if it is on another disk.
    If walk.actions.csv lies beside walk.mp4 (columns frame and action, a row a frame), it is taken along: true actions
    are not needed, but name the buttons. collect.films in params.yaml says how films are sampled.

        genie import my_videos/ walk.mp4

        genie scale films && dvc repro

    To return to the simulator, set collect.source to simulator; to leave a film out again, delete it from data/films.
    """
    with faults_in_one_line("genie import"):
        from genie.sources.film_import import import_films, summarise_import  # here, since `--help` need not wait

        params = load_params()
        imported = import_films(paths, skip_broken=skip_broken, num_threads=params.runtime.threads)
        write_values({"collect": {"source": "films"}})
        print(summarise_import(imported, params.collect))


@app.command()
def plan(
    scale: Annotated[str | None, typer.Option(help="Name of a file in scales/. Default: params.yaml as it is.")] = None,
    devices: Annotated[int, typer.Option(help="Number of devices that share each batch.")] = 1,
    peak: Annotated[float, typer.Option(help="TFLOP/s of a device's matrix products. Default: an H200, bf16.")] = 790,
    utilisation: Annotated[
        float | None,
        typer.Option(
            help="Assumed share of the peak that training reaches. Default: as measured on an H200, by model."
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16. Default: runtime.precision, with auto taken as bf16.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the cost of training: operations, hours and memory of a device, and bytes of data. Trains nothing.

    Hours are computed, not measured: docs/scaling.md lists what they leave out.

        genie plan --scale paper --devices 4
    """
    with faults_in_one_line("genie plan"):
        from genie.reporting.plan import (  # here, since importing torch takes seconds
            make_plan,
            measured_bytes_per_frame,
            plan_json,
            plan_tables,
        )

        params = load_params() if scale is None else load_scale(scale)[1]
        if precision is not None:
            tree = params.model_dump()
            tree["runtime"]["precision"] = precision
            params = parse_params(tree, "the options")
        planned = make_plan(params, measured_bytes_per_frame(), devices=devices, peak=peak, utilisation=utilisation)
        print(plan_json(planned) if as_json else plan_tables(planned), end="")


@app.command()
def sample(
    actions: Annotated[
        str | None, typer.Option(help="Latent actions, such as 3,3,3,5,5. Default: one world for each latent action.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to start from; its centre is scaled to 64x64.")] = None,
    frame: Annotated[
        int | None,
        typer.Option(help="Index of the frame of data/frames/test to start from. Default: one with much motion."),
    ] = None,
    out: Annotated[Path, typer.Option(help="GIF to write.")] = Path("sample.gif"),
    world: Annotated[
        str | None,
        typer.Option(
            help="Folder of trained models or of an exported world, or its name on the Hugging Face hub. "
            "Default: data/models if it is there, else the shipped world."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="MaskGIT steps per frame. Default: the world's own, or sampling.maskgit_steps.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature. Default: the world's own, or sampling.temperature.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed. Default: evaluate.seed.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing unless it fails.")] = False,
) -> None:
    """Dream the frames that follow a frame under latent actions, and write them as a GIF.

    One dream per latent action, side by side, from a frame of a level not used in training:

        genie sample

    One dream, from your own picture:

        genie sample --actions 3,3,3,5,5 --image castle.png --out castle.gif
    """
    with faults_in_one_line("genie sample"):
        from genie.reporting.sample import sample as dream  # here, since torch takes seconds that `--help` need not

        tree, given = find_params().model_dump(), {"maskgit_steps": steps, "temperature": temperature}
        given = {key: value for key, value in given.items() if value is not None}
        tree["sampling"] |= given
        tree["evaluate"] |= {} if seed is None else {"seed": seed}
        params = parse_params(tree, "the options")
        wrote = dream(
            params, actions=actions, image=image, frame=frame, out=out, world=world, sampling=given, quiet=quiet
        )
        if not quiet:
            print(wrote)


@app.command()
def play(
    world: Annotated[
        str | None,
        typer.Option(
            help="Folder of a world or of trained models (data/models), or a name on the Hugging Face hub or in MLflow "
            "(models:/...). "
            "Default: the shipped world."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in your network play.")
    ] = "127.0.0.1",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    terminal: Annotated[bool, typer.Option("--terminal", help="Play in this terminal instead.")] = False,
) -> None:
    """Play a world: in a browser, or in a terminal.

    Numbers press its buttons. Arrow keys press what their names say, or, in a world learned from films without recorded
    actions, the buttons that move that way; each is shown on its button.

    On a phone in the same network, at this machine's address:

        genie play --host 0.0.0.0

    The world that `dvc repro` trained:

        genie play --world data/models
    """
    with faults_in_one_line("genie play"):
        from genie.play.opening import (  # here, since torch takes seconds that `--help` need not
            batch_threads,
            open_world,
        )

        params = find_params()
        opened = open_world(world, params)
        if terminal:
            from genie.play.terminal import play_in_terminal

            play_in_terminal(opened)
        else:
            from genie.play.server import Arcade, serve

            serve(Arcade(opened, params.collect, batch_threads(params.runtime)), host, port, open_page)


@app.command()
def results(
    write: Annotated[Path | None, typer.Option(help="Replace the table between the marks in this file.")] = None,
) -> None:
    """Print the metrics of the last run and their baselines as a Markdown table.

    To write the table in docs/results.md:

        genie results --write docs/results.md
    """
    with faults_in_one_line("genie results"):
        table = results_table(read_metrics(METRICS_FOLDER))
        if write is None:
            print(table, end="")
        else:
            write_results(write, table)
            print(f"wrote the table to {write}")


@app.command()
def seeds(
    revisions: Annotated[list[str], typer.Argument(help="Git revisions of the runs: HEAD, refs/exps/...")],
) -> None:
    """Write the mean and spread of runs that differ only by their seeds to data/metrics/seeds.json.

    `make seeds` trains such runs and calls this.
    """
    with faults_in_one_line("genie seeds"):
        summary = summarise([read_run(revision) for revision in revisions], load_params().lam.of_kind())
        write_json(SEEDS, summary)
        print(f"wrote {METRICS_FOLDER / SEEDS}.json: seeds {summary['seeds']}, {summary['collapsed']} collapsed")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("world"),
    models: Annotated[Path, typer.Option(help="Folder of the trained models.")] = Path("data/models"),
    metrics: Annotated[Path, typer.Option(help="Folder of the metrics for the model card.")] = METRICS_FOLDER,
    made: Annotated[
        str | None,
        typer.Option(
            help="How the world was trained, for the model card. Default: the command that params.yaml stands for."
        ),
    ] = None,
) -> None:
    """Write the trained world as one folder, in the layout of the Hugging Face hub, to share, load or play.

    To upload it to the hub unchanged:

        hf upload NAME/WORLD world
    """
    with faults_in_one_line("genie export"):
        from genie.reporting.export import (
            export as write_world,  # here, since torch takes seconds that `--help` need not
        )

        print(write_world(load_params(), models=models, metrics=metrics, out=out, made=made))


@app.command()
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Part to measure: machine, collect, reading, tokenizer, lam, dynamics or sampling; may be repeated."
        ),
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="World that sampling plays, as for `genie play`. Default: the shipped world.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the speed of each part on this machine, next to its reference, and its peak memory.

    Runs at the scale of params.yaml on its own data; nothing needs to be trained. To measure one part:

        genie bench --only dynamics
    """
    with faults_in_one_line("genie bench"):
        from genie.bench.figures import NOTE, as_table
        from genie.bench.figures import as_json as to_json
        from genie.bench.run import bench as measure
        from genie.bench.run import describe_card

        params = load_params()
        figures = measure(params, only or (), world)
        print(to_json(figures, describe_card(params)) if as_json else f"{as_table(figures)}\n\n{NOTE}")
