"""The options that several commands share, and functions that check and convert the text of arguments."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperArgument, TyperGroup

from nowcast.commands.completion import configs, devices, forecasters, settings
from nowcast.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from nowcast.prediction.cases import Selection


class Format(StrEnum):
    """Output formats of `inspect` and `train --dry-run`."""

    table = "table"
    json = "json"


class ScoreFormat(StrEnum):
    """Output formats of `evaluate`."""

    table = "table"
    json = "json"
    csv = "csv"


class Commands(TyperGroup):
    """Commands whose help shows arguments without their Python types: RECORD, not RECORD <list[str]>."""

    def get_command(self, context: typer.Context, name: str):
        command = super().get_command(context, name)
        for argument in command.params if command else ():
            if isinstance(argument, TyperArgument):
                argument.display_type_rich = lambda ctx: None
        return command


OUTPUT = ("--output", "-o")
Records = Annotated[list[str], typer.Argument(metavar="RECORD", help="NetCDF files, folders of them, or globs.")]
Variable = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Variable to read, if CF attributes do not tell; A,B: the one that a file has."),
]
Units = Annotated[
    str | None, typer.Option(metavar="UNITS", help="Units of the variable where files state none, such as mm/h or dBZ.")
]
Device = Annotated[
    str,
    typer.Option(metavar="NAME", help="Device to compute on: auto, cpu, cuda, cuda:1, mps.", autocompletion=devices),
]
Hours = Annotated[float | None, typer.Option(metavar="H", help="Hours that a planned training may take; default 2 on a CPU.")]
Start = Annotated[str | None, typer.Option(metavar="T", help="First reference time, such as 2016-09-28T15:00 (UTC).")]
End = Annotated[str | None, typer.Option(metavar="T", help="Last reference time (UTC); a date means the whole day.")]
Every = Annotated[
    float | None, typer.Option(metavar="MINUTES", help="Minutes between reference times, counted from a full hour if possible.")
]
Leads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Number of lead times; default: all of the forecaster.")]
Forecaster = Annotated[
    str,
    typer.Argument(metavar="FORECASTER", help="Run folder, checkpoint, pretrained, or a baseline such as extrapolation.",
                        autocompletion=forecasters),
]  # fmt: skip
Forecasters = Annotated[
    list[str],
    typer.Argument(metavar="FORECASTER", autocompletion=forecasters,
                   help="Run folders, pretrained, baselines, forecast files or scores files; globs."),
]  # fmt: skip
Watch = Annotated[bool, typer.Option("--watch", help="Keep running, and forecast from each new frame.")]
WithProbabilities = Annotated[
    bool, typer.Option("--probabilities", help="Also forecast probabilities of exceeding thresholds.")
]
_Rates = partial(typer.Option, metavar="MM/H,...")
ProbabilityThresholds = Annotated[str | None, _Rates(help="Thresholds for --probabilities, such as 0.5,1,5,10.")]
Members = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=1000, help="Number of ensemble members; default: no ensemble.")
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the members: the same seed gives the same members.")]
Exceeded = Annotated[str | None, _Rates(help="Thresholds whose exceedance to write, such as 1,5.")]
Thresholds = Annotated[str | None, _Rates(help="Thresholds; default: the forecaster's own, else 0.5,1,5,10.")]
Config = Annotated[
    str | None,
    typer.Argument(metavar="CONFIG", help="Config file or name such as radar; without it --data is planned.",
                   autocompletion=configs),
]  # fmt: skip
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a key of the config; can be repeated.",
                                   autocompletion=settings),
]  # fmt: skip
FirstTime = Annotated[str | None, typer.Option("--start", metavar="T", help="First frame, or reference time (UTC).")]
LastTime = Annotated[
    str | None, typer.Option("--end", metavar="T", help="Last frame, or reference time (UTC); a date is the whole day.")
]
FirstFrame = Annotated[str | None, typer.Option("--start", metavar="T", help="For a record: time of the first frame (UTC).")]
LastFrame = Annotated[
    str | None, typer.Option("--end", metavar="T", help="For a record: time of the last frame (UTC), or day.")
]
Drawn = Annotated[str, typer.Argument(metavar="FORECAST|RECORD", help="NetCDF file, folder of them, or glob.")]
Picture = Annotated[
    str,
    typer.Option(*OUTPUT, metavar="PICTURE", help="File to write: panels (.png, .svg, .pdf) or an animation (.gif, .mp4)."),
]
DrawnTime = Annotated[str | None, typer.Option(metavar="T", help="For forecasts: the reference time to draw (UTC).")]
Beside = Annotated[list[str] | None, typer.Option(metavar="RECORD", help="For forecasts: observations to draw beside them.")]
Threshold = Annotated[
    float | None, typer.Option(metavar="MM/H", help="For forecasts: draw the probability of reaching this rain rate.")
]
Motion = Annotated[bool, typer.Option("--motion", help="Draw arrows of the motion of the rain.")]
Sums = Annotated[str | None, typer.Option(metavar="MINUTES,...", help="Also write rain sums over these intervals: 30,60.")]
At = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]LAT,LON", help="A gauge, or a CSV file of gauges; can be repeated.")
]
FansAt = Annotated[
    list[str] | None,
    typer.Option("--at", metavar="[NAME=]LAT,LON", help="Gauge, or CSV file of gauges, at which the report shows members."),
]
Areas = Annotated[list[str] | None, typer.Option(metavar="FILE", help="Areas: GeoJSON, or a shapefile (.shp).")]
Grid = Annotated[
    str | None, typer.Option(metavar="Y,X", help="Rows and columns, for a network that needs the motion of the rain.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist already.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Log only warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]


def parse_time(text: str | None, option: str, *, whole_day: bool = False) -> "np.datetime64 | None":
    """Return a time in UTC; None for None. Raises UsageError (exit 2) for text that is not a time.

    whole_day: whether a date without a time means the last second of the day
    """
    import numpy as np

    from nowcast.netcdf.times.iso import from_iso

    if text is None:
        return None
    time = from_iso(text)
    if time is None:
        raise UsageError(f"{option} {text}: not a time; write it as 2016-09-28T15:00 (UTC)")
    is_date = re.fullmatch(r"\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d(-?\d)?", text)
    return np.datetime64(time, "s") + np.timedelta64(86399 if whole_day and is_date else 0, "s")


def parse_span(start: str | None, end: str | None) -> "tuple[np.datetime64 | None, np.datetime64 | None]":
    """Return the times of --start and --end in UTC; None where one is not given."""
    return parse_time(start, "--start"), parse_time(end, "--end", whole_day=True)


def parse_selection(reference_times: Sequence[str], start: str | None, end: str | None, every: float | None) -> "Selection":
    """Return the reference times asked for, listed or from `start` to `end` in steps of `every` minutes."""
    from nowcast.prediction.cases import Selection

    times = tuple(parse_time(text, "--reference-time") for text in reference_times)
    return Selection(times, parse_time(start, "--start"), parse_time(end, "--end", whole_day=True), every)


def parse_thresholds(text: str | None) -> tuple[float, ...] | None:
    """Return thresholds from text such as 0.5,1,5,10; None for None. Raises UsageError (exit 2) for anything else."""
    from nowcast.quantity import are_thresholds

    if text is None:
        return None
    try:
        thresholds = tuple(float(number) for number in text.split(","))
    except ValueError:
        thresholds = ()
    if not are_thresholds(thresholds):
        raise UsageError(f"--thresholds {text}: write ascending numbers above 0 with commas, such as 0.5,1,5,10")
    return thresholds


def parse_sums(text: str | None) -> tuple[int, ...]:
    """Return minutes to sum over from text such as 30,60; () for None. Raises UsageError (exit 2) for anything else."""
    if text is None:
        return ()
    minutes = tuple(int(number) for number in text.split(",") if re.fullmatch(r"\s*\d{1,5}\s*", number))
    if len(minutes) != len(text.split(",")) or 0 in minutes or list(minutes) != sorted(set(minutes)):
        raise UsageError(f"--sums {text}: write ascending numbers of minutes with commas, such as 30,60")
    return minutes


def parse_message(error: Exception) -> str:
    """Return typer's message, without the exception name that it quotes, and a second line that refers to the help."""
    context, message = getattr(error, "ctx", None), error.format_message().replace("Value error, ", "")
    where = context.command_path if context else "nowcast"
    option = getattr(error, "option_name", None)
    commands = getattr(context and context.command, "commands", {}).values()
    if any(option in parameter.opts for command in commands for parameter in command.params):
        return f"{option} is before the command; options belong after it.\nWrite nowcast COMMAND {option}"
    return f"{message}\nSee {where} -h"


def refuse_stdout(output: str | Path) -> None:
    """Raise UsageError (exit 2) for an output called "-"."""
    if str(output) == "-":
        raise UsageError("--output -: output cannot go to stdout; give a file name (./- for a file called -)")


def as_json(value: object) -> str:
    """Return a value as indented JSON."""
    import json

    return json.dumps(value, indent=1, allow_nan=False)


@contextlib.contextmanager
def file_in(output: str, name: str, suffix: str) -> Iterator[Path]:
    """Yield the file to write: `output`, or if that is a folder or ends in "/", a file in it with the name of the input `name`.

    A folder made for it is removed again if the block fails while it is empty.
    """
    from nowcast.runtime.outputs import making_folder

    if not (output.endswith("/") or os.path.isdir(output)):
        yield Path(output)
        return
    stem = re.sub(r"[*?\[\]]+", "", Path(name).resolve().stem) or "nowcast"
    with making_folder(Path(output)):
        yield Path(output) / f"{stem}{suffix}"


def join_command(command: str, arguments: Iterable, options: Mapping[str, object]) -> str:
    """Return the text of a command line; options without a value are left out. Ellipsis becomes RECORD."""
    words = [command, *map(_word, arguments)]
    for option, value in options.items():
        if value is not None and value != []:
            words += [option, *map(_word, value if isinstance(value, list) else [value])]
    return " ".join(words)


def _word(argument: object) -> str:
    if argument is ...:
        return "RECORD..."
    return f"{argument:g}" if isinstance(argument, float) else shlex.quote(str(argument))


def written_out(argv: Sequence[str]) -> list[str]:
    """Return the words of a command line in the form that typer understands."""
    return spread_observations(name_run(expand_home(argv)))


def name_run(argv: Sequence[str]) -> list[str]:
    """Turn `train --resume RUN` into `train --resume --output RUN`; a config after --resume stays where it is."""
    words = list(argv)
    if words[:1] != ["train"] or "--resume" not in words[:-1]:
        return words
    place = words.index("--resume") + 1
    is_run = not words[place].startswith("-") and not words[place].endswith(".toml") and not os.path.isfile(words[place])
    return [*words[:place], *(["--output"] if is_run else []), *words[place:]]


def expand_home(argv: Sequence[str]) -> list[str]:
    """Replace ~ in words such as --output=~/runs, in which a shell leaves it."""
    parts = (re.fullmatch(r"(--[a-z-]+=)(~(?:/.*)?)", word) for word in argv)
    return [part[1] + os.path.expanduser(part[2]) if part else word for part, word in zip(parts, argv, strict=True)]


def spread_observations(argv: Sequence[str]) -> list[str]:
    """Turn `--observations A B` into `--observations A --observations B`: a shell replaces a glob by several words."""
    words, inside = [], False
    for n, word in enumerate(argv):
        if argv[0] in ("evaluate", "plot") and inside and not word.startswith("-") and argv[n - 1] != "--observations":
            words.append("--observations")
        inside = word == "--observations" or (inside and not word.startswith("-"))
        words.append(word)
    return words


def check_train(chosen: object, format: Format, *, dry_run: bool) -> None:
    """Raise UsageError (exit 2) for arguments of `train` that do not go together; `chosen`: config, data or a run."""
    if not chosen:
        raise UsageError("nothing to train: give a CONFIG such as configs/radar.toml, or --data RECORD to have one planned")
    if format is Format.json and not dry_run:
        raise UsageError("--format json belongs to --dry-run; a training writes RUN/metrics.jsonl")


def check_predict(
    thresholds: str | None, probabilities: bool, members: int | None, seed: int, watch: bool, records: Sequence[str],
    others: Iterable,
) -> None:  # fmt: skip
    """Raise UsageError (exit 2) for arguments of `predict` that do not go together; `others` do not go with --watch."""
    if members and probabilities:
        raise UsageError("--members and --probabilities: give one of them; the fraction of members is a probability")
    if seed and not members:
        raise UsageError("--seed belongs to --members: nothing else is random")
    if thresholds and not probabilities:
        raise UsageError("--thresholds belongs to --probabilities: a forecast in mm/h has none")
    if watch and (any(others) or len(records) != 1):
        raise UsageError("--watch takes one folder, and neither times nor --overwrite: each new frame is forecast once")
