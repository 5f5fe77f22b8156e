"""The `genie` command."""

from typing import Annotated

import typer

from genie.scales import scale_flags, write_scale
from genie.stage import faults_in_one_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def genie() -> None:
    """A playable world learned from unlabelled video. The pipeline itself runs with `dvc repro`."""


@app.command()
def scale(
    name: Annotated[str, typer.Argument(help="A file of scales/, without its suffix: gpu, paper.")],
    flags: Annotated[
        bool, typer.Option("--flags", help="Print the options of `dvc exp run` instead; change no file.")
    ] = False,
) -> None:
    """Write a scale into params.yaml, comments kept; `git restore params.yaml` takes it back.

    To queue it as an experiment and leave params.yaml alone:

        dvc exp run --queue $(genie scale gpu --flags)
    """
    with faults_in_one_line("genie scale"):
        if flags:
            print(scale_flags(name))
        else:
            write_scale(name)
            print(f"params.yaml now holds scale {name}; `git diff params.yaml` shows what changed")
