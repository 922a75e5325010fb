#!/usr/bin/env python3
"""Measure how long CSI, POD, FAR, HSS, ETS and FSS take with nowcast, the package scores and pysteps.verification.

Scored are 5 thresholds × 4 scales × the lead times of one case, on the same float32 fields, with one thread each. All are
timed in turn in every round. Times are the median over the rounds with the range, ratios the median of the ratios in each
round. All scores must agree to 1e-9, so the fields have no missing pixels and a dry margin as wide as the largest window,
where the packages treat borders alike; an event is >= the threshold for all; and scores that are undefined in ours are not
compared. Frames are real ones from NOWCAST_SHARED if it has them, else synthetic. Packages that are not installed are left
out.

    python scripts/benchmarks/scoring.py --grid 640x710 --leads 12 --rounds 5
"""

import argparse
import contextlib
import importlib.util
import io
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))

import make_rain

THRESHOLDS = (0.5, 1.0, 2.0, 5.0, 10.0)  # mm/h
CELLS = (5, 11, 21, 41)  # sides of the FSS windows
SCORES = ("csi", "pod", "far", "hss", "ets")
RECORD = Path("radar") / "mch" / "20150515.nc"
FIRST = 6  # the first frame used of the record
ROOT = Path(__file__).resolve().parents[2]
Table = dict[str, np.ndarray]  # score -> (lead, threshold); "fss" -> (lead, threshold, scale)


def fields(grid: tuple[int, int], num_leads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return forecast and observed fields (lead, y, x) mm/h: persistence of a first frame, and the frames after it."""
    frames = _real_frames(num_leads + 1)
    frames = _synthetic_frames(num_leads + 1) if frames is None else frames
    repeats = [-(-size // have) for size, have in zip(grid, frames.shape[1:], strict=True)]
    frames = np.nan_to_num(np.tile(frames, (1, *repeats))[:, : grid[0], : grid[1]], nan=0)
    rim = min(max(CELLS) - 1, min(grid) // 2 - 1)
    for side in (frames[:, :rim], frames[:, -rim:], frames[:, :, :rim], frames[:, :, -rim:]):
        side[:] = 0
    return np.repeat(frames[:1], num_leads, axis=0), frames[1:]


def _real_frames(number: int) -> np.ndarray | None:
    path = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared")) / RECORD
    if not path.is_file():
        return None
    from nowcast.netcdf.opening import open_records

    (record,) = open_records([path])
    return record.read(range(FIRST, FIRST + number))


def _synthetic_frames(number: int) -> np.ndarray:
    """Return synthetic rain (time, y, x), mm/h, that moves by (1, 2) cells per frame."""
    (field,) = make_rain.gaussian_fields(1, 512, np.random.default_rng(1))
    rain = make_rain.to_rain(field, 0.52).astype(np.float32)
    return np.stack([np.roll(rain, (k, 2 * k), (0, 1)) for k in range(number)])


def by_nowcast(forecast: np.ndarray, observed: np.ndarray) -> Table:
    from nowcast import scores

    setup = scores.Setup(THRESHOLDS, (1.0, 1.0), scales_km=tuple(map(float, CELLS)))
    tally = scores.tallies({"x": forecast}, observed, np.isfinite(observed), setup, kinds=("pairs", "windows"))["x"]
    return {name: scores.SCORES[name](tally) for name in (*SCORES, "fss")}


def by_scores(forecast: np.ndarray, observed: np.ndarray) -> Table:
    import xarray as xr
    from scores.categorical import ThresholdEventOperator
    from scores.spatial import fss_2d

    names = {"csi": "critical_success_index", "pod": "probability_of_detection", "far": "false_alarm_ratio",
             "hss": "heidke_skill_score", "ets": "equitable_threat_score"}  # fmt: skip
    sides = [xr.DataArray(side, dims=("lead", "y", "x")) for side in (forecast, observed)]
    columns = {name: [] for name in (*SCORES, "fss")}
    for threshold in THRESHOLDS:
        operator = ThresholdEventOperator(default_event_threshold=threshold)
        manager = operator.make_contingency_manager(*sides).transform(preserve_dims="lead")
        for name, theirs in names.items():
            columns[name].append(getattr(manager, theirs)().values)
        options = {"event_threshold": threshold, "spatial_dims": ("y", "x"), "preserve_dims": ["lead"]}
        of_scales = [fss_2d(*sides, **options, window_size=(n, n), threshold_operator=np.greater_equal).values for n in CELLS]
        columns["fss"].append(np.stack(of_scales, axis=-1))
    return {name: np.stack(column, axis=1) for name, column in columns.items()}


def by_pysteps(forecast: np.ndarray, observed: np.ndarray) -> Table:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the path of its settings
        from pysteps.verification import detcatscores, spatialscores

    table = {name: np.empty((len(forecast), len(THRESHOLDS))) for name in SCORES}
    table["fss"] = np.empty((*table["csi"].shape, len(CELLS)))
    for lead, (f, o) in enumerate(zip(forecast, observed, strict=True)):
        for column, threshold in enumerate(THRESHOLDS):
            below = np.nextafter(np.float32(threshold), np.float32(0))  # in pysteps an event is > the threshold
            values = detcatscores.det_cat_fct(f, o, below, scores=[name.upper() for name in SCORES])
            for name in SCORES:
                table[name][lead, column] = values[name.upper()]
            table["fss"][lead, column] = [spatialscores.fss(f, o, threshold, cells) for cells in CELLS]
    return table


TOOLS: dict[str, Callable[[np.ndarray, np.ndarray], Table]] = {
    "nowcast": by_nowcast,
    "scores": by_scores,
    "pysteps": by_pysteps,
}


def largest_difference(ours: Table, theirs: Table) -> float:
    """Return the largest difference of all scores that are defined in ours."""
    return max(float(np.max(np.abs(ours[name] - theirs[name])[~np.isnan(ours[name])], initial=0)) for name in ours)


def measure(names: list[str], grid: tuple[int, int], num_leads: int, rounds: int) -> tuple[list[dict], dict[str, Table]]:
    """Return the seconds of each round by package, after a warm-up round, and the scores of each package."""
    forecast, observed = fields(grid, num_leads)
    seconds, tables = [], {}
    for number in range(rounds + 1):
        seconds_of_round = {}
        for name in names:
            began = time.perf_counter()
            tables[name] = TOOLS[name](forecast, observed)
            seconds_of_round[name] = time.perf_counter() - began
        if number:
            seconds.append(seconds_of_round)
    return seconds, tables


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=lambda text: tuple(map(int, text.split("x"))), default=(640, 710), metavar="YxX")
    parser.add_argument("--leads", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    if min(args.grid) <= max(CELLS):
        parser.error(f"--grid: the largest window has {max(CELLS)} cells each way")
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")  # the other packages warn of undefined scores
    names = [name for name in TOOLS if importlib.util.find_spec(name)]
    seconds, tables = measure(names, args.grid, args.leads, args.rounds)
    y, x = args.grid
    print(f"{len(THRESHOLDS)} thresholds × {len(CELLS)} scales × {args.leads} leads on {y} × {x}; {args.rounds} rounds.\n")
    print("| tool | seconds | ÷ nowcast | largest difference |\n| --- | ---: | ---: | ---: |")
    for name in names:
        times = [one[name] for one in seconds]
        ratio = median(one[name] / one["nowcast"] for one in seconds)
        difference = largest_difference(tables["nowcast"], tables[name])
        print(f"| {name} | {median(times):.3f} ({min(times):.3f}–{max(times):.3f}) | {ratio:.1f} | {difference:.1e} |")
        if difference > 1e-9:
            raise SystemExit(f"{name} does not agree with nowcast to 1e-9")


if __name__ == "__main__":
    main()
