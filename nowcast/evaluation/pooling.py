"""Earlier scores.nc files pooled: their sums by block added up to one evaluation, as if all had been scored at once."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from nowcast.errors import DataError, UsageError
from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.score_files import DIMS, FORMAT, FORMAT_NUMBER, block_variable
from nowcast.quantity import Quantity
from nowcast.scores import KINDS
from nowcast.scores.sums import Additive, Tally

SUFFIX = ".nc"


def is_scores_file(name: str) -> bool:
    """Whether it is a scores.nc of any number of format, and not a forecast file."""
    path = Path(name)
    if path.suffix != SUFFIX or not path.is_file():
        return False
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            return FORMAT in dataset.attrs
    except (OSError, RuntimeError, ValueError):
        return False  # whoever reads it as forecasts says what is wrong with it


def pool(paths: Sequence[str | Path]) -> Evaluation:
    """The evaluations of these files as one.

    Raises DataError (exit 3) for a file that cannot be read, UsageError (2) where files differ in what they score or hold
    the same cases.
    """
    first, *others = (read_scores(path) for path in paths)
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
        _require_other_rain(first, other, origins)
        first.about = _about_both(first.about, other.about, paths[0], path)
        first.merge(other)
    first.sort()
    return first


def _require_alike(a: Evaluation, b: Evaluation, path_a: str | Path, path_b: str | Path) -> None:
    """UsageError where the two do not hold the same scores."""
    found = [_description(one) for one in (a, b)]
    for what, mine in found[0].items():
        if mine != (theirs := found[1].get(what)):
            raise UsageError(
                f"{path_a} and {path_b} cannot be pooled, as their {what} differ:\n{_text(mine)} | {_text(theirs)}"
            )


def _description(evaluation: Evaluation) -> dict[str, object]:
    tallies = {name: next(iter(blocks.values())) for name, blocks in evaluation.blocks.items()}
    facts = {
        fact.replace("_", " "): value
        for tally in tallies.values()
        for k in tally
        for fact, value in tally[k].parameters.items()
    }
    found = {"quantities": evaluation.quantity, "forecasters": sorted(tallies), "lead times": evaluation.lead_minutes}
    return found | facts | {"kinds of sums": sorted(f"{name}: {' '.join(sorted(tallies[name]))}" for name in tallies)}


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _require_other_rain(a: Evaluation, b: Evaluation, origins: dict) -> None:
    """UsageError where two blocks under different names have one and the same observed rain."""
    if not (having := a.having("pairs")):
        return
    seen = {_rain(tally["pairs"]): block for block, tally in a.blocks[having[0]].items()}
    for block, tally in b.blocks[having[0]].items():
        same = seen.get(_rain(tally["pairs"]))
        if same and tally["pairs"].sum_o.any():
            raise UsageError(
                f"{same[0]} on {same[1]} ({origins[same]}) and {block[0]} on {block[1]} ({origins[block]}) are the same "
                "observations under two names: their cases would count twice.\nPool evaluations of different days or records."
            )


def _about_both(a: dict, b: dict, path_a: str | Path, path_b: str | Path) -> dict:
    """What was scored on what, of both. UsageError where two networks go by one name."""
    mine, theirs = (about.get("forecasters", {}) for about in (a, b))
    for name in mine.keys() & theirs.keys():
        if mine[name].get("digest") != theirs[name].get("digest"):
            raise UsageError(f"{path_a} and {path_b} cannot be pooled, as {name} is another checkpoint in each")
    seen = "num_cases_in_training"
    merged = {name: facts | theirs.get(name, {}) for name, facts in mine.items()}
    for name, facts in merged.items():
        if seen in facts:
            facts[seen] = mine[name].get(seen, 0) + theirs.get(name, {}).get(seen, 0)
    return {"records": a.get("records", []) + b.get("records", []), "forecasters": merged}


def _rain(pairs: Additive) -> bytes:
    return b"".join(array.tobytes() for array in (pairs.num_pairs, pairs.sum_o, pairs.sum_oo))


def read_scores(path: str | Path) -> Evaluation:
    """The evaluation in a scores.nc, without its example. Raises DataError (exit 3) where it cannot be read."""
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            if dataset.attrs[FORMAT] != FORMAT_NUMBER:
                raise DataError(f"{path} is of format {dataset.attrs[FORMAT]}; this nowcast reads format {FORMAT_NUMBER}")
            return _restored(dataset.load())
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as scores: {str(error).splitlines()[0]}.\nEvaluate again to make it anew."
        ) from None


def _restored(dataset: xr.Dataset) -> Evaluation:
    blocks = list(zip(map(str, dataset["block_record"].values), map(str, dataset["block_day"].values), strict=True))
    leads, thresholds = (tuple(dataset[name].values.tolist()) for name in ("lead_minutes", "threshold"))
    quantity = Quantity.named(str(dataset.attrs["quantity"]))
    evaluation = Evaluation(leads, thresholds, quantity, list(dict.fromkeys(name for name, _ in blocks)))
    evaluation.num_cases, evaluation.about = int(dataset["num_cases"]), json.loads(dataset.attrs["about"])
    kinds = [kind for kind in KINDS if f"has_{kind}" in dataset]
    for n, name in enumerate(map(str, dataset["forecaster"].values)):
        mine = [kind for kind in kinds if dataset[f"has_{kind}"].values[n]]
        stacked = {kind: _arrays(dataset, kind, n) for kind in mine}
        for number, block in enumerate(blocks):
            sums = {kind: _sums(dataset, kind, {part: a[number] for part, a in stacked[kind].items()}) for kind in mine}
            evaluation.add(name, block, Tally(sums))
    return evaluation


def _arrays(dataset: xr.Dataset, kind: str, forecaster: int) -> dict[str, np.ndarray]:
    """Every array of a kind, (block, …), of one forecaster."""
    found = {}
    for part, axes in KINDS[kind].sums.axes().items():
        variable = dataset[block_variable(kind, part)]
        found[part] = variable.transpose("forecaster", "block", *(DIMS[axis] for axis in axes)).values[forecaster]
    return found


def _sums(dataset: xr.Dataset, kind: str, arrays: dict[str, np.ndarray]) -> Additive:
    facts = json.loads(dataset[f"has_{kind}"].attrs["facts"])
    return KINDS[kind].sums(**{name: tuple(f) if isinstance(f, list) else f for name, f in facts.items()}, **arrays)
