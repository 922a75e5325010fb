"""The commands: parse, call, print, exit code.

Results go to stdout; progress, log and errors to stderr. Nothing heavy is imported before a command runs, so that
`nowcast --help` answers at once.
"""

import errno
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nowcast import __version__
from nowcast.errors import MemoryLimitError, NowcastError, OutputError, UsageError, is_out_of_memory

app = typer.Typer(
    name="nowcast",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train, run and verify precipitation nowcasters on radar archives in NetCDF.",
    epilog="Example: nowcast inspect data/sample.nc",
)
log = logging.getLogger("nowcast")
_ParseError = typer.BadParameter.__base__  # of click or of typer's own copy of it, by typer's version


class Layout(StrEnum):
    """How `inspect` and `train --dry-run` print."""

    table = "table"
    json = "json"


class ScoreLayout(StrEnum):
    """How `evaluate` prints."""

    table = "table"
    json = "json"
    csv = "csv"


Records = Annotated[list[str], typer.Argument(metavar="RECORD", help="NetCDF files, folders of them, or globs.")]
Variable = Annotated[str | None, typer.Option(help="The variable to read, where it cannot be found by CF.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Start = Annotated[str | None, typer.Option(metavar="T", help="First reference time, such as 2016-09-28T15:00 (UTC).")]
End = Annotated[str | None, typer.Option(metavar="T", help="Last reference time, UTC.")]
Every = Annotated[float | None, typer.Option(metavar="MINUTES", help="Minutes between reference times.")]
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
    records: Records, variable: Variable = None, format: Annotated[Layout, typer.Option(help="How to print.")] = Layout.table,
    quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show what radar records hold.

    Grid, times, gaps, missing and wet pixels, and how many training windows they give.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands import inspect as commands_inspect
    from nowcast.netcdf.opening import open_records

    facts = [commands_inspect.inspect(record) for record in open_records(records, variable=variable)]
    if format is Layout.json:
        _print_json(facts)
    else:
        typer.echo("\n".join(commands_inspect.lines(facts)))
    _next(f"nowcast plan {shlex.join(records)} --output my.toml")


@app.command(epilog="Example: nowcast plan radar/2015 --output my.toml")
def plan(
    records: Records,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="The config to write, such as my.toml.")] = None,
    variable: Variable = None, device: Device = "auto",
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Write a config for these records.

    A look at them and a few steps on this machine decide; every value comes with its reason, and `train` takes the file.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands import plan as commands_plan

    if output:
        _refuse_stdout(output)
        commands_plan.check_output(output, records, overwrite=overwrite)
    recipe = commands_plan.plan_records(records, variable=variable or "auto", device=device)
    if output is None:
        typer.echo(recipe.text(), nl=False)
        _next("nowcast train my.toml  # with the text above in my.toml")
        return
    commands_plan.write(recipe, output)
    typer.echo(output)
    _next(f"nowcast train {shlex.quote(str(output))} --output {shlex.quote(str(Path('runs') / output.stem))}")


@app.command(epilog="Example: nowcast train configs/radar.toml --data radar/ --set training.steps=500 --output runs/radar")
def train(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A TOML file; without it --data is planned.")] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="RECORD", help="Records, in place of data.records.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one key.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder; default runs/CONFIG.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and train nothing.")] = False,
    format: Annotated[Layout, typer.Option(help="How --dry-run prints.")] = Layout.table,
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Train a network on radar records.

    The run folder then holds all that forecasting needs: the config, the best checkpoint, and the log.
    """
    _set_up_log(quiet, verbose)
    from nowcast import config as configs
    from nowcast.commands.plan import planned, run_config
    from nowcast.commands.train import dry_run_facts, dry_run_lines, train_run
    from nowcast.training.run_folder import check_free

    if config is None and not data:
        raise UsageError("nothing to train: give a CONFIG such as configs/radar.toml, or --data RECORD to have one planned")
    if format is Layout.json and not dry_run:
        raise UsageError("--format json belongs to --dry-run; a training writes RUN/metrics.jsonl")
    run = output or Path("runs") / (Path(config).stem if config else "planned")
    settings, write = list(set_ or []), configs.write
    if config is not None:
        experiment = configs.read(config, settings)
    elif resume:
        experiment, write = run_config(run, settings)
    else:
        if not dry_run:
            check_free(run, overwrite=overwrite)  # before the minute that a plan takes
        experiment, recipe = planned(data, settings, device=device)
        write = recipe.text
    if data:
        experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"records": tuple(data)})})
    if dry_run:
        facts = dry_run_facts(experiment, device)
        if not _is_first():
            return
        _print_json(facts) if format is Layout.json else typer.echo("\n".join(dry_run_lines(facts)))
        _next("the same without --dry-run")
        return
    _refuse_stdout(run)
    result = train_run(experiment, run, resume=resume, overwrite=overwrite, device=device, write=write)
    if not _is_first():
        return
    typer.echo(result)
    _next(f"nowcast predict {shlex.quote(str(run))} RECORD... --output forecast.nc")


@app.command(epilog="Example: nowcast predict runs/radar radar/today/ --output forecast.nc")
def predict(
    forecaster: Annotated[str, typer.Argument(metavar="FORECASTER", help="A run folder, a checkpoint or a baseline's name.")],
    records: Records,
    output: Annotated[str, typer.Option(metavar="PATH", help="A file, or with a / at its end a folder: one file per time.")],
    reference_time: Annotated[list[str] | None, typer.Option(metavar="T", help="Forecast from this time, UTC.")] = None,
    start: Start = None, end: End = None, every: Every = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and forecast from each frame that comes.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also of exceeding thresholds of rain.")] = False,
    thresholds: Annotated[str | None, typer.Option(help="Of --probabilities, such as 0.5,1,5,10 mm/h.")] = None,
    variable: Variable = None, device: Device = "auto",
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Forecast into CF NetCDF.

    Forecasts start from the newest frames of the records, or from the times asked for.

    With --watch, RECORD is one folder and PATH another: each new frame gives one forecast, until Ctrl-C or SIGTERM.
    """
    _set_up_log(quiet, verbose)
    _refuse_stdout(output)
    from nowcast.commands.predict import predict_files, watch_folder

    if thresholds and not probabilities:
        raise UsageError("--thresholds belongs to --probabilities: a forecast in mm/h has none")
    options = {"variable": variable, "device": device, "probabilities": probabilities, "thresholds": _thresholds(thresholds)}
    if watch:
        if reference_time or start or end or every or overwrite or len(records) != 1:
            raise UsageError("--watch takes one folder to watch, no times and no --overwrite: it forecasts what comes, once")
        for path in watch_folder(forecaster, records[0], output, **options):
            typer.echo(path)
        return
    selection = _selection(reference_time, start, end, every)
    written = predict_files(forecaster, records, output, selection, overwrite=overwrite, **options)
    if not _is_first():
        return
    typer.echo("\n".join(map(str, written)))
    _next(f"nowcast evaluate {shlex.quote(forecaster)} --observations {shlex.join(records)} --output scores/")


@app.command(epilog="Example: nowcast export runs/radar --output radar.onnx")
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder or a checkpoint.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file to write, ending in .onnx or .pt2.")],
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Write a trained network as ONNX or PyTorch program.

    The file maps past mm/h to forecast mm/h, NaN for missing, and runs without nowcast.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.export import export_run

    call = export_run(run, output, overwrite=overwrite)
    typer.echo(output)
    _next(f"{call}  # past: float32 (case, time, y, x) in mm/h, NaN missing")


@app.command(epilog="Example: nowcast evaluate runs/radar --observations radar/2016/ --output scores/")
def evaluate(
    context: typer.Context,
    forecasters: Annotated[list[str], typer.Argument(metavar="FORECASTER", help="Runs, baselines, forecast or scores files.")],
    observations: Annotated[list[str] | None, typer.Option(metavar="RECORD...", help="The records to score against.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder for tables, pictures and report.html.")] = None,
    start: Start = None, end: End = None, every: Every = None,
    thresholds: Annotated[str | None, typer.Option(help="Default 0.5,1,5,10 mm/h.")] = None,
    variable: Variable = None, format: Annotated[ScoreLayout, typer.Option(help="How to print.")] = ScoreLayout.table,
    device: Device = "auto", overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Score forecasters against radar records.

    Persistence and extrapolation are scored beside them, all on the same cases and under one common mask. Earlier
    scores.nc files are pooled, without --observations.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.evaluate import evaluate_forecasters, pooled_scores
    from nowcast.evaluation import score_files
    from nowcast.report import folder
    from nowcast.report.table import table

    levels = _thresholds(thresholds)
    selection = _selection(None, start, end, every)
    if output and _is_first():
        _refuse_stdout(output)
        folder.ready(output, overwrite=overwrite)
    outputs = [output / name for name in folder.FILES] if output else []
    options = {"--observations": observations, "--thresholds": thresholds, "--variable": variable}
    options |= {"--start": start, "--end": end, "--every": every}
    result = pooled_scores(forecasters, options, outputs=outputs)
    if not result and not observations:
        raise UsageError("Missing option '--observations'.\nSee nowcast evaluate -h")
    if not result:
        facts = {
            "thresholds": levels,
            "variable": variable,
            "device": device,
            "examples": output is not None,
            "outputs": outputs,
        }
        result = evaluate_forecasters(forecasters, observations, selection, **facts)
    if not _is_first():
        return
    rows = result.rows()
    text = {
        ScoreLayout.table: lambda: table(result),
        ScoreLayout.json: lambda: score_files.as_json(result, rows).rstrip(),
        ScoreLayout.csv: lambda: score_files.as_csv(rows).rstrip(),
    }
    typer.echo(text[format]())
    if output:
        paths = folder.write(result, rows, output, command=context.obj or "", overwrite=overwrite)
        log.info("written: %s", ", ".join(map(str, paths)))
        _next(f"open {shlex.quote(str(paths[0]))}")
    else:
        against = f" --observations {shlex.join(observations)}" if observations else ""
        _next(f"nowcast evaluate {shlex.join(forecasters)}{against} --output scores/")


@app.command(epilog="Example: nowcast plot forecast.nc --output forecast.gif")
def plot(
    path: Annotated[str, typer.Argument(metavar="FORECAST|RECORD", help="A NetCDF file, a folder of them, or a glob.")],
    output: Annotated[Path, typer.Option(metavar="PICTURE", help="The file to write: .png has panels, .gif is animated.")],
    variable: Variable = None,
    reference_time: Annotated[str | None, typer.Option(metavar="T", help="Of forecasts: from this time, UTC.")] = None,
    start: Annotated[str | None, typer.Option(metavar="T", help="Of a record: the first frame, UTC.")] = None,
    end: Annotated[str | None, typer.Option(metavar="T", help="Of a record: the last frame, UTC.")] = None,
    overwrite: Overwrite = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Draw a forecast or a record.

    Maps of the newest forecast, or of the newest frames, unless others are asked for.
    """
    _set_up_log(quiet, verbose)
    from nowcast.commands.plot import plot as draw

    times = [_time(text, option) for text, option in ((reference_time, "--reference-time"), (start, "--start"), (end, "--end"))]
    drawn = draw(path, output, variable=variable, reference=times[0], span=tuple(times[1:]), overwrite=overwrite)
    typer.echo(output)
    if drawn.is_forecast:
        _next(f"nowcast evaluate {shlex.quote(path)} --observations RECORD... --output scores/")
    else:
        _next(f"nowcast predict extrapolation {shlex.quote(path)} --output forecast.nc")


def _selection(listed: list[str] | None, start: str | None, end: str | None, every: float | None):
    from nowcast.prediction.cases import Selection

    times = tuple(_time(text, "--reference-time") for text in listed or [])
    return Selection(times, _time(start, "--start"), _time(end, "--end"), every)


def _time(text: str | None, option: str):
    from datetime import UTC, datetime

    import numpy as np

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text}: not a time; write it as 2016-09-28T15:00 (UTC)") from None
    return np.datetime64(time, "s")


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


def _refuse_stdout(output: str | Path) -> None:
    if str(output) == "-":
        raise UsageError("--output -: this cannot go to stdout; give a name (./- for one that is called so)")


def _is_first() -> bool:
    """Of several processes that torchrun started one speaks (distributed.py, which would import torch)."""
    return os.environ.get("RANK", "0") == "0"


def _set_up_log(quiet: bool, verbose: bool) -> None:
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    level = level if _is_first() else logging.ERROR
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


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point: runs a command and turns what a user can act on into one or two lines and an exit code."""
    from nowcast.runtime.signals import Terminated, terminating

    try:
        arguments = spread_observations(sys.argv[1:] if argv is None else argv)
        with terminating():
            code = app(args=arguments, prog_name="nowcast", standalone_mode=False, obj=shlex.join(["nowcast", *arguments]))
    except NowcastError as error:
        _fail(str(error), error.exit_code)
    except _ParseError as error:
        _fail(_parse_message(error), UsageError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Terminated:
        _fail("terminated", 143)
    except Exception as error:
        _fail(*_explain(error))
    if code == 130:
        _fail("interrupted", code)
    sys.exit(code if isinstance(code, int) else 0)


def spread_observations(argv: Sequence[str]) -> list[str]:
    """`--observations A B` as `--observations A --observations B`: a shell writes a glob out as A B."""
    out, inside = [], False
    for n, word in enumerate(argv):
        if argv[0] == "evaluate" and inside and not word.startswith("-") and argv[n - 1] != "--observations":
            out.append("--observations")
        inside = word == "--observations" or (inside and not word.startswith("-"))
        out.append(word)
    return out


def _parse_message(error: Exception) -> str:
    """typer's message and where to look, on two lines; without the name of the exception that it quotes."""
    where = error.ctx.command_path if getattr(error, "ctx", None) else "nowcast"
    return f"{error.format_message().replace('Value error, ', '')}\nSee {where} -h"


def _explain(error: Exception) -> tuple[str, int]:
    """Message and exit code of what no part of the program foresaw but the user can act on; raises what is a bug."""
    if is_out_of_memory(error):
        hint = "out of memory; try a smaller training.batch_size or data.crop, or a machine with more"
        return hint, MemoryLimitError.exit_code
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}:
        return f"{error.filename or 'an output'}: {error.strerror}", OutputError.exit_code
    raise error


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
