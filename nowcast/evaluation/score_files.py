"""The scores as text and files: the table, scores.nc, scores.csv and scores.json.

Undefined values are "–" in the table, empty in CSV, null in JSON and NaN in NetCDF.
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
from nowcast.evaluation.result import MEAN, Block, Evaluation
from nowcast.scores import SCORES
from nowcast.scores.sums import Additive, Tally

COLUMNS = (
    *("forecaster", "against", "lead_minutes", "threshold", "scale_km"),
    *("score", "value", "low", "high", "num_cases", "num_pairs"),
)
SCORES_NC, SCORES_CSV, SCORES_JSON = "scores.nc", "scores.csv", "scores.json"
FORMAT, FORMAT_NUMBER = "nowcast_scores_format", 1
DIMS = {"lead": "lead_minutes", "threshold": "threshold", "scale": "scale_km", "wavelength": "wavelength_km",
        "class": "percent", "rank": "rank"}  # fmt: skip
COLUMN_OF_DIM = {"wavelength_km": "scale_km"}
_COMPRESSED = {"zlib": True, "complevel": 4}  # of classes of probability most are empty


def as_csv(rows: Iterable[Mapping]) -> str:
    """Tidy CSV with one header line; undefined is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if _undefined(value) else value for key, value in row.items()})
    return text.getvalue()


def as_json(evaluation: Evaluation, rows: Iterable[Mapping]) -> str:
    """One object: what was scored on what, and the tidy rows; undefined is null."""
    facts = {
        "nowcast": __version__,
        "quantity": evaluation.quantity.name,
        "records": evaluation.records,
        "num_cases": evaluation.num_cases,
        "num_blocks": evaluation.num_blocks,
        "lead_minutes": evaluation.lead_minutes,
        "thresholds": evaluation.thresholds,
        "about": evaluation.about,
    }
    # a line for each row: as readable as json's own indentation, and ten times as fast
    scores = ",\n".join(json.dumps({k: None if _undefined(v) else v for k, v in row.items()}, allow_nan=False) for row in rows)
    return f'{json.dumps(facts, indent=1, allow_nan=False)[:-2]},\n "scores": [\n{scores}\n ]\n}}\n'


def _undefined(value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def as_dataset(evaluation: Evaluation, rows: Iterable[Mapping]) -> xr.Dataset:
    """The rows as arrays, and all sums by block, from which evaluations can be pooled.

    `csi`, `csi_low` and `csi_high` are by lead, `csi_pooled…` and `csi_mean_over_leads…` of all leads, `csi_difference…`,
    `csi_pooled_difference…` to each baseline, along `against`. Sums are `block_hits`, and of other kinds than pairs
    `block_windows_num_pairs` and so on; a forecaster that has none of a kind (`has_…`) has zeros.
    """
    names = list(evaluation.blocks)
    blocks = list(evaluation.blocks[names[0]])
    values = _coordinate_values(evaluation)
    units = {
        "percent": "%",
        "lead_minutes": "min",
        "threshold": evaluation.quantity.units,
        "scale_km": "km",
        "wavelength_km": "km",
    }
    coordinates = {dim: (dim, list(found), {"units": units[dim]} if dim in units else {}) for dim, found in values.items()}
    coordinates |= {f"block_{part}": ("block", [block[n] for block in blocks]) for n, part in enumerate(("record", "day"))}
    data = _block_sums(evaluation, names, blocks) | _score_arrays(rows, values)
    data["num_cases"] = ((), evaluation.num_cases, {"long_name": "number of cases"})
    facts = {"title": "Scores of nowcasts", "source": f"nowcast {__version__}", "quantity": evaluation.quantity.name}
    facts |= {"about": json.dumps(evaluation.about)}  # records and forecasters, as in scores.json
    return xr.Dataset(data, coordinates, facts | {FORMAT: FORMAT_NUMBER})


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """With compression and check sums wherever the format has them, and read back. OSError where that is not the same."""
    filtered = [name for name, variable in dataset.variables.items() if variable.ndim and variable.dtype.kind in "biuf"]
    dataset.to_netcdf(path, engine="netcdf4", encoding={name: {"zlib": True, "fletcher32": True} for name in filtered})
    with xr.open_dataset(path, engine="netcdf4", decode_times=False) as written:
        for name in filtered:
            if not np.array_equal(written[name].values, dataset[name].values, equal_nan=True):
                raise OSError(errno.EIO, f"{name} does not read back as it was written")


def _coordinate_values(evaluation: Evaluation) -> dict[str, Sequence]:
    """The values along each dimension of scores.nc but "block"."""
    values = {"forecaster": list(evaluation.blocks), "against": evaluation.baselines, "lead_minutes": evaluation.lead_minutes}
    for kind in _kinds(evaluation):
        values |= {DIMS[axis]: found for axis, found in _any_block(evaluation, kind).coordinates.items()}
    return values


def _kinds(evaluation: Evaluation) -> list[str]:
    """The kinds of sums that any forecaster has."""
    return list(dict.fromkeys(kind for name in evaluation.blocks for kind in any_tally(evaluation, name)))


def any_tally(evaluation: Evaluation, name: str) -> Tally:
    return next(iter(evaluation.blocks[name].values()))


def _any_block(evaluation: Evaluation, kind: str) -> Additive:
    return next(tally[kind] for tally in (any_tally(evaluation, name) for name in evaluation.blocks) if kind in tally)


def _block_sums(evaluation: Evaluation, names: Sequence[str], blocks: Sequence[Block]) -> dict[str, tuple]:
    """(dims, values, attributes) of every array of every kind, and which forecasters have that kind, with its facts."""
    data = {}
    for kind in _kinds(evaluation):
        model = _any_block(evaluation, kind)
        nothing = {part: np.zeros_like(array) for part, array in model.arrays().items()}
        having = [kind in any_tally(evaluation, name) for name in names]
        data[f"has_{kind}"] = ("forecaster", np.array(having, np.int8), {"facts": json.dumps(model.parameters)})
        for part, axes in model.axes().items():
            stacked = [
                [evaluation.blocks[name][block][kind].arrays()[part] if there else nothing[part] for block in blocks]
                for name, there in zip(names, having, strict=True)
            ]
            dims = ("forecaster", "block", *(DIMS[axis] for axis in axes))
            data[block_variable(kind, part)] = (dims, np.array(stacked), {}, _COMPRESSED)
    return data


def block_variable(kind: str, part: str) -> str:
    """The name in scores.nc of an array of a kind of sums."""
    return f"block_{part}" if kind == "pairs" else f"block_{kind}_{part}"


def _score_arrays(rows: Iterable[Mapping], values: Mapping[str, Sequence]) -> dict[str, tuple]:
    """(dims, values, attributes) by name, NaN where there is no row."""
    position = {dim: {value: n for n, value in enumerate(found)} for dim, found in values.items()}
    arrays = {}
    for row in rows:
        plain_name = row["score"].removesuffix(MEAN)
        score, by_lead = SCORES[plain_name], row["lead_minutes"] is not None
        name = row["score"] if by_lead or row["score"] != plain_name else f"{plain_name}_pooled"
        dims = ["forecaster", *(DIMS[axis] for axis in score.axes if by_lead or axis != "lead")]
        if row["against"] is not None:
            name, dims = f"{name}_difference", [dims[0], "against", *dims[1:]]
        at = tuple(position[dim][row[COLUMN_OF_DIM.get(dim, dim)]] for dim in dims)
        for column, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            if name + suffix not in arrays:
                added = (name + suffix).removeprefix(plain_name).replace("_", " ")
                facts = {"long_name": score.long_name + added, "units": score.units}
                arrays[name + suffix] = (dims, np.full([len(values[dim]) for dim in dims], np.nan), facts)
            arrays[name + suffix][1][at] = row[column]
    return arrays
