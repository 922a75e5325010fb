"""The commands: parse, call, print, exit code.

Results go to stdout; progress, log and errors to stderr. Nothing heavy is imported before a command runs, so that
`nowcast --help` answers at once.
"""

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nowcast import __version__
from nowcast.errors import MemoryLimitError, NowcastError, UsageError

app = typer.Typer(
    name="nowcast",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train, run and verify precipitation nowcasters on radar archives in NetCDF.",
    epilog="Example: nowcast inspect data/sample.nc",
)
log = logging.getLogger("nowcast")


class Layout(StrEnum):
    """How `inspect` and `train --dry-run` print."""

    table = "table"
    json = "json"


class ScoreLayout(StrEnum):
    """How `evaluate` prints."""

    table = "table"
    json = "json"
    csv = "csv"


Records = Annotated[list[str], typer.Argument(metavar="RECORD...", help="NetCDF files, folders of them, or globs.")]
Variable = Annotated[str | None, typer.Option(help="The variable to read, where it cannot be found by CF.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Start = Annotated[str | None, typer.Option(metavar="T", help="First reference time, UTC, such as 2016-09-28T15:00.")]
End = Annotated[str | None, typer.Option(metavar="T", help="Last reference time, UTC.")]
Every = Annotated[float | None, typer.Option(metavar="MINUTES", min=0.01, help="Minutes between reference times.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


@app.callback(invoke_without_command=True)
def nowcast(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train, run and verify precipitation nowcasters on radar archives in NetCDF."""
    if version:
        typer.echo(f"nowcast {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: nowcast inspect radar/2015*.nc")
def inspect(
    records: Records, variable: Variable = None, format: Annotated[Layout, typer.Option()] = Layout.table,
    quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show what records hold: grid, times, gaps, rain, and how many windows they give."""
    _set_up_log(quiet, verbose)
    from nowcast import inspection
    from nowcast.netcdf import open_records

    facts = [inspection.inspect(record) for record in open_records(records, variable=variable)]
    if format is Layout.json:
        _print_json(facts)
    else:
        typer.echo("\n".join(inspection.lines(facts)))
    _next(f"nowcast train configs/radar.toml --data {records[0]}")


@app.command(epilog="Example: nowcast train configs/radar.toml --data radar/ --set training.steps=500 --output runs/radar")
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A TOML file, such as configs/radar.toml.")],
    data: Annotated[list[str] | None, typer.Option(metavar="RECORD", help="Records, in place of data.records.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one key.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder; default runs/CONFIG.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and train nothing.")] = False,
    format: Annotated[Layout, typer.Option(help="How --dry-run prints.")] = Layout.table,
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Train a network on the windows of records; the run folder holds all that forecasting needs."""
    _set_up_log(quiet, verbose)
    from nowcast import config as configs
    from nowcast.commands import dry_run_facts, dry_run_lines, train_run

    settings = list(set_ or [])
    experiment = configs.read(config, settings)
    if data:
        experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"records": tuple(data)})})
    if dry_run:
        facts = dry_run_facts(experiment, device)
        _print_json(facts) if format is Layout.json else typer.echo("\n".join(dry_run_lines(facts)))
        return
    run = output or Path("runs") / Path(config).stem
    result = train_run(experiment, run, resume=resume, overwrite=overwrite, device=device)
    typer.echo(result)
    _next(f"nowcast predict {run} RECORD... --output forecast.nc")


@app.command(epilog="Example: nowcast predict runs/radar radar/today/ --output forecast.nc")
def predict(
    forecaster: Annotated[str, typer.Argument(metavar="FORECASTER", help="A run folder, a checkpoint or a baseline's name.")],
    records: Records,
    output: Annotated[str, typer.Option(metavar="PATH", help="A file, or with a / at its end a folder: one file per time.")],
    reference_time: Annotated[list[str] | None, typer.Option(metavar="T", help="Forecast from this time, UTC.")] = None,
    start: Start = None, end: End = None, every: Every = None, variable: Variable = None, device: Device = "auto",
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Forecast from the newest frames of records, or from the times asked for, into CF NetCDF."""
    _set_up_log(quiet, verbose)
    from nowcast.commands import predict_files

    selection = _selection(reference_time, start, end, every)
    written = predict_files(forecaster, records, output, selection, variable=variable, device=device, overwrite=overwrite)
    typer.echo("\n".join(map(str, written)))
    _next(f"nowcast evaluate {forecaster} --observations {records[0]} --output scores/")


@app.command(epilog="Example: nowcast evaluate runs/radar --observations radar/2016/ --output scores/")
def evaluate(
    forecasters: Annotated[list[str], typer.Argument(metavar="FORECASTER...", help="Runs, baselines or forecast files.")],
    observations: Annotated[list[str], typer.Option(metavar="RECORD", help="The records to score against.")],
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder for tables, pictures and report.html.")] = None,
    start: Start = None, end: End = None, every: Every = None,
    thresholds: Annotated[str | None, typer.Option(help="Default 0.5,1,5,10 mm/h.")] = None,
    variable: Variable = None, format: Annotated[ScoreLayout, typer.Option()] = ScoreLayout.table, device: Device = "auto",
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Score forecasters beside persistence and extrapolation, all on the same cases under one mask."""
    _set_up_log(quiet, verbose)
    from nowcast import report
    from nowcast.commands import evaluate_forecasters

    levels = _thresholds(thresholds)
    selection = _selection(None, start, end, every)
    if output:
        report.ready(output, overwrite=overwrite)
    result = evaluate_forecasters(forecasters, observations, selection, thresholds=levels, variable=variable, device=device)
    text = {
        ScoreLayout.table: lambda: report.table(result),
        ScoreLayout.json: lambda: report.as_json(result, result.rows()).rstrip(),
        ScoreLayout.csv: lambda: report.as_csv(result.rows()).rstrip(),
    }
    typer.echo(text[format]())
    if output:
        paths = report.write(result, output, overwrite=overwrite)
        log.info("written: %s", ", ".join(map(str, paths)))
        log.info("next: open %s", output / report.REPORT_HTML)
    else:
        _next(f"nowcast evaluate {' '.join(forecasters)} --observations {observations[0]} --output scores/")


def _selection(listed: list[str] | None, start: str | None, end: str | None, every: float | None):
    from nowcast.cases import Selection

    times = tuple(_time(text, "--reference-time") for text in listed or [])
    return Selection(times, start and _time(start, "--start"), end and _time(end, "--end"), every)


def _time(text: str, option: str):
    from datetime import UTC, datetime

    import numpy as np

    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a time; write it as 2016-09-28T15:00 (UTC)") from None
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time, "s")


def _thresholds(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level < 1e6 for level in levels) or list(levels) != sorted(set(levels)):
        raise UsageError(f"--thresholds {text}: write ascending numbers above 0 with commas, such as 0.5,1,5,10")
    return levels


def _set_up_log(quiet: bool, verbose: bool) -> None:
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def _next(command: str) -> None:
    log.info("next: %s", command)


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=1, allow_nan=False))


def _out_of_memory(error: BaseException) -> bool:
    # torch's own class would have to be imported to be named
    names = {"MemoryError", "OutOfMemoryError", "_ArrayMemoryError"}
    return type(error).__name__ in names or "can't allocate memory" in str(error)


def main() -> None:
    """The entry point: runs a command and turns what a user can act on into one or two lines and an exit code."""
    try:
        app()
    except NowcastError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its exit
        sys.exit(141)
    except Exception as error:
        if not _out_of_memory(error):
            raise
        hint = "out of memory; try a smaller training.batch_size or data.crop, or a machine with more"
        _fail(hint, MemoryLimitError.exit_code)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
