"""Members of an example case for the report: a few fields, fan charts of the area mean and at points, probabilities of sums."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.errors import DataError
from nowcast.evaluation.coarsen import block_means
from nowcast.netcdf.places import earth
from nowcast.netcdf.places.locating import Locator
from nowcast.netcdf.record import Record
from nowcast.prediction.gauges import Place
from nowcast.prediction.weights import weigh
from nowcast.scores.boxes import DIGITS, intervals

SHOWN = 3  # number of members that are shown on maps
SUM_AMOUNTS = (1.0, 5.0)  # mm: those of AMOUNTS that the report shows

Points = Mapping[str, tuple[int, int]]  # rows and columns of the cells that have a fan, by name
Read = Callable[[int], np.ndarray]  # the members (member, y, x) mm/h of one ensemble at a lead time, by its number


@dataclass(frozen=True)
class Fan:
    """Rain at one place by lead time: observed (lead,) and of each ensemble's members (lead, member), mm/h; NaN missing."""

    place: str
    observed: np.ndarray
    members: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class MemberExample:
    """Members of an example case, by ensemble.

    fields: (lead, member, y, x) mm/h, block means of the first SHOWN members at the lead times with maps
    fans: of the mean over the cells that are known at all lead times, and of each point (default: the wettest cell observed);
        empty if no cell is known at all lead times
    lead_minutes: all lead times, which the fans cover
    sum_minutes: length of the first interval, whose sums are shown; 0 if there is none
    reached: (amount, y, x) fraction of the cells of a block whose observed sum reaches each of SUM_AMOUNTS
    probabilities: (amount, y, x) fraction of cells and members that reach it
    """

    fields: Mapping[str, np.ndarray]
    fans: Sequence[Fan]
    lead_minutes: tuple[float, ...]
    sum_minutes: int
    reached: np.ndarray
    probabilities: Mapping[str, np.ndarray]


def make_member_example(
    ensembles: Mapping[str, Read],
    observed: np.ndarray,
    lead_minutes: Sequence[float],
    leads: Sequence[int],
    part: tuple[slice, slice],
    block: int,
    locator: Locator | None = None,
    points: Points | None = None,
) -> MemberExample | None:
    """Read the members of a case lead by lead; return None without ensembles.

    observed: (lead, y, x) mm/h
    leads: positions of the lead times with maps
    part, block: the area of the maps, and the side of the blocks
    locator: where the grid lies on earth, None if unknown
    points: cells with a fan where they are known at all lead times, instead of the wettest one
    """
    if not ensembles:
        return None
    known = _known(ensembles, observed)
    step, lengths = lead_minutes[0], intervals(len(observed), lead_minutes[0])
    minutes = max(lengths, default=0)
    first = range(lengths.get(minutes, 0))

    def sums(read: Read) -> np.ndarray:
        if not first:
            return np.empty(0)
        return _reached(np.round(sum(read(lead) for lead in first) * (step / 60), DIGITS), part, block)

    fields = {name: [block_means(read(lead)[:SHOWN, *part], block) for lead in leads] for name, read in ensembles.items()}
    return MemberExample(
        fields={name: np.stack(each) for name, each in fields.items()},
        fans=_fans(ensembles, observed, known, locator, points or {}),
        lead_minutes=tuple(lead_minutes),
        sum_minutes=minutes,
        reached=sums(lambda lead: observed[lead][None]),
        probabilities={name: sums(read) for name, read in ensembles.items()},
    )


def _known(ensembles: Mapping[str, Read], observed: np.ndarray) -> np.ndarray:
    """Return a mask (y, x) of the cells where observation and all members are known at all lead times."""
    known = np.isfinite(observed).all(axis=0)
    for read in ensembles.values():
        for lead in range(len(observed)):
            known &= np.isfinite(read(lead)).all(axis=0)
    return known


def find_points(records: Sequence[Record], places: Sequence[Place]) -> dict[str, Points]:
    """Return the cells of gauges by name, for each record by name; a gauge may lie in some records only.

    Raises DataError (exit 3) if no gauge lies in any record.
    """
    points, errors = {}, []
    for record in records if places else ():
        try:
            weights = weigh(places, earth.locate(record.grid, record.name), record.name)
        except DataError as error:
            errors.append(error)
            continue
        cells = (weights.cells[weights.shares[[n]].indices] for n in range(len(places)))
        on_grid = ((place.name, cell) for place, cell in zip(places, cells, strict=True) if len(cell))
        points[record.name] = {name: tuple(map(int, np.unravel_index(cell[0], record.grid.shape))) for name, cell in on_grid}
    if errors and not points:
        raise errors[0]
    return points


def _fans(
    ensembles: Mapping[str, Read], observed: np.ndarray, known: np.ndarray, locator: Locator | None, points: Points
) -> list[Fan]:
    """Return the fans of the area mean and of points, or of the wettest cell; empty if no cell is known at all lead times."""
    if not known.any():
        return []
    cell = np.unravel_index(int(np.argmax(np.where(known, observed.sum(axis=0), -1))), known.shape)
    wheres = {f"{100 * known.mean():.0f} % of the area, mean": known}
    wheres |= {name: place for name, place in points.items() if known[place]} if points else {_place(cell, locator): cell}
    fans = []
    for place, where in wheres.items():
        members = {name: [_mean(read(lead), where) for lead in range(len(observed))] for name, read in ensembles.items()}
        fans.append(Fan(place, _mean(observed, where), {name: np.stack(each) for name, each in members.items()}))
    return fans


def _mean(fields: np.ndarray, where: np.ndarray | tuple) -> np.ndarray:
    """Return fields (…, y, x) at a cell, or their mean over the cells of a mask (y, x): (…)."""
    chosen = fields[..., where] if isinstance(where, np.ndarray) else fields[..., *where, None]
    return chosen.mean(axis=-1, dtype=np.float64)


def _place(cell: tuple[int, int], locator: Locator | None) -> str:
    """Return the name of a cell: where it lies on earth, if that is known."""
    if locator is None:
        return f"wettest cell observed (row {cell[0]}, column {cell[1]})"
    latitude, longitude = (float(each[0]) for each in locator.degrees(*(np.array([float(n)]) for n in cell)))
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"wettest cell observed ({abs(latitude):.2f}° {north}, {abs(longitude):.2f}° {east})"


def _reached(sums: np.ndarray, part: tuple[slice, slice], block: int) -> np.ndarray:
    """Return the fraction of members that reach each of SUM_AMOUNTS, as block means (amount, y, x); sums: (member, y, x) mm."""
    shares = [np.where(np.isnan(sums), np.nan, sums >= amount).mean(axis=0) for amount in SUM_AMOUNTS]
    return block_means(np.stack(shares)[:, *part], block)
