"""A trained network as a Forecaster: mm/h in, mm/h out; network values exist only in here."""

import logging
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nowcast import config
from nowcast.errors import CheckpointError, DataError, NotEnoughFrames, NowcastError, UsageError, counted
from nowcast.forecasters.baselines import DRY_THRESHOLD
from nowcast.forecasters.by_lead import network_exceedance
from nowcast.forecasters.fields import forecast_fields
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.members.structure import of_checkpoint
from nowcast.forecasters.seen import spans_of_checkpoint
from nowcast.forecasters.tiles import (
    Run,
    Tiling,
    available_bytes,
    bytes_per_cell,
    choose_tiles,
    find_reach,
    forecast_in_tiles,
)
from nowcast.models import make_model, model_config, num_parameters
from nowcast.models.checkpoint import Checkpoint, bounded_frames, bounded_steps
from nowcast.models.losses import make_loss
from nowcast.models.model import Model
from nowcast.models.transform import make_transform, network_input
from nowcast.motion import MOTION, MotionConstants, from_lagrangian, motion, past_to_lagrangian
from nowcast.netcdf.record import Record
from nowcast.quantity import Quantity
from nowcast.runtime.device import arithmetic
from nowcast.runtime.precision import forecasting_precision

log = logging.getLogger(__name__)
# Cells of all cases in one call of the network; on a CPU more do not fit in its cache and take longer each
BATCH_CELLS = {"cpu": 1 << 17, "cuda": 1 << 20}
# In Lagrangian coordinates a network also forecasts at longer or shorter time steps than in training, up to this factor
MOST_STEP_FACTOR = 3.0
SMALL_GRID = 1 << 16  # cells; such a grid fits in memory: the largest model, configs/keras_next_frame, takes 17 KB per cell


class Network(Forecaster):
    """A trained network from its checkpoint.

    A cell that is missing in every past frame stays missing. `time_steps`, s, are those of its training data. The checkpoint's
    weights are loaded into `model`; default: the model of its config.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        *,
        device: torch.device,
        files: Sequence[Path] = (),
        model: Model | None = None,
        motion_constants: MotionConstants = MOTION,
    ):
        self.name, self.device, self.digest, self.files = name, device, checkpoint.digest, tuple(files)
        self.motion_constants, metadata = motion_constants, checkpoint.metadata
        try:
            self.experiment = config.from_dict(metadata["config"], source=f"the config in {name}")
            self.input_frames, self.lead_frames = (bounded_frames(metadata[key]) for key in ("input_frames", "lead_frames"))
            self.max_absent = self.experiment.data.max_absent
            self.time_steps, self.quantity = bounded_steps(metadata["time_steps"]), Quantity.named(str(metadata["quantity"]))
            self.transform = make_transform(self.experiment.transform)
            self.model = _load_model(model or _untrained(self.experiment), checkpoint)
            self.structure, self.scale = of_checkpoint(metadata)
        except CheckpointError:
            raise
        except (NowcastError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            # the config was checked when it was written: a key or part that is unknown here is of another version
            is_unknown = isinstance(error, UsageError) and re.search("unknown (key|section)|is not known", str(error))
            newer = "\nA newer version of nowcast may have written it: update nowcast." if is_unknown else ""
            raise CheckpointError(f"{name} cannot be used: {_first_line(error)}{newer}") from None
        self.metadata: dict[str, Any] = dict(metadata)
        self.model.to(device).eval()
        decided = metadata.get("precision", self.experiment.training.precision)
        self.precision = forecasting_precision(decided, device, name=name)
        # by grid, number of lead times and fields per lead time
        self._tilings: dict[tuple[tuple[int, int], int, int], Tiling | None] = {}

    @property
    def citation(self) -> str:
        """Return the paper of the model."""
        return self.model.citation

    @property
    def source(self) -> str:
        """Return the model's name and the checkpoint's SHA-256."""
        return f"{self.experiment.model.name} (checkpoint SHA-256 {self.digest})"

    def describe(self) -> dict[str, Any]:
        """Return the model, its size, the checkpoint's SHA-256, and the time spans (record, start, end) that trained it."""
        size = f"{num_parameters(self.model):,} parameters, {counted(self.input_frames, 'past frame')}"
        spans = self.metadata.get("spans", {}).get("training", [])
        return {
            "kind": "network",
            "what": f"{self.experiment.model.name}, {size}",
            "digest": self.digest,
            "trained_on": [[name, start.removesuffix("Z"), end.removesuffix("Z")] for name, start, end in spans],
        }

    def seen(self, split: str) -> list[list[str]]:
        """Return the spans (record, start, end) whose frames trained it, or chose and calibrated it ("validation")."""
        return spans_of_checkpoint(self.metadata, split, self.experiment.data.splits)

    @property
    def cells_km(self) -> list[list[float]]:
        """Return the sizes (y, x) of the cells of the records that it was trained on, km."""
        return self.metadata.get("spacing_km", [])

    @property
    def reading(self) -> dict[str, Any]:
        """Return how records were read for training: rain by its attributes, another quantity by its variable name."""
        data = self.experiment.data
        named = not self.quantity.is_rain and data.variable != "auto"
        units = None if data.units == "auto" else data.units
        return {"variable": data.variable if named else None, "units": units, "zr_a": data.zr_a, "zr_b": data.zr_b}

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the thresholds of its loss, mm/h; () for a network that forecasts values, not distributions."""
        loss = make_loss(self.experiment.loss)
        return tuple(map(float, loss.thresholds)) if loss.takes_distributions else ()

    @property
    def is_probabilistic(self) -> bool:
        return bool(self.thresholds)

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return self._fields(past, num_leads)[:, :, 0]

    def forecast_and_exceedance(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.is_probabilistic:
            return super().forecast_and_exceedance(past, num_leads, thresholds)
        fields = self._fields(past, num_leads, thresholds)
        return fields[:, :, 0], fields[:, :, 1:]

    def exceedance_by_lead(self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]) -> Iterator[np.ndarray]:
        if not self.is_probabilistic:
            return super().exceedance_by_lead(past, num_leads, thresholds)
        return network_exceedance(self, self.check_past(past[None])[0], num_leads, thresholds)

    def _fields(self, past: np.ndarray, num_leads: int, thresholds: Sequence[float] = ()) -> np.ndarray:
        """Return the forecast and the probabilities (case, lead, 1 + threshold, y, x) on the grid of the record."""
        past = np.ascontiguousarray(self.check_past(past)[:, -self.input_frames :], np.float32)
        if self.experiment.data.coordinates != "lagrangian":
            guided = self.model.guidance(past, num_leads) if self.model.takes_guidance else None
            return self._keep_dry(past, self._in_parts(past, num_leads, thresholds, guided))
        flows = [motion(case, self.motion_constants) for case in past]
        still = np.stack([past_to_lagrangian(case, flow) for case, flow in zip(past, flows, strict=True)])
        fields = self._in_parts(still, num_leads, thresholds)
        np.copyto(fields, np.nan, where=np.isnan(past[:, -1])[:, None, None])  # as in an extrapolation
        for case, flow in zip(fields, flows, strict=True):  # in place: for a continent, a copy takes a gigabyte
            from_lagrangian(case, flow, out=case)
        return self._keep_dry(past, fields)

    @torch.inference_mode()
    def _in_parts(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float], guided: np.ndarray | None = None
    ) -> np.ndarray:
        """Compute `_fields` in the model's coordinates: some cases at a time, or one in tiles if it does not fit in memory."""
        run = partial(self._run, thresholds=thresholds)
        if tiling := self.tiling(past.shape[-2:], num_leads, run, 1 + len(thresholds)):
            cases, run = 1, partial(self._in_tiles, run=run, tiling=tiling)
        else:
            cases = self.cases_at_once(past.shape[-2:])
        parts = [slice(n, n + cases) for n in range(0, len(past), cases)]
        further = [{} if guided is None else {"guidance": guided[part]} for part in parts]
        pieces = [run(past[part], num_leads, **inputs) for part, inputs in zip(parts, further, strict=True)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _in_tiles(
        self, past: np.ndarray, num_leads: int, guidance: np.ndarray | None = None, *, run: Run, tiling: Tiling
    ) -> np.ndarray:
        """Forecast one case in tiles; if the model matches areas, a first pass matches those of the whole grid."""
        if self.model.matches_areas:
            run = partial(run, matched=self.matched(past, num_leads, tiling, guidance))
        return forecast_in_tiles(run, past, num_leads, tiling, guidance)

    def matched(self, past: np.ndarray, num_leads: int, tiling: Tiling, guidance: np.ndarray | None) -> Tensor:
        """Return the model's `match` (case, lead, 2, value) of the whole grid, from a sample of the core of each tile."""
        stride, samples = self.model.sample_stride(past.shape[-2:]), []
        for y, x in tiling:
            core = (..., *(axis.core_from(stride) for axis in (y, x)))
            inputs = network_input(self.on_device(past[..., y.read, x.read]), self.transform)
            further = {} if guidance is None else {"guidance": self.on_device(guidance[..., y.read, x.read])}
            with arithmetic(self.device, self.precision):
                leads = self.model.leads(inputs, num_leads, **further)
                samples.append([self.model.sample(outputs[core], inputs[core], stride) for outputs in leads])
        matched, lead = [], 1
        for of_tiles in zip(*samples, strict=True):  # some lead times of all tiles
            matched.append(self.model.match(*(torch.cat(pieces, dim=-1) for pieces in zip(*of_tiles, strict=True)), lead))
            lead += matched[-1].shape[1]
        return torch.cat(matched, dim=1)

    def _keep_dry(self, past: np.ndarray, forecast: np.ndarray) -> np.ndarray:
        """Set the forecast of a case without rain in its past frames to 0, since networks forecast drizzle from dry frames."""
        if self.quantity.is_rain:
            dry = ~(past >= DRY_THRESHOLD).any(axis=(1, 2, 3))
            forecast[dry] = np.where(np.isnan(forecast[dry]), np.nan, 0)
        return forecast

    def cases_at_once(self, grid: tuple[int, int]) -> int:
        """Return the number of cases on a grid of this (y, x) shape that is fastest to forecast in one call."""
        return max(BATCH_CELLS.get(self.device.type, BATCH_CELLS["cpu"]) // (grid[0] * grid[1]), 1)

    def _run(self, past: np.ndarray, num_leads: int, guidance: np.ndarray | None = None, **options: Any) -> np.ndarray:
        further = {} if guidance is None else {"guidance": self.on_device(guidance)}
        with arithmetic(self.device, self.precision):
            fields = forecast_fields(self.model, self.transform, self.on_device(past), num_leads, **further, **options)
        return fields.cpu().numpy()

    def on_device(self, past: np.ndarray) -> Tensor:
        """Copy past frames (case, time, y, x), or guidance (case, lead, rate, y, x), to the network's device."""
        return torch.from_numpy(np.ascontiguousarray(past)).to(self.device)

    def tiling(self, grid: tuple[int, int], num_leads: int, run: Run, fields: int) -> Tiling | None:
        """Return the tiles for a grid that does not fit in memory as a whole, else None. They are chosen once per grid."""
        if grid[0] * grid[1] <= SMALL_GRID or self.model.grid:
            return None
        key = grid, num_leads, fields
        if key not in self._tilings:
            self._tilings[key] = self._choose_tiles(grid, num_leads, run)
        return self._tilings[key]

    def _choose_tiles(self, grid: tuple[int, int], num_leads: int, run: Run) -> Tiling | None:
        multiple = self.model.tile_multiple
        per_cell = bytes_per_cell(self._measured(run), self.input_frames, num_leads, grid, self.device)
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

    def _measured(self, run: Run) -> Run:
        """Return `run` with blank guidance added, to measure its memory."""

        def measured(past: np.ndarray, num_leads: int) -> np.ndarray:
            blank = self.model.blank_inputs(len(past), num_leads, past.shape[-2:])
            return run(past, num_leads, **{name: value.cpu().numpy() for name, value in blank.items()})

        return measured

    def own_time_step(self, record: Record) -> np.timedelta64:
        """Return the time step in which to forecast `record`.

        If the record's step divides a time step of the training data, that one is used, and frames between are skipped.
        Raises DataError (exit 3) if quantity, grid or time step do not fit the training, NotEnoughFrames (75) for one frame.
        """
        if record.quantity != self.quantity:
            raise DataError(f"{record.name} holds {record.quantity} but '{self.name}' was trained on {self.quantity}")
        self.check_grid(record.grid.shape, record.name)
        if np.isnat(record.time_step):  # a single frame is enough only for a network with one input frame, at its own time step
            if self.input_frames > 1:
                raise NotEnoughFrames(
                    f"{record.name} has a single frame: '{self.name}' needs {self.input_frames} frames.\n"
                    "Give the frames before it as well."
                )
            return np.timedelta64(self.time_steps[0], "s")
        step = int(record.time_step / np.timedelta64(1, "s"))
        if self.time_steps[0] <= step <= self.time_steps[-1]:
            return np.timedelta64(step, "s")
        trained = " to ".join(f"{s / 60:g}" for s in dict.fromkeys((self.time_steps[0], self.time_steps[-1])))
        # along the motion, another time step only changes the rates of growth and decay, which the past frames show
        factor = MOST_STEP_FACTOR if self.experiment.data.coordinates == "lagrangian" else 1.0
        if self.time_steps[0] / factor <= step <= self.time_steps[-1] * factor:
            message = "%s has a time step of %g min but '%s' was trained on %s min: its scores may be lower"
            log.warning(message, record.name, step / 60, self.name, trained)
            return np.timedelta64(step, "s")
        multiples = [seconds for seconds in self.time_steps if seconds % step == 0]
        if not multiples:
            raise DataError(
                f"{record.name} has a time step of {step / 60:g} min but '{self.name}' was trained on {trained} min; "
                "use a record of that step or train on this one"
            )
        return np.timedelta64(multiples[0], "s")

    def check_grid(self, grid: tuple[int, int], name: str) -> None:
        (y, x), cells, only = grid, self.model.cell_multiple, self.model.grid
        if only and (y, x) != tuple(only):
            raise DataError(f"{name} has a grid of {y} × {x} cells; '{self.name}' is made for {only[0]} × {only[1]} alone")
        if min(y, x) < cells:
            raise DataError(f"{name} has a grid of {y} × {x} cells; '{self.name}' needs at least {cells} each way")


def _untrained(experiment: config.Experiment) -> Model:
    # on "meta" nothing is allocated, so a config with wrong sizes fails because the tensors' shapes do not match
    with torch.device("meta"):
        return make_model(model_config(experiment.model))


def _load_model(model: Model, checkpoint: Checkpoint) -> Model:
    # a checkpoint to resume from holds the newest weights and, if one is kept, their average, which forecasts better
    model.load_state_dict(model.completed(checkpoint.tensors_of("average") or checkpoint.tensors_of("model")), assign=True)
    return model


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
