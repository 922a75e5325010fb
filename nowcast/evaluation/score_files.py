"""The files of scores: scores.csv, scores.json and scores.nc.

Undefined values are empty in CSV, null in JSON and NaN in NetCDF.
"""

import csv
import errno
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from nowcast import __version__
from nowcast.errors import DataError
from nowcast.evaluation.result import MEAN_SUFFIX, Block, Evaluation, units_of
from nowcast.netcdf.attributes import SCORES_FORMAT
from nowcast.netcdf.writing.variables import read_variables, write_variables
from nowcast.quantity import Quantity
from nowcast.runtime.signals import held
from nowcast.scores import KINDS, SCORES
from nowcast.scores.sums import Additive, Tally

COLUMNS = (
    *("forecaster", "against", "lead_minutes", "threshold", "scale_km"),
    *("score", "value", "low", "high", "num_cases", "num_pairs"),
)
SCORES_NC, SCORES_CSV, SCORES_JSON = "scores.nc", "scores.csv", "scores.json"
FORMAT, FORMAT_NUMBER = SCORES_FORMAT, 1  # global attribute of scores.nc and its value
# the dimension of scores.nc for each axis of scores and sums
DIMS = {"lead": "lead_minutes", "threshold": "threshold", "scale": "scale_km", "wavelength": "wavelength_km",
        "class": "percent", "rank": "rank", "rate": "rate", "box": "box_km", "amount": "amount"}  # fmt: skip
# where a dimension and the column of the rows have different names
COLUMN_OF_DIM = {"wavelength_km": "scale_km", "box_km": "scale_km", "amount": "threshold"}
_COMPRESSED = {"zlib": True, "complevel": 4}  # most classes of probability are empty


def as_csv(rows: Iterable[Mapping]) -> str:
    """Return the rows as CSV with one header line; undefined values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if _undefined(value) else value for key, value in row.items()})
    return text.getvalue()


def as_json(evaluation: Evaluation, rows: Iterable[Mapping]) -> str:
    """Return one JSON object: what was scored, and the rows under "scores"; undefined values are null."""
    header = {
        "nowcast": __version__,
        "quantity": evaluation.quantity.name,
        "records": evaluation.records,
        "num_cases": evaluation.num_cases,
        "num_blocks": evaluation.num_blocks,
        "lead_minutes": evaluation.lead_minutes,
        "thresholds": evaluation.thresholds,
        "about": evaluation.about,
    }
    # one line for each row: as readable as with json's own indentation, and ten times as fast to write
    scores = ",\n".join(json.dumps({k: None if _undefined(v) else v for k, v in row.items()}, allow_nan=False) for row in rows)
    return f'{json.dumps(header, indent=1, allow_nan=False)[:-2]},\n "scores": [\n{scores}\n ]\n}}\n'


def _undefined(value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def as_dataset(evaluation: Evaluation, rows: Iterable[Mapping]) -> xr.Dataset:
    """Return the contents of scores.nc: the rows as arrays, and all sums by block, so that evaluations can be pooled.

    Names of variables, with CSI as the example: `csi`, `csi_low` and `csi_high` are by lead time; `csi_pooled…` and
    `csi_mean_over_leads…` are for all lead times; `csi_difference…` and `csi_pooled_difference…` are the differences to each
    baseline, and to the forecasters named later, along the dimension `against`. Sums are named `block_hits`,
    `block_windows_num_pairs` and so on, with the kind in the name unless it is "pairs". A forecaster without sums of a kind
    (`has_…` is 0) has zeros there.
    """
    names = list(evaluation.blocks)
    blocks = list(evaluation.blocks[names[0]])
    values = _coordinate_values(evaluation)
    units = {
        "percent": "%",
        "lead_minutes": "min",
        "threshold": evaluation.quantity.units,
        "rate": evaluation.quantity.units,
        "scale_km": "km",
        "wavelength_km": "km",
        "box_km": "km",
        "amount": "mm",
    }
    units |= {dim: "min" for dim in values if dim.endswith("_end")}
    coordinates = {dim: (dim, list(along), {"units": units[dim]} if dim in units else {}) for dim, along in values.items()}
    coordinates |= {f"block_{label}": ("block", [block[n] for block in blocks]) for n, label in enumerate(("record", "day"))}
    data = _block_sums(evaluation, names, blocks) | _score_arrays(rows, values, evaluation.quantity)
    data["num_cases"] = ((), evaluation.num_cases, {"long_name": "number of cases"})
    attributes = {"title": "Scores of nowcasts", "source": f"nowcast {__version__}", "quantity": evaluation.quantity.name}
    attributes |= {"about": json.dumps(evaluation.about)}  # records and forecasters, as in scores.json
    return xr.Dataset(data, coordinates, attributes | {FORMAT: FORMAT_NUMBER})


@held()
def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset with compression and checksums, and read it back. Raises OSError if it differs."""
    write_variables(dataset, path)
    try:
        _, written = read_variables(path)
    except DataError as error:
        raise OSError(errno.EIO, "the file does not read back as it was written") from error
    for name, variable in dataset.variables.items():
        if not np.array_equal(written[name].values, variable.values, equal_nan=variable.dtype.kind == "f"):
            raise OSError(errno.EIO, f"{name} does not read back as it was written")


def _coordinate_values(evaluation: Evaluation) -> dict[str, Sequence]:
    """Return the values along each dimension of scores.nc except "block"."""
    values = {"forecaster": list(evaluation.blocks), "against": evaluation.references, "lead_minutes": evaluation.lead_minutes}
    for kind in _kinds(evaluation):
        values |= {sums_dim(kind, axis): along for axis, along in _any_block(evaluation, kind).coordinates.items()}
    return values


def sums_dim(kind: str, axis: str) -> str:
    """Return the dimension of scores.nc of an axis of a kind of sums; the ends of intervals are fewer than the lead times."""
    return f"{kind}_end" if axis == "lead" and axis in KINDS[kind].sums.axis_parameters else DIMS[axis]


def _kinds(evaluation: Evaluation) -> list[str]:
    """Return the kinds of sums that at least one forecaster has."""
    return list(dict.fromkeys(kind for name in evaluation.blocks for kind in any_tally(evaluation, name)))


def any_tally(evaluation: Evaluation, name: str) -> Tally:
    """Return a forecaster's sums of its first block, to see which kinds it has."""
    return next(iter(evaluation.blocks[name].values()))


def _any_block(evaluation: Evaluation, kind: str) -> Additive:
    return next(tally[kind] for tally in (any_tally(evaluation, name) for name in evaluation.blocks) if kind in tally)


def _block_sums(evaluation: Evaluation, names: Sequence[str], blocks: Sequence[Block]) -> dict[str, tuple]:
    """Return (dims, values, attributes) of every array of sums, and of `has_…`: which forecasters have sums of a kind."""
    data = {}
    for kind in _kinds(evaluation):
        sample = _any_block(evaluation, kind)
        zeros = {array: np.zeros_like(values) for array, values in sample.arrays().items()}
        has_kind = [kind in any_tally(evaluation, name) for name in names]
        data[f"has_{kind}"] = ("forecaster", np.array(has_kind, np.int8), {"facts": json.dumps(sample.parameters)})
        for array, axes in sample.axes().items():
            stacked = [
                [evaluation.blocks[name][block][kind].arrays()[array] if has else zeros[array] for block in blocks]
                for name, has in zip(names, has_kind, strict=True)
            ]
            dims = ("forecaster", "block", *(sums_dim(kind, axis) for axis in axes))
            data[block_variable(kind, array)] = (dims, np.array(stacked), {}, _COMPRESSED)
    return data


def block_variable(kind: str, array: str) -> str:
    """Return the name in scores.nc of an array of a kind of sums."""
    return f"block_{array}" if kind == "pairs" else f"block_{kind}_{array}"


def _score_arrays(rows: Iterable[Mapping], values: Mapping[str, Sequence], quantity: Quantity) -> dict[str, tuple]:
    """Return (dims, values, attributes) of every score, difference and end of an interval, NaN where there is no row."""
    position = {dim: {value: n for n, value in enumerate(along)} for dim, along in values.items()}
    arrays = {}
    for row in rows:
        plain_name = row["score"].removesuffix(MEAN_SUFFIX)
        score, by_lead = SCORES[plain_name], row["lead_minutes"] is not None
        name = row["score"] if by_lead or row["score"] != plain_name else f"{plain_name}_pooled"
        dims = ["forecaster", *(DIMS[axis] for axis in score.axes if by_lead or axis != "lead")]
        if row["against"] is not None:
            name, dims = f"{name}_difference", [dims[0], "against", *dims[1:]]
        place = tuple(position[dim][row[COLUMN_OF_DIM.get(dim, dim)]] for dim in dims)
        for column, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            if name + suffix not in arrays:
                ending = (name + suffix).removeprefix(plain_name).replace("_", " ")
                attributes = {"long_name": score.long_name + ending, "units": units_of(score, quantity)}
                arrays[name + suffix] = (dims, np.full([len(values[dim]) for dim in dims], np.nan), attributes)
            arrays[name + suffix][1][place] = row[column]
    return arrays
