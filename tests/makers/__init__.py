"""Write small synthetic records, and run commands on them: plain functions with keyword arguments, no fixtures."""

import os
import re
from pathlib import Path

import netCDF4
import numpy as np
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).resolve().parents[2]  # the repository
SHARED = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared")).resolve()  # real radar records; may be absent


def rain(*, frames=12, shape=(48, 56), motion=(1, 2), missing=0.0, seed=0) -> np.ndarray:
    """Return smooth rain (time, y, x) float32, mm/h, moved by whole cells per frame; NaN with probability `missing`."""
    rng = np.random.default_rng(seed)
    margin = [frames * abs(m) for m in motion]
    field = gaussian_filter(rng.normal(size=(shape[0] + 2 * margin[0], shape[1] + 2 * margin[1])), 3, mode="wrap")
    field = np.maximum(field / field.std() - 0.3, 0) ** 2 * 8
    out = np.empty((frames, *shape), np.float32)
    for t in range(frames):
        top, left = margin[0] - t * motion[0], margin[1] - t * motion[1]
        out[t] = field[top : top + shape[0], left : left + shape[1]]
    out[rng.random(out.shape) < missing] = np.nan
    return out


def write_record(path, fields, *, times=None, step_minutes=5, y_ascending=False, variable="rainfall_rate", **attributes):
    """Write (time, y, x) mm/h, row 0 northernmost, as a plain CF record of 1 km cells; return its path.

    `times` are datetime64 (default: every `step_minutes` from 2020-06-01); `attributes` replace the variable's own.
    """
    fields = np.asarray(fields, np.float32)
    if times is None:
        times = np.datetime64("2020-06-01T00:00:00") + np.arange(len(fields)) * np.timedelta64(step_minutes * 60, "s")
    seconds = np.asarray(times, "datetime64[s]").astype(np.int64)
    y = 1000.0 * np.arange(fields.shape[1])[:: 1 if y_ascending else -1]
    attributes = {"standard_name": "rainfall_rate", "units": "mm h-1", "grid_mapping": "crs"} | attributes
    with netCDF4.Dataset(Path(path), "w") as file:
        for name, size in zip(("time", "y", "x"), fields.shape, strict=True):
            file.createDimension(name, size)
        _coordinate(file, "time", seconds, "i4", standard_name="time", units="seconds since 1970-01-01", calendar="standard")
        _coordinate(file, "y", y, "f8", standard_name="projection_y_coordinate", units="m")
        _coordinate(file, "x", 1000.0 * np.arange(fields.shape[2]), "f8", standard_name="projection_x_coordinate", units="m")
        crs = file.createVariable("crs", "i4")
        crs.setncatts(
            {
                "grid_mapping_name": "azimuthal_equidistant",
                "latitude_of_projection_origin": 50.0,
                "longitude_of_projection_origin": 5.0,
                "false_easting": 0.0,
                "false_northing": 0.0,
            }
        )
        data = file.createVariable(variable, "f4", ("time", "y", "x"), fill_value=np.float32(-9999), zlib=True)
        data.setncatts(attributes)
        data[:] = np.where(np.isnan(fields), -9999, fields)[:, :: -1 if y_ascending else 1]
    return Path(path)


def _coordinate(file, name, values, kind, **attributes):
    variable = file.createVariable(name, kind, (name,))
    variable.setncatts(attributes)
    variable[:] = values


PROBABILISTIC = {  # sections of a config: the recipe's model, small, and its loss
    "model": {"name": "probabilistic", "hidden_channels": [4], "kernel_sizes": [3], "patch": 2},
    "loss": {"name": "exceedance"},
}


def tiny_experiment(records, **training):
    """Return an experiment that trains in a second: 2 past frames, 3 lead times, crops of 16 cells."""
    from nowcast import config

    tree = {
        "data": {"records": [str(r) for r in records], "input_frames": 2, "lead_frames": 3, "crop": 16,
                 "augmentation": ["flips"], "splits": {"fractions": [0.6, 0.4, 0.0]}},
        "transform": {"name": "log"},
        "model": {"name": "encoder_forecaster", "hidden_channels": [4], "kernel_sizes": [3], "patch": 2},
        "loss": {"name": "mae"},
        "training": {"steps": 6, "batch_size": 2, "learning_rate": 1e-2, "validate_every": 3, "validation_cases": 4,
                     "precision": "float32", "ema": 0.9, **training},
    }  # fmt: skip
    return config.check(config.Experiment, tree)


def tiny_run(folder, records, **training):
    """Train `tiny_experiment` for two steps: a network of 2 past frames and 3 lead times; return the run folder."""
    from nowcast.commands.train import train_run

    experiment = tiny_experiment(records, **{"steps": 2, **training})
    train_run(experiment, Path(folder), resume=False, overwrite=False, device="cpu", draw=lambda _: None)
    return Path(folder)


def command(*argv):
    """Run `nowcast ARGV` in this process; return its exit code, stdout and stderr."""
    import contextlib
    import io

    from nowcast import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(word) for word in argv])
        except SystemExit as end:
            return end.code, out.getvalue(), err.getvalue()
    raise AssertionError("main always ends by SystemExit")


def expect(code, *argv, says):
    """Assert that `nowcast ARGV` ends with that code, one or two lines on stderr that match, no output and no new file."""
    before = sorted(os.listdir())
    exit_code, out, err = command(*argv)
    assert (exit_code, out) == (code, ""), err
    assert re.search(says, err), err
    assert err.startswith("error: ")
    assert err.count("\n") <= 2
    assert "Traceback" not in err
    assert sorted(os.listdir()) == before


def evaluation(*, names=("persistence", "net"), records=("a",), leads=3, thresholds=(0.5, 1.0, 5.0, 10.0), **changes):
    """Return an Evaluation of random rain on 1 km cells: a case on each of `num_blocks` days, and an example case."""
    from nowcast.evaluation.examples import ScoredCase, make_example
    from nowcast.evaluation.result import Evaluation
    from nowcast.quantity import RAIN_RATE
    from nowcast.scores import Setup, tallies

    quantity, num_blocks = changes.get("quantity", RAIN_RATE), changes.get("num_blocks", 6)
    rng = np.random.default_rng(0)
    minutes = tuple(5.0 * n for n in range(1, leads + 1))
    result = Evaluation(minutes, thresholds, quantity, list(records), num_cases=num_blocks)
    setup = Setup(thresholds, (1.0, 1.0), scales_km=(1.0, 3.0))
    for block in range(num_blocks):
        observed, *forecasts = rng.gamma(0.3, 4, (len(names) + 1, leads, 12, 14)).astype(np.float32)
        tallied = tallies(dict(zip(names, forecasts, strict=True)), observed, np.isfinite(observed), setup)
        for name, tally in tallied.items():
            result.add(name, (records[0], f"day {block}"), tally)
    fields = rng.gamma(0.3, 4, (len(names) + 1, leads, 10, 12)).astype(np.float32)
    fields[:, :, :2] = np.nan
    case = ScoredCase(records[0], np.datetime64("2020-06-01T00:00:00"), 0.5, 100)
    forecasts = dict(zip(names, fields[1:], strict=True))
    result.cases = [case]
    result.examples = [make_example("best", case, minutes, fields[0], forecasts, spacing_km=(1.0, 1.0))]
    result.about = {
        "records": [{
            "name": records[0], "variable": "rain", "first_frame": "2020-06-01", "last_frame": "2020-06-02", "num_frames": 9,
            "step_minutes": 5.0, "grid": "10 × 12", "institution": records[0], "num_cases": num_blocks,
            "first_case": "2020-06-01T00:00:00", "last_case": "2020-06-01T00:00:00",
        }],
        "forecasters": {name: {"kind": "network", "what": name, "digest": 64 * "0", "trained_on": [],
                               "num_cases_in_training": 0} for name in names},
    }  # fmt: skip
    return result
