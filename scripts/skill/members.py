#!/usr/bin/env python3
"""Compare ensemble members of a forecaster with pysteps' STEPS: fair CRPS, spread, ranks, spectra, sums over time and area.

Up to `--cases` reference times per record are scored, spread evenly over its days (`--days 7`: only days since 1970-01-01 that
are 7 modulo 10), from windows of 4 past and 12 future frames whose newest past frame is at least 1 % wet. STEPS has its
defaults and the same number of members, with its own motion (`steps`) and that of the forecaster (`steps, same motion`).
`--crop` takes the middle of the grid, to save time.

    python scripts/skill/members.py singapore --network runs/singapore --days 7 --cases 26 --output runs/members/singapore

`--perfect N` scores a perfect ensemble on these cases: each of N further members serves as the observation. A score within
their range is consistent with a perfect ensemble.

Scores are printed as a table, and written to members.md in `--output` after each case. Lead times (and wavelengths) count as
"apart" if the whole interval over days of spread ÷ error (of the power of members ÷ observed power) is outside .8 to 1.2.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from archives import spread_over_days

from nowcast.dataset.windows import find_windows
from nowcast.errors import DataError, NowcastError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import Steps
from nowcast.forecasters.members.draw import DRY
from nowcast.forecasters.members.ensemble import Ensemble
from nowcast.forecasters.members.keep import middle
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import replacing
from nowcast.scores.bootstrap import quantiles, resample
from nowcast.scores.boxes import BOXES_KM, SUM_MINUTES, BoxSums
from nowcast.scores.ensemble import EnsembleSums, add_members, crps_fair, rank_histogram, spread_skill
from nowcast.scores.exceedance import ExceedanceSums, brier_reliability, brier_skill
from nowcast.scores.spectra import WAVELENGTHS_KM, SpectrumSums, add_member_spectra, spectrum_ratio
from nowcast.scores.sums import Tally, ratio

PAST, LEADS, MIN_WET = 4, 12, 0.01
RATES = (0.1, 0.5, 1.0, 5.0, 10.0)  # mm/h
CELLS = "cells"
PERFECT = "perfect "  # and a number: members, with a further member as the observation
KEPT_WAVES = (4.0, 64.0)  # km, range of wavelengths in the table
GOAL = (0.8, 1.2)  # of spread ÷ error and of ratios of power
LIMIT = 10.0  # mm/h; spectra are also computed of rain limited to it, since a few heavy cells dominate the power
POWERS = {"member_spectra": "Power", "limited_spectra": f"Power of rain limited to {LIMIT:g} mm/h"}

log = logging.getLogger("nowcast.skill")


class Totals:
    """Sums of one forecaster over a case: at cells, of spectra, and of the rain of 30 and 60 minutes in boxes."""

    def __init__(self, members: int, step_minutes: float, spacing_km: tuple[float, float]):
        self.spacing_km = spacing_km
        self.cells = ExceedanceSums.zeros(LEADS, RATES), EnsembleSums.zeros(LEADS, most_members=members)
        self.spectra, self.limited = (SpectrumSums.empty(LEADS, wavelengths_km=WAVELENGTHS_KM) for _ in range(2))
        self.boxes = BoxSums(LEADS, step_minutes, spacing_km, most_members=members)

    def add(self, lead: int, members: np.ndarray, observed: np.ndarray, known: np.ndarray) -> None:
        """Add a lead time: members (member, y, x) and the observation (y, x) in mm/h, where all are known (y, x)."""
        add_members(*self.cells, lead, members, observed, known)
        add_member_spectra(self.spectra, lead, members, observed, known, self.spacing_km)
        limited = (np.minimum(each, LIMIT) for each in (members, observed))
        add_member_spectra(self.limited, lead, *limited, known, self.spacing_km)
        self.boxes.add(lead, members, observed, known)

    def tally(self) -> Tally:
        """Return all sums by kind."""
        probabilities, members = self.cells
        spectra = {"member_spectra": self.spectra, "limited_spectra": self.limited}
        return Tally({"probabilities": probabilities, "members": members, **spectra, **self.boxes.kinds})


def sums_by_kind(tally: Tally) -> dict[str, tuple[EnsembleSums, ExceedanceSums]]:
    """Return the sums of members and of probabilities: at cells, and for each interval and box size."""
    sums = {CELLS: (tally["members"], tally["probabilities"])}
    for minutes in (m for m in SUM_MINUTES if f"members_{m}_min" in tally):
        both = tally[f"members_{minutes}_min"], tally[f"probabilities_{minutes}_min"]
        sums |= {f"{minutes} min, {side:g} km": tuple(each.of_box(n) for each in both) for n, side in enumerate(BOXES_KM)}
    return sums


def cases_of(record: Record, days: Sequence[int], most: int) -> np.ndarray:
    """Return the positions (case, time) of past and future frames of the cases to score, ascending.

    They are chosen by the newest past frame only: chosen also by later frames, every good forecast would seem too dry.
    """
    windows = find_windows(record.times, input_frames=PAST, lead_frames=LEADS, time_step=record.time_step)
    positions = windows.positions
    day = record.times[positions[:, PAST - 1]].astype("datetime64[D]")
    if days:
        whole = np.isin(day.astype(int) % 10, days) & (day == record.times[positions[:, -1]].astype("datetime64[D]"))
        positions, day = positions[whole], day[whole]
    drawn = positions[spread_over_days(day, min(4 * most, len(day)))]
    wet = np.array([np.nanmean(record.read([row[PAST - 1]]) >= DRY) >= MIN_WET for row in drawn], bool)
    drawn = drawn[wet]
    return drawn[spread_over_days(record.times[drawn[:, PAST - 1]].astype("datetime64[D]"), most)]


def forecasters_of(arguments: argparse.Namespace, record: Record) -> dict[str, Ensemble]:
    """Return the forecasters by name, for this record."""
    named = {"members": open_forecaster(arguments.network, device=pick_device("cpu"))}
    named |= {"steps": Steps(), "steps, same motion": Steps(own_motion=False)} if not arguments.alone else {}
    adapted = {name: each.on_record(record, record.time_step) for name, each in named.items()}
    further = {"members": arguments.perfect}
    return {name: Ensemble(each, arguments.members + further.get(name, 0), arguments.seed) for name, each in adapted.items()}


def score_case(
    forecasters: dict[str, Ensemble], frames: np.ndarray, record: Record, seconds: dict[str, float], num_members: int
) -> dict[str, Tally]:
    """Score the first members of one case (time, y, x), mm/h; add the computing time of each to `seconds`."""
    past, future = frames[:PAST], frames[PAST:]
    step = record.time_step / np.timedelta64(60, "s")
    further = range(num_members, forecasters["members"].num_members)
    # name -> forecaster, and the index of the member that serves as the observation
    scored = {name: (name, None) for name in forecasters} | {f"{PERFECT}{number}": ("members", number) for number in further}
    totals = {name: Totals(num_members, step, record.grid.spacing_km) for name in scored}
    drawn = {name: each.draw(past, LEADS) for name, each in forecasters.items()}
    for lead, observed in enumerate(future):
        fields = {}
        for name, members in drawn.items():
            start = time.process_time()
            fields[name] = next(members)
            seconds[name] = seconds.get(name, 0) + time.process_time() - start
        known = np.logical_and.reduce([np.isfinite(observed), *(np.isfinite(each).all(axis=0) for each in fields.values())])
        for name, (drawn_as, number) in scored.items():
            taken = observed if number is None else fields[drawn_as][number]
            members = fields[drawn_as][:num_members]
            totals[name].add(lead, np.where(known, members, 0), np.where(known, taken, 0), known)
    return {name: total.tally() for name, total in totals.items()}


def flatness(ensemble: EnsembleSums) -> np.ndarray:
    """Compute the sum over ranks of |share - mean share| (…, lead) without pairs whose members all equal the observation."""
    shares = rank_histogram(ensemble, tied=False)
    return np.abs(shares - 1 / shares.shape[-1]).sum(axis=-1)


def rows(blocks: dict[str, list[Tally]]) -> Iterator[list[str]]:
    """Yield the rows of the table: the scores of each forecaster, and the ratio of the first to the others."""
    total = {name: sums_by_kind(sum(tallies)) for name, tallies in blocks.items()}
    first_name = next(iter(total))
    for kind in total[first_name]:
        for name, sums in total.items():
            members, probabilities = sums[kind][0], sums[kind][1].pooled()
            pooled, by_lead = members.pooled(), spread_skill(members)
            figures = [float(crps_fair(pooled)[0]), *_ratio(blocks, first_name, name, kind), float(flatness(pooled)[0])]
            skill, reliability = brier_skill(probabilities)[0], brier_reliability(probabilities)[0]
            yield [
                kind, name, f"{figures[0]:.4f}", figures[1], f"{figures[2]:.3f}",
                f"{np.nanmin(by_lead):.2f} to {np.nanmax(by_lead):.2f}" if np.isfinite(by_lead).any() else "–",
                *_spreads(blocks[name], kind),
                " ".join(f"{value:.3f}" for value in skill), " ".join(f"{1e3 * value:.2f}" for value in reliability),
            ]  # fmt: skip


def _spreads(blocks: list[Tally], kind: str) -> tuple[str, str]:
    """Return the number of lead times with spread ÷ error outside GOAL, and the ratio of all lead times with its interval."""
    sides = [sums_by_kind(tally)[kind][0] for tally in blocks]
    value = float(spread_skill(sum(sides).pooled())[0])
    if (drawn := resample(sides)) is None:
        return "–", f"{value:.2f}"
    low, high = quantiles(spread_skill(resample([side.pooled() for side in sides]))[..., 0])
    return outside(spread_skill(drawn)), f"{value:.2f} ({low:.2f} to {high:.2f})"


def outside(drawn: np.ndarray) -> str:
    """Return the number of ratios (resample, …) whose whole interval is outside GOAL, and the number with an interval."""
    low, high = quantiles(drawn)
    return f"{int(((low > GOAL[1]) | (high < GOAL[0])).sum())} of {int(np.isfinite(low).sum())}"


def _ratio(blocks: dict[str, list[Tally]], first_name: str, other: str, kind: str) -> list[str]:
    """Return the ratio of fair CRPS, first / other, with its interval over days if there are enough."""
    if first_name == other:
        return ["–"]
    sides = [[sums_by_kind(tally)[kind][0].pooled() for tally in blocks[name]] for name in (first_name, other)]
    value = float(crps_fair(sum(sides[0]))[0] / crps_fair(sum(sides[1]))[0])
    drawn = [resample(side) for side in sides]
    if drawn[0] is None:
        return [f"{value:.3f}"]
    low, high = quantiles(crps_fair(drawn[0])[..., 0] / crps_fair(drawn[1])[..., 0])
    return [f"{value:.3f} ({low:.3f} to {high:.3f})"]


def perfect_text(blocks: dict[str, list[Tally]]) -> str:
    """Return the range of flatness and spread ÷ error of each kind, with further members as the observation."""
    listed: dict[str, list[tuple[float, float, float, float]]] = {}
    for tallies in blocks.values():
        for kind, (members, _) in sums_by_kind(sum(tallies)).items():
            pooled, by_lead = members.pooled(), spread_skill(members)
            if np.isfinite(by_lead).any():
                figures = flatness(pooled)[0], np.nanmin(by_lead), np.nanmax(by_lead), spread_skill(pooled)[0]
                listed.setdefault(kind, []).append(tuple(float(value) for value in figures))
    lines = []
    for kind, figures in listed.items():
        flat, least, most, of_all = (np.array(column) for column in zip(*figures, strict=True))
        lines.append(
            f"- {kind}: flatness {flat.min():.3f} to {flat.max():.3f}; spread ÷ error of all leads {of_all.min():.2f} to "
            f"{of_all.max():.2f}, of one {least.min():.2f} to {most.max():.2f}"
        )
    return "\n".join(lines)


def perfect_power(blocks: dict[str, list[Tally]], kind: str) -> str:
    """Return the number of ratios of power (lead, wavelength) outside GOAL, with further members as the observation."""
    drawn_sums = [resample([tally[kind] for tally in tallies]) for tallies in blocks.values()]
    kept = [KEPT_WAVES[0] <= wave <= KEPT_WAVES[1] for wave in WAVELENGTHS_KM]
    return ", ".join(f"{outside(spectrum_ratio(drawn)[..., kept])} apart" for drawn in drawn_sums if drawn is not None) or "–"


def table(blocks: dict[str, list[Tally]]) -> str:
    """Return the scores as a table in Markdown, and the spectra of members relative to the observation by lead time."""
    perfect = {name: tallies for name, tallies in blocks.items() if name.startswith(PERFECT)}
    blocks = {name: tallies for name, tallies in blocks.items() if name not in perfect}
    head = ["of", "forecaster", "fair CRPS", "ratio to it", "flatness", "spread ÷ error by lead", "apart", "of all leads"]
    head += ["Brier skill", "reliability × 1000"]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows(blocks))]
    for kind, what in POWERS.items():
        lines += ["", f"{what}, members ÷ observed, range over lead times, and of all lead times:", ""]
        lines += [f"- {name}: {power_text([tally[kind] for tally in tallies])}" for name, tallies in blocks.items()]
    if perfect:
        lines += ["", f"Range with each of {len(perfect)} further members as the observation:", ""]
        lines += [perfect_text(perfect), ""]
        lines += [f"- {what}: {perfect_power(perfect, kind)}" for kind, what in POWERS.items()]
    return "\n".join(lines)


def power_text(blocks: list[SpectrumSums]) -> str:
    """Return the ratio of power at each wavelength and in total, and the number of lead times and wavelengths outside GOAL."""
    spectra = sum(blocks)
    all_leads = ratio(spectra.power_f.sum(axis=0), spectra.power_o.sum(axis=0))
    texts = [
        f"{wave:g} km {np.nanmin(by_lead):.2f} to {np.nanmax(by_lead):.2f}, {of_all:.2f}"
        for wave, by_lead, of_all in zip(WAVELENGTHS_KM, spectrum_ratio(spectra).T, all_leads, strict=True)
        if KEPT_WAVES[0] <= wave <= KEPT_WAVES[1] and np.isfinite(by_lead).any()
    ]
    if (drawn := resample(blocks)) is not None:
        kept = [KEPT_WAVES[0] <= wave <= KEPT_WAVES[1] for wave in WAVELENGTHS_KM]
        texts.append(f"{outside(spectrum_ratio(drawn)[..., kept])} apart")
    return f"{'; '.join(texts)}; all wavelengths {float(ratio(spectra.power_f.sum(), spectra.power_o.sum())):.2f}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+")
    parser.add_argument("--network", default="extrapolation", help="forecaster whose members are scored")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--days", type=int, nargs="*", default=[], help="numbers of the days, modulo 10; default: all")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--perfect", type=int, default=0, metavar="N", help="also score N further members as the observation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crop", type=int, default=0, help="cells of the middle of the grid that are forecast; 0: all")
    parser.add_argument("--alone", action="store_true", help="without STEPS")
    arguments = parser.parse_args(argv)
    if arguments.perfect < 0:
        parser.error("--perfect is at least 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    logging.basicConfig(level=logging.WARNING)
    arguments.output.mkdir(parents=True, exist_ok=True)
    blocks: dict[str, dict[tuple[str, str], Tally]] = {}
    seconds: dict[str, float] = {}
    number = 0
    for argument in arguments.records:
        for record in open_records([argument]):
            forecasters = forecasters_of(arguments, record)
            for positions in cases_of(record, arguments.days, arguments.cases):
                frames = record.read(positions)
                frames = middle(frames, arguments.crop) if arguments.crop else frames
                # observed drizzle counts as dry, as in STEPS and in members, so that it does not affect ranks; past frames are
                # unchanged, since networks use drizzle as a predictor
                frames[PAST:][frames[PAST:] < DRY] = 0
                day = str(record.times[positions[PAST - 1]].astype("datetime64[D]"))
                for name, tally in score_case(forecasters, frames, record, seconds, arguments.members).items():
                    by_day = blocks.setdefault(name, {})
                    key = (record.name, day)
                    by_day[key] = by_day[key] + tally if key in by_day else tally
                number += 1
                listed = {name: list(days.values()) for name, days in blocks.items()}
                text = f"{number} cases on {len(next(iter(listed.values())))} days\n\n{table(listed)}\n"
                if not arguments.perfect:  # further members would add to the time
                    text += "\nSeconds of a core: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
                with replacing(arguments.output / "members.md", overwrite=True) as temporary:
                    temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    if not number:
        raise DataError(
            f"no case in {', '.join(arguments.records)}: no window of {PAST} + {LEADS} frames is wet enough ({MIN_WET:.0%})"
        )
    print((arguments.output / "members.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main()
    except NowcastError as error:
        sys.exit(f"{error}")
