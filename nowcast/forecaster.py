"""Anything that maps past frames to future frames is a Forecaster: a trained network or a baseline, by one call.

Both sides of the call are mm/h with NaN for missing; network values exist only inside `Network`.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nowcast import config
from nowcast.baselines import BASELINES, DRY_THRESHOLD
from nowcast.checkpoint import PRETRAINED, Checkpoint, read_checkpoint
from nowcast.device import arithmetic, pick_precision
from nowcast.errors import CheckpointError, DataError, NowcastError
from nowcast.forecast_reader import Forecasts, read_forecast
from nowcast.grid import difference
from nowcast.lagrangian import from_lagrangian, past_to_lagrangian
from nowcast.losses import make_loss
from nowcast.models import make_model, model_config, point_values
from nowcast.models.probabilistic import stride_for
from nowcast.motion import motion
from nowcast.netcdf import Record
from nowcast.tiles import (
    Run,
    Tiling,
    available_bytes,
    bytes_per_cell,
    choose_tiles,
    find_reach,
    forecast_in_tiles,
    tile_multiple,
)
from nowcast.transform import Transform, make_transform, network_input

log = logging.getLogger(__name__)
FORECAST_SUFFIXES = {".nc", ".nc4", ".cdf"}
# cells that go through the network at once: more take longer each on a CPU, whose cache they leave
BATCH_CELLS = {"cpu": 1 << 17, "cuda": 1 << 20}
LONGEST_STEP, MOST_FRAMES = 366 * 86400, 1000  # s, and as in config.py: no checkpoint can ask for more
OTHER_STEPS = 3.0  # times as long or short as any that a network was trained on, and it still forecasts along the motion
SURELY_FIT = 1 << 16  # cells; the greediest recipe, keras_next_frame, takes 17 KB for each


class Forecaster(Protocol):
    """`forecast` maps the newest frames to `num_leads` future ones, both in mm/h with NaN for missing.

    One that gives probabilities has `thresholds`, mm/h, not empty, and `forecast_and_exceedance(past, num_leads, thresholds)`,
    which gives the forecast and (case, num_leads, threshold, y, x) float32 of 0 to 1: the probability of as much or more,
    NaN for missing.
    """

    name: str
    input_frames: int

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """(case, time, y, x), time >= input_frames with the newest last -> (case, num_leads, y, x), float32."""
        ...


class Network:
    """A trained network from its checkpoint.

    A pixel that is missing in every past frame stays missing. `time_steps` are those it was trained on, in seconds.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, *, device: torch.device):
        self.name, self.device, self.digest = name, device, checkpoint.digest
        facts = checkpoint.facts
        try:
            self.experiment = config.from_dict(facts["config"], source=f"the config in {name}")
            self.input_frames, self.lead_frames = (_bounded(facts[key]) for key in ("input_frames", "lead_frames"))
            self.time_steps, self.quantity = _time_steps(facts["time_steps"]), str(facts["quantity"])
            self.transform = make_transform(self.experiment.transform)
            self.model = _load_model(self.experiment, checkpoint)
        except CheckpointError:
            raise
        except (NowcastError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{name} cannot be used: {_first_line(error)}") from None
        self.facts: dict[str, Any] = dict(facts)
        self.model.to(device).eval()
        self.precision = pick_precision(self.experiment.training.precision, device)
        self._tilings: dict[tuple[tuple[int, int], int, int], Tiling | None] = {}  # by grid, leads and fields for each

    @property
    def reading(self) -> dict[str, Any]:
        """How records were read for it: keywords of `open_records`. Rain is found by itself, another quantity by its name."""
        data = self.experiment.data
        named = self.quantity != "rain_rate" and data.variable != "auto"
        return {"variable": data.variable if named else None, "zr_a": data.zr_a, "zr_b": data.zr_b}

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Those of which it can tell the probability, as it was trained to; none for a network that forecasts values."""
        loss = make_loss(self.experiment.loss)
        return tuple(map(float, loss.thresholds)) if loss.of_distributions else ()

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return self._fields(past, num_leads)[:, :, 0]

    def forecast_and_exceedance(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The forecast (case, lead, y, x), and of networks that have `thresholds`, these or any other, the probabilities
        (case, lead, threshold, y, x) of these rates (mm/h) or more: float32 of 0 to 1, NaN as in the forecast.
        """
        fields = self._fields(past, num_leads, thresholds)
        return fields[:, :, 0], fields[:, :, 1:]

    def _fields(self, past: np.ndarray, num_leads: int, thresholds: Sequence[float] = ()) -> np.ndarray:
        """(case, lead, 1 + threshold, y, x): the forecast and the probabilities, in the coordinates of the grid."""
        past = np.ascontiguousarray(past[:, -self.input_frames :], np.float32)
        if self.experiment.data.coordinates != "lagrangian":
            return self._kept_dry(past, self._in_parts(past, num_leads, thresholds))
        flows = [motion(case) for case in past]
        still = np.stack([past_to_lagrangian(case, flow) for case, flow in zip(past, flows, strict=True)])
        made = self._in_parts(still, num_leads, thresholds)
        np.copyto(made, np.nan, where=np.isnan(past[:, -1])[:, None, None])  # as of an extrapolation
        for case, flow in zip(made, flows, strict=True):  # in place: of a continent, every copy is a gigabyte
            from_lagrangian(case, flow, out=case)
        return self._kept_dry(past, made)

    @torch.inference_mode()
    def _in_parts(self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]) -> np.ndarray:
        """As `_fields`, some cases at a time, or tiles of one: as much as fits in memory."""
        run = partial(self._run, thresholds=thresholds)
        if tiling := self._tiling(past.shape[-2:], num_leads, run, 1 + len(thresholds)):
            parts = [self._in_tiles(case[None], num_leads, run, tiling) for case in past]
        else:
            cases = self.cases_at_once(past.shape[-2:])
            parts = [run(past[n : n + cases], num_leads) for n in range(0, len(past), cases)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _in_tiles(self, past: np.ndarray, num_leads: int, run: Run, tiling: Tiling) -> np.ndarray:
        """One case. Where areas are matched they are of the whole grid: all tiles are computed once for that before."""
        if hasattr(self.model, "match"):
            run = partial(run, cuts=self._cuts(past, num_leads, tiling))
        return forecast_in_tiles(run, past, num_leads, tiling)

    def _cuts(self, past: np.ndarray, num_leads: int, tiling: Tiling) -> Tensor:
        """The z (case, lead, anchor) of the model's `match`, from a sample of the core of each tile."""
        stride, samples = stride_for(past.shape[-2:]), []
        for y, x in tiling:
            core = (..., *(axis.core_from(stride) for axis in (y, x)))
            inputs = network_input(self._on_device(past[..., y.read, x.read]), self.transform)
            with arithmetic(self.device, self.precision):
                leads = [self.model.sample(part[core], inputs[core], stride) for part in self.model.leads(inputs, num_leads)]
            samples.append((torch.cat([odds for odds, *_ in leads], dim=1), *leads[0][1:]))
        return self.model.match(*(torch.cat(parts, dim=-1) for parts in zip(*samples, strict=True)))

    def _kept_dry(self, past: np.ndarray, forecast: np.ndarray) -> np.ndarray:
        """A network answers to a clear sky with a little drizzle: of a past without rain anywhere the forecast has none."""
        if self.quantity == "rain_rate":
            dry = ~(past >= DRY_THRESHOLD).any(axis=(1, 2, 3))
            forecast[dry] = np.where(np.isnan(forecast[dry]), np.nan, 0)
        return forecast

    def cases_at_once(self, grid: tuple[int, int]) -> int:
        """How many cases are best forecast together."""
        return max(BATCH_CELLS.get(self.device.type, BATCH_CELLS["cpu"]) // (grid[0] * grid[1]), 1)

    def _run(self, past: np.ndarray, num_leads: int, **options: Any) -> np.ndarray:
        with arithmetic(self.device, self.precision):
            fields = forecast_fields(self.model, self.transform, self._on_device(past), num_leads, **options)
        return fields.cpu().numpy()

    def _on_device(self, past: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(past)).to(self.device)

    def _tiling(self, grid: tuple[int, int], num_leads: int, run: Run, fields: int) -> Tiling | None:
        """The tiles for a grid that does not fit in memory as a whole, None where it does; found out once."""
        if grid[0] * grid[1] <= SURELY_FIT or getattr(self.model, "grid", None):
            return None
        key = grid, num_leads, fields
        if key not in self._tilings:
            self._tilings[key] = self._plan_tiles(grid, num_leads, run)
        return self._tilings[key]

    def _plan_tiles(self, grid: tuple[int, int], num_leads: int, run: Run) -> Tiling | None:
        multiple = tile_multiple(self.model)
        per_cell = bytes_per_cell(run, self.input_frames, num_leads, grid, self.device)
        num_bytes = available_bytes(self.device)
        if grid[0] * grid[1] * per_cell <= num_bytes:
            return None
        reach = find_reach(self.model, self.input_frames, num_leads, like=next(self.model.parameters()))
        tiling = choose_tiles(grid, multiple, num_bytes=num_bytes, per_cell=per_cell, reach=reach, device=self.device)
        margin = tiling.margin - tiling.blend
        log.info(
            "%d × %d cells do not fit in memory at once: forecast in %d × %d tiles with %d cells around each%s",
            *grid, *tiling.counts, margin, "" if margin >= reach else f" (exact with {reach:g})",
        )  # fmt: skip
        return tiling

    def time_step(self, record: Record) -> np.timedelta64:
        """The time step to forecast `record` in; DataError (exit 3) where quantity, grid or step do not fit the training.

        A record whose own step divides a trained step is forecast in that one, from every so many frames.
        """
        if record.quantity != self.quantity:
            raise DataError(f"{record.name} holds {record.quantity} but {self.name} was trained on {self.quantity}")
        self._check_grid(record)
        if np.isnat(record.time_step):  # a single frame fits only a network of one input frame, in its own step
            return np.timedelta64(self.time_steps[0], "s")
        step = int(record.time_step / np.timedelta64(1, "s"))
        if self.time_steps[0] <= step <= self.time_steps[-1]:
            return np.timedelta64(step, "s")
        trained = " to ".join(f"{s / 60:g}" for s in dict.fromkeys((self.time_steps[0], self.time_steps[-1])))
        # along the motion, another step is only another speed of growth and decay, of which the past frames tell
        slack = OTHER_STEPS if self.experiment.data.coordinates == "lagrangian" else 1.0
        if self.time_steps[0] / slack <= step <= self.time_steps[-1] * slack:
            told = "%s has a time step of %g min and %s was trained on %s min: its scores may be lower"
            log.warning(told, record.name, step / 60, self.name, trained)
            return np.timedelta64(step, "s")
        multiples = [seconds for seconds in self.time_steps if seconds % step == 0]
        if not multiples:
            raise DataError(
                f"{record.name} has a time step of {step / 60:g} min but {self.name} was trained on {trained} min; "
                "use a record of that step or train on this one"
            )
        return np.timedelta64(multiples[0], "s")

    def _check_grid(self, record: Record) -> None:
        y, x = record.grid.shape
        cells, only = self.model.cell_multiple, getattr(self.model, "grid", None)
        if only and (y, x) != tuple(only):
            raise DataError(f"{record.name} has a grid of {y} × {x} cells; {self.name} is made for {only[0]} × {only[1]} alone")
        if min(y, x) < cells:
            raise DataError(f"{record.name} has a grid of {y} × {x} cells; {self.name} needs at least {cells} each way")


class FileForecaster:
    """Forecasts made earlier, by anyone, in forecast files: they can be scored, but not asked for other times.

    A lead time of 0, the analysis that some centres file with their forecasts, is no forecast and left out.
    """

    input_frames = 1

    def __init__(self, file: Forecasts, name: str):
        self.file, self.name = file, name
        self.lead_times = file.lead_times[file.lead_times > np.timedelta64(0, "s")]
        self.lead_frames = len(self.lead_times)
        if not self.lead_frames:
            raise DataError(f"{name} has no lead time above 0.\nRight would be forecasts for later than their reference time.")

    def time_step(self, record: Record) -> np.timedelta64:
        """The step between its leads on this record; DataError where grid, quantity or leads do not fit it."""
        leads = self._leads_on(record)
        if len(leads) < self.lead_frames:
            told = "%s: left out %d of %d lead times, at which %s, a frame every %s, has none"
            log.warning(
                told, self.name, self.lead_frames - len(leads), self.lead_frames, record.name, _minutes(record.time_step)
            )
        self._tell_of_projections(record)
        return leads[0]

    def _tell_of_projections(self, record: Record) -> None:
        stated = [grid.mapping_attributes.get("grid_mapping_name") for grid in (self.file.grid, record.grid)]
        if (stated[0] is None) != (stated[1] is None):
            without, other = (self.name, record.name) if stated[0] is None else (record.name, self.name)
            log.info("%s states no map projection: taken to be that of %s, whose coordinates are the same", without, other)

    def num_leads(self, record: Record) -> int:
        """How many of its leads this record has frames for."""
        return len(self._leads_on(record))

    def _leads_on(self, record: Record) -> np.ndarray:
        """The lead times whose valid times this record can have frames at: 1, 2, 3, … of one time step."""
        if self.file.quantity != record.quantity:
            raise DataError(f"{self.name} forecasts {self.file.quantity} but {record.name} holds {record.quantity}")
        if differs := difference(self.file.grid, record.grid):
            raise DataError(f"{self.name} is not on the grid of {record.name}: {differs}.\nRegrid one of them first.")
        leads, step = self.lead_times, record.time_step
        if not np.isnat(step):
            leads = leads[leads % step == np.timedelta64(0, "s")]
        if not len(leads):
            raise DataError(
                f"{self.name} has lead times of {_minutes(*self.lead_times)}, {record.name} a frame every {_minutes(step)}.\n"
                "Right would be observations at the times that are forecast."
            )
        if (leads != np.arange(1, len(leads) + 1) * leads[0]).any():
            raise DataError(f"{self.name} has lead times that are not 1, 2, 3, … of one time step: {_minutes(*leads)}")
        return leads

    def forecast_at(self, reference: np.datetime64, lead_times: np.ndarray) -> np.ndarray:
        """(lead, y, x) mm/h of the forecast from that time; of an ensemble its mean."""
        return self.file.read(self._case(reference), self._positions(lead_times))

    def members_at(self, reference: np.datetime64, lead_time: np.timedelta64) -> np.ndarray:
        """(member, y, x) mm/h of the forecast from that time."""
        return self.file.members(self._case(reference), self._positions([lead_time])[0])

    def probabilities_at(self, reference: np.datetime64, lead_time: np.timedelta64, thresholds: Sequence[float]) -> np.ndarray:
        """(threshold, y, x) of 0 to 1, of some of `self.file.thresholds`."""
        columns = [self.file.thresholds.index(threshold) for threshold in thresholds]
        return self.file.probabilities(self._case(reference), self._positions([lead_time])[0], columns)

    def _case(self, reference: np.datetime64) -> int:
        return int(np.flatnonzero(self.file.reference_times == reference)[0])

    def _positions(self, lead_times: Sequence[np.timedelta64]) -> list[int]:
        return np.searchsorted(self.file.lead_times, np.asarray(lead_times, "timedelta64[s]")).tolist()


def _minutes(*steps: np.timedelta64) -> str:
    """As "5, 10, 15, … 60 min", for a message."""
    numbers = [f"{step / np.timedelta64(60, 's'):g}" for step in steps]
    return ", ".join(numbers if len(numbers) < 6 else [*numbers[:3], f"… {numbers[-1]}"]) + " min"


def forecast_rain(model: torch.nn.Module, transform: Transform, rain: Tensor, num_leads: int) -> Tensor:
    """Past (case, time, y, x) -> forecast (case, lead, y, x), both mm/h with NaN for missing, through the network."""
    return forecast_fields(model, transform, rain, num_leads)[:, :, 0]


def forecast_fields(
    model: torch.nn.Module,
    transform: Transform,
    rain: Tensor,
    num_leads: int,
    *,
    thresholds: Sequence[float] = (),
    cuts: Tensor | None = None,
) -> Tensor:
    """Past (case, time, y, x) mm/h -> (case, lead, 1 + threshold, y, x): the forecast in mm/h and probabilities of thresholds.

    `cuts` are those of a larger grid that this is a tile of, for networks that match areas.
    """
    past = network_input(rain, transform)
    if not hasattr(model, "leads"):
        fields = transform.decode(model(past, num_leads))[:, :, None]
    else:
        encoded = transform.encode(torch.tensor(thresholds, dtype=torch.float32)).tolist()
        made = []
        for lead, outputs in enumerate(model.leads(past, num_leads)):
            of_lead = None if cuts is None else cuts[:, lead : lead + 1]
            field = transform.decode(point_values(model, outputs, past, cuts=of_lead, first_lead=lead + 1))[:, :, None]
            made.append(torch.cat([field, model.exceedance(outputs, encoded)], dim=2) if thresholds else field)
        fields = torch.cat(made, dim=1)
    return torch.where(torch.isnan(rain).all(dim=1)[:, None, None], torch.nan, fields)


def _load_model(experiment: config.Experiment, checkpoint: Checkpoint) -> torch.nn.Module:
    # on "meta" nothing is allocated, so a config that lies about sizes fails by the tensors' shapes
    with torch.device("meta"):
        model = make_model(model_config(experiment.model))
    # a checkpoint to resume from holds the newest weights and, where one is kept, their average, which forecasts better
    model.load_state_dict(checkpoint.part("average") or checkpoint.part("model"), assign=True)
    return model


def _bounded(frames: int) -> int:
    """As many as a config can ask for; ValueError otherwise."""
    if not 1 <= int(frames) <= MOST_FRAMES:
        raise ValueError(f"{str(frames)[:40]} frames")
    return int(frames)


def _time_steps(values: list) -> list[int]:
    """Seconds, ascending; ValueError where they cannot be time steps."""
    steps = [int(value) for value in values]
    if not steps or steps != sorted(steps) or not 0 < steps[0] <= steps[-1] <= LONGEST_STEP:
        raise ValueError(f"time steps of {str(steps)[:40]} s")
    return steps


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def open_forecaster(name: str, *, device: torch.device, variable: str | None = None) -> Forecaster | FileForecaster:
    """The baseline of that name, the network of a run folder or checkpoint or "pretrained", or the forecasts of NetCDF files.

    These may be one file, a folder or a glob; `variable` is theirs, where they have it. Raises CheckpointError (exit 4)
    where there is none of these, DataError (3) for NetCDF files without forecasts.
    """
    path = Path(name)
    if name in BASELINES:
        return BASELINES[name]()
    if name == PRETRAINED:
        return Network(read_checkpoint(name), name, device=device)
    if _is_glob(path):
        return FileForecaster(read_forecast(name, variable=variable), path.absolute().parent.name)
    if not path.exists():
        raise CheckpointError(f"no such run folder, checkpoint or baseline: {name} (baselines: {', '.join(BASELINES)})")
    if path.suffix in FORECAST_SUFFIXES:
        return FileForecaster(read_forecast(path, variable=variable), path.stem)
    if _holds_forecasts(path):
        return FileForecaster(read_forecast(path, variable=variable), path.resolve().name)
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return Network(read_checkpoint(path), folder.name, device=device)


def _is_glob(path: Path) -> bool:
    return not path.exists() and bool(set("*?[") & set(str(path)))


def _holds_forecasts(path: Path) -> bool:
    """Whether it is a folder of NetCDF files, and not of a run."""
    if not path.is_dir() or (path / "config.toml").exists() or any(path.glob("*.safetensors")):
        return False
    return any(file.suffix in FORECAST_SUFFIXES for pattern in ("*", "*/*") for file in path.glob(pattern))
