"""Pool scores.nc files: add their sums by block to one evaluation, as if all cases had been scored at once."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nowcast.errors import DataError, UsageError
from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.score_files import FORMAT, FORMAT_NUMBER, block_variable, sums_dim
from nowcast.netcdf.files import global_attributes
from nowcast.netcdf.writing.variables import read_variables
from nowcast.quantity import Quantity
from nowcast.scores import KINDS
from nowcast.scores.sums import Additive, Tally

log = logging.getLogger(__name__)
SUFFIX = ".nc"


def is_scores_file(name: str) -> bool:
    """Return whether a path is a scores.nc file (of any format number) and not, for example, a forecast file."""
    path = Path(name)
    if path.suffix != SUFFIX or not path.is_file():
        return False
    try:
        return FORMAT in global_attributes(path)
    except DataError:
        return False  # it is then read as a forecast file, which raises an error with the reason


def pool(paths: Sequence[str | Path]) -> Evaluation:
    """Read scores.nc files and return them as one evaluation.

    Raises DataError (exit 3) if a file cannot be read, UsageError (exit 2) if the files differ in what they score or hold the
    same cases.
    """
    first, *others = (_read_with_remarks(path) for path in paths)
    origins = dict.fromkeys(next(iter(first.blocks.values())), paths[0])
    for path, other in zip(paths[1:], others, strict=True):
        _require_alike(first, other, paths[0], path)
        for block in next(iter(other.blocks.values())):
            if block in origins:
                raise UsageError(
                    f"{origins[block]} and {path} both hold {block[0]} on {block[1]}: its cases would count twice.\n"
                    "Pool evaluations of different days or records."
                )
            origins[block] = path
        _require_different_rain(first, other, origins)
        first.about = _merge_about(first.about, other.about, paths[0], path)
        first.merge(other)
    first.sort()
    return first


def _read_with_remarks(path: str | Path) -> Evaluation:
    """Read a scores.nc, and warn of what it left out, with the path."""
    evaluation = read_scores(path)
    if "left_out" in evaluation.about:
        evaluation.about["left_out"] = [f"{path}: {text}" for text in evaluation.about["left_out"]]
        log.warning("%s", "\n".join(evaluation.about["left_out"]))
    return evaluation


def _require_alike(a: Evaluation, b: Evaluation, path_a: str | Path, path_b: str | Path) -> None:
    """Raise UsageError if two evaluations differ in their quantity, forecasters, lead times, thresholds or scores."""
    for describe in (_subject, _kinds_of_sums, _parameters_of_sums):  # in this order: sums have parameters of their kinds
        description_a, description_b = describe(a), describe(b)
        for item, value_a in description_a.items():
            if value_a != (value_b := description_b.get(item)):
                raise UsageError(
                    f"{path_a} and {path_b} cannot be pooled, because their {item} differ" + _difference(value_a, value_b)
                )


def _subject(evaluation: Evaluation) -> dict[str, object]:
    """Return what was scored, by name (in the plural)."""
    names = sorted(evaluation.blocks)
    return {"quantities": evaluation.quantity, "forecasters": names, "lead times": evaluation.lead_minutes}


def _kinds_of_sums(evaluation: Evaluation) -> dict[str, object]:
    """Return the kinds of sums of each forecaster, by name (in the plural)."""
    return {f"kinds of sums of {name}": set(next(iter(blocks.values()))) for name, blocks in sorted(evaluation.blocks.items())}


def _parameters_of_sums(evaluation: Evaluation) -> dict[str, object]:
    """Return the parameters of all sums, such as thresholds, by name (in the plural)."""
    tallies = [next(iter(blocks.values())) for blocks in evaluation.blocks.values()]
    all_sums = [tally[kind] for tally in tallies for kind in tally]
    return {name.replace("_", " "): value for sums in all_sums for name, value in sums.parameters.items()}


def _difference(a: object, b: object) -> str:
    """Return both values; of kinds of sums, which older versions had others of, those that only one file has."""
    if not (isinstance(a, set) and isinstance(b, set)):
        return f":\n{_text(a)} | {_text(b)}"
    only = (("first", a - b), ("second", b - a))
    told = " and ".join(f"only the {which} file has {', '.join(sorted(kinds))}" for which, kinds in only if kinds)
    return (
        f": {told}.\nAn older version of nowcast wrote one of them, or only one has forecasts with probabilities or members: "
        "evaluate again, both with the same version and options."
    )


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _require_different_rain(a: Evaluation, b: Evaluation, origins: dict) -> None:
    """Raise UsageError if a block of `a` and a block of `b` under different names hold the same observed rain.

    `origins` has the path of the file of each block.
    """
    if not (names := a.forecasters_with("pairs")):
        return
    seen = {_rain(tally["pairs"]): block for block, tally in a.blocks[names[0]].items()}
    for block, tally in b.blocks[names[0]].items():
        same = seen.get(_rain(tally["pairs"]))
        if same and tally["pairs"].sum_o.any():
            raise UsageError(
                f"{same[0]} on {same[1]} ({origins[same]}) and {block[0]} on {block[1]} ({origins[block]}) are the same "
                "observations under two names: their cases would count twice.\nPool evaluations of different days or records."
            )


def _merge_about(a: dict, b: dict, path_a: str | Path, path_b: str | Path) -> dict:
    """Merge the descriptions of records and forecasters. Raise UsageError if one name stands for two checkpoints."""
    forecasters_a, forecasters_b = (about.get("forecasters", {}) for about in (a, b))
    for name in forecasters_a.keys() & forecasters_b.keys():
        if forecasters_a[name].get("digest") != forecasters_b[name].get("digest"):
            raise UsageError(f"{path_a} and {path_b} cannot be pooled, because {name} is a different checkpoint in each")
    merged = {name: description | forecasters_b.get(name, {}) for name, description in forecasters_a.items()}
    for name, description in merged.items():
        for count in (key for key in description if key.startswith("num_cases_")):
            description[count] = forecasters_a[name].get(count, 0) + forecasters_b.get(name, {}).get(count, 0)
    left_out = a.get("left_out", []) + b.get("left_out", [])
    records = a.get("records", []) + b.get("records", [])
    return {"records": records, "forecasters": merged} | ({"left_out": left_out} if left_out else {})


def _rain(pairs: Additive) -> bytes:
    """Return bytes that identify the observed rain of a block."""
    return b"".join(array.tobytes() for array in (pairs.num_pairs, pairs.sum_o, pairs.sum_oo))


def read_scores(path: str | Path) -> Evaluation:
    """Read the evaluation in a scores.nc, without its example cases. Raises DataError (exit 3) if it cannot be read."""
    try:
        attributes, variables = read_variables(Path(path))
        if attributes[FORMAT] != FORMAT_NUMBER:
            raise DataError(f"{path} is of format {attributes[FORMAT]}; this nowcast reads format {FORMAT_NUMBER}")
        return _evaluation(attributes, variables)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as scores: {str(error).splitlines()[0]}.\nEvaluate again to make it anew."
        ) from None


def _evaluation(attributes: Mapping[str, Any], variables: Mapping[str, xr.Variable]) -> Evaluation:
    blocks = list(zip(map(str, variables["block_record"].values), map(str, variables["block_day"].values), strict=True))
    leads, thresholds = (tuple(variables[name].values.tolist()) for name in ("lead_minutes", "threshold"))
    quantity = Quantity.named(str(attributes["quantity"]))
    evaluation = Evaluation(leads, thresholds, quantity, list(dict.fromkeys(name for name, _ in blocks)))
    evaluation.num_cases, evaluation.about = int(variables["num_cases"].values), json.loads(attributes["about"])
    kinds = [kind for kind in KINDS if f"has_{kind}" in variables]
    parameters = {kind: _parameters(variables[f"has_{kind}"]) for kind in kinds}
    for n, name in enumerate(map(str, variables["forecaster"].values)):
        arrays = {kind: _arrays(variables, kind, n) for kind in kinds if variables[f"has_{kind}"].values[n]}
        for number, block in enumerate(blocks):
            in_block = {kind: {array: values[number] for array, values in arrays[kind].items()} for kind in arrays}
            sums = {kind: KINDS[kind].sums(**parameters[kind], **in_block[kind]) for kind in arrays}
            evaluation.add(name, block, Tally(sums))
    return evaluation


def _arrays(variables: Mapping[str, xr.Variable], kind: str, forecaster: int) -> dict[str, np.ndarray]:
    """Return every array (block, …) of one kind of sums of one forecaster, by name."""
    arrays = {}
    for array, axes in KINDS[kind].sums.axes().items():
        variable = variables[block_variable(kind, array)]
        arrays[array] = variable.transpose("forecaster", "block", *(sums_dim(kind, axis) for axis in axes)).values[forecaster]
    return arrays


def _parameters(variable: xr.Variable) -> dict[str, object]:
    parameters = json.loads(variable.attrs["facts"])
    return {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
