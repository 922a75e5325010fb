"""The command line: parse the arguments, call the command, print its result, set the exit code.

Results go to stdout; progress, log and errors to stderr. Commands import heavy modules late: `nowcast --help` answers at once.
"""

import functools
import logging
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from nowcast import __version__
from nowcast.commands import arguments as args
from nowcast.commands import arguments_of_convert
from nowcast.errors import NowcastError, UsageError, explain_failure

app = typer.Typer(
    name="nowcast", context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False,
    rich_markup_mode=None, cls=args.Commands, epilog="Example: nowcast inspect data/sample.nc",
    help="Train, run and verify precipitation nowcasters on radar archives in NetCDF.",
)  # fmt: skip
log = logging.getLogger("nowcast")
_command = functools.cache(typer.main.get_command)  # a call of `app` would make all commands anew, which takes 14 ms
_ParseError = typer.BadParameter.__base__  # a class of click, or of typer's own copy of click, depending on its version


@app.callback(invoke_without_command=True)
def nowcast(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Train, run and verify precipitation nowcasters on radar archives in NetCDF."""
    if version:
        typer.echo(f"nowcast {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: nowcast inspect radar/2015*.nc")
def inspect(
    records: args.Records, variable: args.Variable = None, units: args.Units = None,
    format: Annotated[args.Format, typer.Option(help="Output format.")] = args.Format.table,
    quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Show what radar records contain.

    Shows the grid, times, gaps, percentages of missing and wet cells, and the number of training windows.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.inspect import as_lines, inspect_files, next_step

    inspected = inspect_files(records, variable=variable, units=units)
    typer.echo(args.as_json(inspected) if format is args.Format.json else "\n".join(as_lines(inspected)))
    _next(*next_step(records, inspected, variable=variable, units=units))


@app.command(epilog="Example: nowcast convert radar/ --output archive/")
@functools.wraps(arguments_of_convert.convert)
def convert(**options: Any) -> None:
    _set_up_log(options.pop("quiet"), options.pop("verbose"))
    args.refuse_stdout(options["output"])
    from nowcast.commands.convert import convert_files

    for path in convert_files(**options):
        typer.echo(path)
    _next("nowcast inspect", [options["output"]])


@app.command(epilog="Example: nowcast plan radar/2015 --output my.toml")
def plan(
    records: args.Records,
    output: Annotated[str | None, typer.Option(*args.OUTPUT, metavar="FILE", help="Config; default: print it.")] = None,
    hours: args.Hours = None, variable: args.Variable = None, units: args.Units = None, device: args.Device = "auto",
    overwrite: args.Overwrite = False, quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Write a config for training on these records.

    Values are chosen from the records and the speed of this machine. Each has a comment with the reason.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.plan import check_output, plan_records, write

    options = {"variable": variable or "auto", "units": units or "auto", "device": device, "hours": hours}
    if not output:
        typer.echo(plan_records(records, **options).text(), nl=False)
        _next("nowcast train my.toml  # with the text above in my.toml")
        return
    args.refuse_stdout(output)
    with args.file_in(output, records[0], ".toml") as path:
        check_output(path, records, overwrite=overwrite)
        write(plan_records(records, **options), path, overwrite=overwrite)
    typer.echo(path)
    _next("nowcast train", [path], {"--output": Path("runs") / path.stem})


@app.command(epilog="Example: nowcast train configs/radar.toml --data radar/ --set training.steps=500 --output runs/radar")
def train(
    config: args.Config = None,
    data: Annotated[list[str] | None, typer.Option(metavar="RECORD", help="Records, instead of those of the config.")] = None,
    set_: args.Settings = None,
    output: Annotated[Path | None, typer.Option(*args.OUTPUT, metavar="RUN", help="Run folder; default runs/CONFIG.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run from its last checkpoint: --resume RUN.")] = False,
    hours: args.Hours = None, device: args.Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, without training.")] = False,
    format: Annotated[args.Format, typer.Option(help="Output format of --dry-run.")] = args.Format.table,
    overwrite: args.Overwrite = False, quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Train a network on radar records.

    The run folder then holds the config, the best checkpoint, from which forecasts are made, and the log.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.choose_config import choose_config
    from nowcast.commands.train import dry_run_lines, dry_run_summary, train_run

    args.check_train(config or data or (resume and output), format, dry_run=dry_run)
    run = output or Path("runs") / (Path(config).stem if config else "planned")
    experiment, write = choose_config(
        config, data or (), set_ or (), run=run, resume=resume, overwrite=overwrite, device=device, dry_run=dry_run, hours=hours
    )  # fmt: skip
    if dry_run:
        estimated = dry_run_summary(experiment, device)
        if _is_first():
            typer.echo(args.as_json(estimated) if format is args.Format.json else "\n".join(dry_run_lines(estimated)))
            _next("the same without --dry-run")
        return
    args.refuse_stdout(run)
    result = train_run(experiment, run, resume=resume, overwrite=overwrite, device=device, write=write)
    if _is_first():
        typer.echo(result)
        _next("nowcast predict", [run, ...], {"--output": "forecast.nc"})


@app.command(epilog="Example: nowcast predict runs/radar radar/today/ --output forecast.nc")
def predict(
    forecaster: args.Forecaster,
    records: args.Records,
    output: Annotated[str, typer.Option(*args.OUTPUT, metavar="PATH", help="File to write, or folder/: a file per time.")],
    reference_time: Annotated[list[str] | None, typer.Option(metavar="T", help="Time to forecast from (UTC).")] = None,
    start: args.Start = None, end: args.End = None, every: args.Every = None, leads: args.Leads = None,
    watch: args.Watch = False, probabilities: args.WithProbabilities = False, thresholds: args.ProbabilityThresholds = None,
    sums: args.Sums = None, members: args.Members = None, seed: args.Seed = 0, variable: args.Variable = None,
    units: args.Units = None, device: args.Device = "auto", overwrite: args.Overwrite = False,
    quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Make forecasts and write them as CF NetCDF, from the newest frames of the records or the reference times given.

    With --watch, RECORD and PATH are folders: each new frame in RECORD gives one forecast, until Ctrl-C or SIGTERM.
    """
    _set_up_log(quiet, verbose)
    args.refuse_stdout(output)
    from nowcast.commands.predict import predict_files, watch_folder

    asked = thresholds, probabilities, members, seed, watch, records
    args.check_predict(*asked, (reference_time, start, end, every, overwrite))
    options = {"variable": variable, "units": units, "device": device, "leads": leads, "members": members, "seed": seed}
    options |= {"thresholds": args.parse_thresholds(thresholds), "sums": args.parse_sums(sums), "probabilities": probabilities}
    if watch:
        for path in watch_folder(forecaster, records[0], output, **options):
            typer.echo(path)
        return
    selection = args.parse_selection(reference_time or (), start, end, every)
    written = predict_files(forecaster, records, output, selection, overwrite=overwrite, **options)
    if not _is_first():
        return
    typer.echo("\n".join(map(str, written)))
    picture = written[0].with_suffix(".png") if len(written) == 1 else Path(output) / "forecasts.gif"
    _next("nowcast plot", [written[-1]], {"--output": picture})


@app.command(epilog="Example: nowcast export runs/radar --output radar.onnx --grid 640,710")
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder or checkpoint.")],
    output: Annotated[str, typer.Option(*args.OUTPUT, metavar="FILE", help="File to write, ending in .onnx or .pt2.")],
    grid: args.Grid = None, overwrite: args.Overwrite = False, quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Write a trained network as an ONNX or PyTorch program.

    The program takes past frames and returns forecast frames, in mm/h with NaN for missing, and runs without nowcast.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.export import export_run

    with args.file_in(output, run, ".onnx") as path:
        call = export_run(run, path, grid=grid, overwrite=overwrite)
    typer.echo(path)
    _next(f"{call}  # past: float32 (case, time, y, x) in mm/h, NaN missing")


@app.command(epilog="Example: nowcast evaluate runs/radar --observations radar/2016/ --output scores/")
def evaluate(
    context: typer.Context,
    forecasters: args.Forecasters,
    observations: Annotated[list[str] | None, typer.Option(metavar="RECORD...", help="Records to score against.")] = None,
    output: Annotated[Path | None, typer.Option(*args.OUTPUT, metavar="DIR", help="Folder for tables and report.html.")] = None,
    start: args.Start = None, end: args.End = None, every: args.Every = None, leads: args.Leads = None,
    members: args.Members = None, seed: args.Seed = 0, at: args.FansAt = None, thresholds: args.Thresholds = None,
    format: Annotated[args.ScoreFormat, typer.Option(help="Output format.")] = args.ScoreFormat.table,
    variable: args.Variable = None, units: args.Units = None, device: args.Device = "auto",
    overwrite: args.Overwrite = False, quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Score forecasters against radar records.

    Persistence and extrapolation are scored too; all are scored on the same cases and with the same missing cells.
    Instead of forecasters, scores.nc files of earlier evaluations can be given, without --observations, to pool them.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.evaluate import for_new_records, score, scores_text
    from nowcast.report import folder

    reading = {"thresholds": args.parse_thresholds(thresholds), "variable": variable, "units": units, "device": device}
    when, drawn = {"start": start, "end": end, "every": every}, {"leads": leads, "members": members, "seed": seed}
    if output and _is_first():
        args.refuse_stdout(output)
        folder.ready(output, overwrite=overwrite)
    options = {"--observations": observations, "--thresholds": thresholds, "--variable": variable, "--units": units}
    options |= {f"--{name}": value or None for name, value in (when | drawn).items()} | {"--at": at}
    result = score(forecasters, observations, args.parse_selection((), **when), options, output=output, **drawn, **reading)
    if not _is_first():
        return
    rows = result.rows()
    typer.echo(scores_text(result, rows, format))
    if output:
        paths = folder.write(result, rows, output, command=context.obj or "", overwrite=overwrite)
        _next(f"open {shlex.quote(str(paths[0]))}")
    else:
        _next("nowcast evaluate", forecasters, for_new_records(result, options) | {"--output": "scores/"})


@app.command(epilog="Example: nowcast plot forecast.nc --output forecast.gif")
def plot(
    path: args.Drawn, output: args.Picture, variable: args.Variable = None, reference_time: args.DrawnTime = None,
    start: args.FirstFrame = None, end: args.LastFrame = None, observations: args.Beside = None,
    threshold: args.Threshold = None, motion: args.Motion = False, units: args.Units = None,
    overwrite: args.Overwrite = False, quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Draw a forecast or a record.

    By default the newest forecast, or the newest frames of a record, are drawn, cut to the area with data.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.plot import plot as draw

    reference = args.parse_time(reference_time, "--reference-time")
    reading = {"variable": variable, "units": units, "span": args.parse_span(start, end), "observations": observations or ()}
    how = {"reference": reference, "threshold": threshold, "with_motion": motion, "overwrite": overwrite}
    with args.file_in(output, path, ".png") as picture:
        drawn = draw(path, picture, **how, **reading)
    typer.echo(picture)
    if not drawn.is_forecast:
        _next("nowcast predict extrapolation", [path], {"--variable": variable, "--output": "forecast.nc"})
        return
    _next("nowcast evaluate", [path], {"--observations": observations or ..., "--variable": variable, "--output": "scores/"})


@app.command(epilog="Example: nowcast series forecast.nc radar/2016 --at Town=48.14,11.58 --sums 30,60 --output town.csv")
def series(
    inputs: Annotated[list[str], typer.Argument(metavar="FORECAST|RECORD", help="NetCDF files, folders of them, or globs.")],
    output: Annotated[str, typer.Option(*args.OUTPUT, metavar="FILE", help="File to write: a table (.csv) or NetCDF (.nc).")],
    at: args.At = None, areas: args.Areas = None, sums: args.Sums = None, thresholds: args.Exceeded = None,
    start: args.FirstTime = None, end: args.LastTime = None, variable: args.Variable = None, units: args.Units = None,
    overwrite: args.Overwrite = False, quiet: args.Quiet = False, verbose: args.Verbose = False,
) -> None:  # fmt: skip
    """Write the rain at gauges and of catchments as time series.

    Rain rate, sums and exceedance of thresholds, of records and forecasts alike; of areas the mean, weighted by area.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.series import write_places

    options = {"sums": args.parse_sums(sums), "thresholds": args.parse_thresholds(thresholds)}
    options |= {"variable": variable, "units": units, "span": args.parse_span(start, end)}
    with args.file_in(output, inputs[0], ".csv") as path:
        write_places(inputs, path, at or (), areas or (), overwrite=overwrite, **options)
    typer.echo(path)
    _next("open" if path.suffix == ".csv" else "ncdump -h", [path])


def _is_first() -> bool:
    """Return whether this process is the one of several under torchrun that prints. Does not import torch to find out."""
    return os.environ.get("RANK", "0") == "0"


def _set_up_log(quiet: bool, verbose: bool) -> None:
    from nowcast.runtime.log_lines import set_up_log

    set_up_log(log, sys.stderr, quiet=quiet, verbose=verbose, is_first=_is_first())


def _next(command: str, arguments: Iterable = (), options: Mapping[str, object] | None = None) -> None:
    log.info("next: %s", args.join_command(command, arguments, options or {}))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. Print an error that the user can act on in one or two lines, and exit with its code."""
    from nowcast.runtime.libraries import wait_asleep
    from nowcast.runtime.signals import Terminated, terminating
    from nowcast.runtime.streams import open_streams

    open_streams()
    wait_asleep()
    try:
        arguments = args.written_out(sys.argv[1:] if argv is None else argv)
        with terminating():
            code = _command(app)(arguments, "nowcast", standalone_mode=False, obj=shlex.join(["nowcast", *arguments]))
    except NowcastError as error:
        _fail(str(error), error.exit_code)
    except _ParseError as error:
        _fail(args.parse_message(error), UsageError.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:  # typer takes EOFError for Ctrl-D; here a file has ended too early
        code = _fail(*explain_failure(early)) if isinstance(early := error.__cause__, EOFError) else 130
    except Terminated:
        _fail("terminated", 143)
    except Exception as error:
        _fail(*explain_failure(error))
    if code == 130:
        _fail("interrupted", code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    try:  # to be stopped is no error
        print(message if code in (130, 143) else f"error: {message}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it: the exit code remains
        os._exit(code)
    sys.exit(code)
