"""Forecasters + records -> sums -> scores with intervals.

Every forecaster is scored on the same cases under one common mask: a pixel counts at a lead only where the observation and
every forecast are known. Sums are kept by block (a record's UTC day), so that intervals can be drawn from them.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nowcast.cases import Selection, num_leads, time_step
from nowcast.errors import DataError, UsageError
from nowcast.forecaster import FileForecaster, Forecaster
from nowcast.metrics import SCORES, Sums, interval, sums
from nowcast.netcdf import Record
from nowcast.progress import track
from nowcast.windows import Windows, plan

log = logging.getLogger(__name__)
Source = Forecaster | FileForecaster


@dataclass(frozen=True)
class Example:
    """One case to look at: a few leads of every forecaster's forecast and of the observation, (lead, y, x) mm/h."""

    record: str
    reference: np.datetime64
    lead_minutes: tuple[float, ...]
    observed: np.ndarray
    forecasts: Mapping[str, np.ndarray]


@dataclass
class Evaluation:
    """Sums by forecaster and block, `blocks[name][(record, day)]`, all on the same cases."""

    lead_minutes: tuple[float, ...]
    thresholds: tuple[float, ...]
    quantity: str
    records: list[str]
    blocks: dict[str, dict[tuple[str, str], Sums]] = field(default_factory=dict)
    num_cases: int = 0
    example: Example | None = None

    def add(self, name: str, block: tuple[str, str], case: Sums) -> None:
        mine = self.blocks.setdefault(name, {})
        mine[block] = mine[block] + case if block in mine else case

    def total(self, name: str) -> Sums:
        return sum(self.blocks[name].values())

    @property
    def num_blocks(self) -> int:
        return len(next(iter(self.blocks.values())))

    def rows(self) -> Iterator[dict]:
        """Tidy rows: one per forecaster, lead, threshold and score, then "pooled" over leads and the "mean" over leads.

        `low` and `high` bound the 95 % block-bootstrap interval; NaN with fewer than 5 blocks.
        """
        for name, blocks in self.blocks.items():
            total, parts = self.total(name), list(blocks.values())
            pooled = (total.pooled(), [part.pooled() for part in parts])
            for score_name, score in SCORES.items():
                common = {"forecaster": name, "score": score_name, "by_threshold": score.needs_threshold}
                yield from self._rows(common, self.lead_minutes, score(total), interval(parts, score), total)
                mean, spread = score.mean_over_leads, interval(parts, score.mean_over_leads)
                yield from self._rows(common, ("pooled",), score(pooled[0]), interval(pooled[1], score), pooled[0])
                values, low, high = (np.asarray(part)[None] for part in (mean(total), *spread))
                yield from self._rows(common, ("mean",), values, (low, high), pooled[0])

    def _rows(self, common: dict, leads: Sequence, values: np.ndarray, spread: tuple, total: Sums) -> Iterator[dict]:
        by_threshold = common["by_threshold"]
        thresholds = self.thresholds if by_threshold else (None,)
        shape = (len(leads), len(thresholds))
        values, low, high = (np.reshape(part, shape) for part in (values, *spread))
        for i, lead in enumerate(leads):
            for j, threshold in enumerate(thresholds):
                yield {
                    "forecaster": common["forecaster"],
                    "lead_minutes": lead,
                    "threshold": threshold,
                    "scale_km": None,
                    "score": common["score"],
                    "value": float(values[i, j]),
                    "low": float(low[i, j]),
                    "high": float(high[i, j]),
                    "num_cases": int(total.num_cases[i]) if isinstance(lead, float) else self.num_cases,
                    "num_pairs": int(total.num_pairs[i]),
                }


def evaluate(
    sources: Mapping[str, Source], records: Sequence[Record], *, selection: Selection, thresholds: Sequence[float]
) -> Evaluation:
    """Score every source on all cases that the records hold and all sources can forecast.

    Memory is bounded by one case. Raises DataError (exit 3) where no case is complete or the sources do not fit the
    records, UsageError (2) where they do not fit each other.
    """
    input_frames = max(source.input_frames for source in sources.values())
    leads = _common_leads(sources.values())
    evaluation, accounts = None, []
    for record in records:
        step = _common_step(sources, record)
        windows = _windows(sources, record, selection, input_frames, leads, step)
        accounts += [f"{record.name}: {line.strip()}" for line in windows.account.lines()]
        if not len(windows):
            continue
        minutes = tuple(float(minute) for minute in np.arange(1, leads + 1) * step / np.timedelta64(60, "s"))
        if evaluation is None:
            evaluation = Evaluation(minutes, tuple(map(float, thresholds)), record.quantity, [])
        if minutes != evaluation.lead_minutes:
            raise UsageError(
                f"{record.name} has lead times every {minutes[0]:g} min but {evaluation.records[0]} every "
                f"{evaluation.lead_minutes[0]:g} min: evaluate them one by one"
            )
        _score_record(evaluation, sources, record, windows)
    if evaluation is None or not evaluation.num_cases:
        raise DataError("\n".join([f"no complete case of {input_frames} past and {leads} future frames to score", *accounts]))
    return evaluation


def _common_leads(sources) -> int:
    found = [num_leads(source) for source in sources if hasattr(source, "lead_frames")]
    return min(found) if found else num_leads(next(iter(sources)))


def _common_step(sources: Mapping[str, Source], record: Record) -> np.timedelta64:
    steps = {name: source.time_step(record) for name, source in sources.items() if hasattr(source, "time_step")}
    if len(set(steps.values())) > 1:
        found = ", ".join(f"{name} {step / np.timedelta64(60, 's'):g} min" for name, step in steps.items())
        raise UsageError(f"the forecasters have different time steps on {record.name} ({found}): evaluate them one by one")
    if steps:
        return next(iter(steps.values()))
    return time_step(next(iter(sources.values())), record)


def _windows(
    sources: Mapping[str, Source], record: Record, selection: Selection, input_frames: int, leads: int, step: np.timedelta64
) -> Windows:
    windows = plan(record.times, input_frames=input_frames, lead_frames=leads, time_step=step)
    references = record.times[windows.reference_positions]
    chosen = selection.select(references)
    for source in sources.values():
        if isinstance(source, FileForecaster):
            chosen &= np.isin(references, source.file.reference_times)
    return windows.select(chosen)


def _score_record(evaluation: Evaluation, sources: Mapping[str, Source], record: Record, windows: Windows) -> None:
    evaluation.records.append(record.name)
    wettest = -1.0
    for positions in track(windows.positions, f"scoring {record.name}", unit="case"):
        past = record.read(positions[: windows.input_frames])
        if np.isnan(past).all(axis=(1, 2)).any():
            continue  # no forecaster can be asked to start from an empty frame
        observed = record.read(positions[windows.input_frames :])
        reference = record.times[positions[windows.input_frames - 1]]
        forecasts = {name: _forecast(source, past, reference, len(observed)) for name, source in sources.items()}
        known = np.isfinite(observed)
        for forecast in forecasts.values():
            known &= np.isfinite(forecast)
        block = (record.name, str(reference.astype("datetime64[D]")))
        for name, forecast in forecasts.items():
            evaluation.add(name, block, sums(forecast, observed, known, evaluation.thresholds))
        evaluation.num_cases += 1
        wet = float(np.mean(observed[known] >= evaluation.thresholds[0])) if known.any() else 0.0
        if evaluation.example is None or (evaluation.records[0] == record.name and wet > wettest):
            wettest = wet
            evaluation.example = _example(evaluation, record, reference, observed, forecasts)


def _forecast(source: Source, past: np.ndarray, reference: np.datetime64, leads: int) -> np.ndarray:
    if isinstance(source, FileForecaster):
        return source.forecast_at(reference, leads)
    return source.forecast(past[None], leads)[0]


def _example(evaluation: Evaluation, record: Record, reference, observed, forecasts) -> Example:
    leads = sorted({0, (len(observed) - 1) // 2, len(observed) - 1})
    return Example(
        record=record.name,
        reference=reference,
        lead_minutes=tuple(evaluation.lead_minutes[lead] for lead in leads),
        observed=observed[leads].copy(),
        forecasts={name: forecast[leads].copy() for name, forecast in forecasts.items()},
    )
