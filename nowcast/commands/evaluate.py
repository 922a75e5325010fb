"""Implement `nowcast evaluate`: open forecasters and records and score them, or pool earlier scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nowcast.commands.predict import reading_for
from nowcast.errors import UsageError
from nowcast.evaluation import pooling, score_files
from nowcast.evaluation.evaluate import evaluate
from nowcast.evaluation.probabilities import default_thresholds
from nowcast.evaluation.result import Evaluation
from nowcast.forecasters import device_for, open_forecaster, spread_runs
from nowcast.forecasters.baselines import BASELINES, available
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.members.ensemble import Ensemble
from nowcast.netcdf.index import open_with_index
from nowcast.prediction.cases import Selection
from nowcast.prediction.gauges import read_gauges, require_own_names
from nowcast.report.folder import FILES
from nowcast.report.sentences import seen_cases
from nowcast.report.table import ANY_WIDTH, table
from nowcast.runtime import distributed
from nowcast.runtime.outputs import may_write
from nowcast.runtime.streams import terminal_width

if TYPE_CHECKING:
    import torch

TIMES = ("--observations", "--start", "--end", "--every")  # options that choose cases


def score(
    names: Sequence[str],
    observations: Sequence[str] | None,
    selection: Selection,
    options: Mapping[str, object],
    *,
    thresholds: tuple[float, ...] | None,
    variable: str | None,
    units: str | None = None,
    device: str,
    output: Path | None,
    leads: int | None = None,
    members: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score the named forecasters on the observations, or pool the scores of earlier scores.nc files if they are named.

    options: by name, the values of the command-line options that choose what to score, and of --at for the report
    thresholds: mm/h
    output: folder of the report to be written, or None
    leads: number of lead times, or None for as many as all can forecast
    members, seed: number of ensemble members to score of each forecaster that is named, or None; seed of their random numbers

    Raises UsageError (exit 2) for forecasters without observations, and as the functions below.
    """
    at = options.get("--at") or ()
    outputs = [output / name for name in FILES] if output else []
    result = pooled_scores(names, options, outputs=outputs)
    if result:
        return result
    if at and not output:
        raise UsageError("--at needs --output: the report shows members there.\nGive --output scores/, or leave --at out.")
    if not observations:
        raise UsageError("Missing option '--observations'.\nSee nowcast evaluate -h")
    return evaluate_forecasters(
        names, observations, selection, thresholds=thresholds, variable=variable, units=units,
        device=device, leads=leads, members=members, seed=seed, at=at, examples=output is not None, outputs=outputs,
    )  # fmt: skip


def evaluate_forecasters(
    forecasters: Sequence[str | Forecaster],
    observations: Sequence[str],
    selection: Selection,
    *,
    thresholds: tuple[float, ...] | None,
    variable: str | None,
    units: str | None = None,
    device: str,
    leads: int | None = None,
    members: int | None = None,
    seed: int = 0,
    at: Sequence[str] = (),
    examples: bool = False,
    outputs: Sequence[Path] = (),
) -> Evaluation:
    """Score the forecasters, and all installed baselines, on the same cases.

    forecasters: names, or forecasters that are open already
    thresholds: mm/h, or None for the forecasters' or the quantity's own
    at: gauges; outputs: the files that will be written

    Raises OutputError (exit 5) if an input is among the outputs, UsageError (2) for no forecaster, or gauges without members.
    """
    if places := read_gauges(at):
        require_own_names(places)
    where = distributed.join(device_for(named := spread_runs(forecasters), device))
    opened = open_all(named, device=where, variable=variable, units=units, members=members, seed=seed)
    if at and not any(forecaster.num_members > 1 for forecaster in opened.values()):
        raise UsageError(f"--at {at[0]}: there are no members to show at a gauge.\nGive --members 24, or files of an ensemble.")
    for forecaster in opened.values() if leads is not None else ():
        forecaster.limit_leads(leads)
    in_forecasts = any(forecaster.variable in (variable or "").split(",") for forecaster in opened.values())
    records = open_with_index(observations, strict=not in_forecasts, **reading_for(opened.values(), variable, units))
    inputs = [path for record in records for path in record.paths]
    inputs += [path for forecaster in opened.values() for path in forecaster.files]
    may_write(outputs, overwrite=True, inputs=inputs, makes_folder=True)
    thresholds = thresholds or default_thresholds(opened.values()) or records[0].quantity.thresholds
    asked = {"selection": selection, "thresholds": thresholds, "examples": examples, "places": places}
    return replace(evaluate(opened, records, **asked), inputs=inputs)


def pooled_scores(names: Sequence[str], options: Mapping[str, object], *, outputs: Sequence[Path] = ()) -> Evaluation | None:
    """Pool earlier scores.nc files into one evaluation; return None if the names are those of forecasters.

    options: by name, the values of the command-line options that choose what to score

    Raises UsageError (exit 2) if an option has a value, OutputError (5) if one of the `outputs` is among the files.
    """
    score_files = [name for name in names if pooling.is_scores_file(name)]
    if not score_files:
        return None
    if others := [name for name in names if name not in score_files]:
        raise UsageError(f"{score_files[0]} holds scores and {others[0]} does not: pool scores.nc files alone")
    if set_options := [option for option, value in options.items() if value]:
        raise UsageError(f"{set_options[0]} cannot be given with scores.nc files, in which it is fixed")
    if twice := next((name for n, name in enumerate(names) if name in names[:n]), None):
        raise UsageError(f"{twice} is named twice: its cases would count twice")
    may_write(outputs, overwrite=True, inputs=map(Path, names), makes_folder=True)
    return pooling.pool(names)


def for_new_records(result: Evaluation, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options for the next evaluation; if a network has seen cases of these records, with other RECORDs to fill in.

    Pooled scores name no records.
    """
    if not options["--observations"] or not seen_cases(result):
        return dict(options)
    return {option: value for option, value in options.items() if option not in TIMES} | {"--observations": ...}


def scores_text(result: Evaluation, rows: list[dict], format: str) -> str:
    """Return the scores as text for stdout, in the format "table", "json" or "csv"; rows: of the result.

    A table is fitted to the width of the terminal.
    """
    if format == "table":
        return table(result, terminal_width() or ANY_WIDTH, rows=rows)
    return (score_files.as_json(result, rows) if format == "json" else score_files.as_csv(rows)).rstrip()


def open_all(
    names: Sequence[str | Forecaster],
    *,
    device: "torch.device | None",
    variable: str | None = None,
    units: str | None = None,
    members: int | None = None,
    seed: int = 0,
) -> dict[str, Forecaster]:
    """Return the named forecasters, then the baselines that every evaluation scores, by the names that scores give them.

    names: some may be forecasters that are open already
    members: number of members to score of the named forecasters that give members; default: that of each ensemble
    seed: of the random numbers of all members

    A run or file with the name of another forecaster or baseline is identified by its path. Raises UsageError
    (exit 2) for a forecaster that is named twice, and for a seed without members.
    """
    always = [name for name in available() if BASELINES[name].always_scored and name not in names]
    opened: dict[str, Forecaster] = {}
    if twice := next((name for n, name in enumerate(names) if name in names[:n]), None):
        raise UsageError(f"{twice if isinstance(twice, str) else twice.name} is named twice among the forecasters")
    for given in [*names, *always]:
        is_open = isinstance(given, Forecaster)
        forecaster = given if is_open else open_forecaster(given, device=device, variable=variable, units=units)
        path = str(next(iter(given.files), given.name)) if is_open else given
        is_taken = forecaster.name in opened or (forecaster.name in BASELINES and path not in BASELINES)
        name = path if is_taken else forecaster.name
        if given in names and forecaster.gives_members and (members or forecaster.default_members > 1):
            forecaster = Ensemble(forecaster, members or forecaster.default_members, seed)
        if name in opened:
            raise UsageError(f"{path} is named twice among the forecasters")
        opened[name] = forecaster
    _check_members(names, opened, members, seed)
    return opened


def _check_members(names: Sequence[str | Forecaster], opened: Mapping[str, Forecaster], members: int | None, seed: int) -> None:
    """Raise UsageError (exit 2) for a number of members, or a seed, where none of the forecasters draws members."""
    if any(forecaster.is_ensemble for forecaster in opened.values()):
        return
    if members:
        if held := next((each for each in opened.values() if each.num_members > 1), None):
            holds = f"{held.name} holds {held.num_members} members, which are all scored"
            raise UsageError(f"--members {members}: {holds}.\nLeave --members out.")
        raise UsageError(f"--members {members}: none of {', '.join(map(str, names))} gives members; extrapolation does")
    if seed:
        raise UsageError("--seed belongs to --members: nothing else is random")
