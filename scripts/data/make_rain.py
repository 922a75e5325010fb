#!/usr/bin/env python3
"""Make a synthetic radar record of rain with known motion, as CF NetCDF; the defaults make data/synthetic.nc.

A record consists of events with gaps between them. Each event is a Gaussian field with a power-law spectrum. Its octaves
evolve by AR(1) processes in coordinates that move with the rain, where small cells live for minutes and large ones for
hours. The field is moved by a steady flow, and the rain rate grows steeply with the field's excess over a threshold. The
flow, in cells per frame at the distance (y, x) (rows, columns) from the centre of the grid, is

    motion + turn * (-x, y) + stretch * (-y, x)

The three constants differ a little between events and are written to the file as event_motion, event_turn and
event_stretch. Cells beyond the radar's range are missing. The script needs only numpy, scipy and netCDF4.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

EVENT_FRAMES = 30
SPECTRAL_SLOPE = 2.3  # of the radially averaged power spectrum; that of radar rain is 2 to 3
LIFETIMES = {64: 240, 32: 100, 16: 45, 8: 22, 4: 10}  # wavelength in cells -> decorrelation time of the AR(1) process in frames
SCALE = 0.01  # mm/h per count
FILL = np.int16(-1)  # count of a missing cell
HIGHEST = 32767 * SCALE  # mm/h: the largest rain rate that int16 can hold
EARTH_RADIUS = 6371000.0  # m


@dataclass(frozen=True)
class Flow:
    """A steady flow in cells per frame: `motion` at the centre of the grid, and its linear change with the distance from it."""

    motion: np.ndarray  # (y, x)
    turn: float  # rotation per frame; positive is anticlockwise with row 0 at the top
    stretch: float  # deformation per frame; positive stretches along x and shrinks along y

    def gradient(self) -> np.ndarray:
        """Return the derivative (2, 2) of the flow (y, x) by position (y, x), per frame."""
        return np.array([[-self.stretch, -self.turn], [self.turn, self.stretch]])

    def origins(self, points: np.ndarray, num_frames: float) -> np.ndarray:
        """Return where the air at points (2, n), relative to the centre, was `num_frames` ago; exact for a linear flow."""
        augmented = np.zeros((3, 3))
        augmented[:2, :2], augmented[:2, 2] = self.gradient(), self.motion
        back = expm(-num_frames * augmented)
        return back[:2, :2] @ points + back[:2, 2:]


def octaves(size: int) -> list[tuple[np.ndarray, float, float]]:
    """Return the filter, share of the variance and AR(1) coefficient per frame of each octave of wavelengths.

    A filter holds amplitudes on the rfft grid (size, size // 2 + 1).
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    wavelength = 1 / np.maximum(frequency, 1 / (4 * size))
    power = np.where(frequency > 0, wavelength ** (SPECTRAL_SLOPE + 1), 0)  # + 1, since the slope is of the radial average
    power[wavelength > 80] = 0  # no weather system is larger than 80 cells
    bands, largest = [], max(LIFETIMES)
    for centre, lifetime in LIFETIMES.items():
        inside = (wavelength >= centre / 2**0.5) & ((wavelength < centre * 2**0.5) | (centre == largest))
        band = np.where(inside, np.sqrt(power), 0)
        bands.append((band, float((band**2).sum()), float(np.exp(-1 / lifetime))))
    total = sum(variance for _, variance, _ in bands)
    return [(band, variance / total, memory) for band, variance, memory in bands]


def gaussian_fields(frames: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield `frames` periodic fields (size, size) with mean 0 and variance 1, which evolve without moving."""
    bands = octaves(size)

    def noise(band):
        field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * band, s=(size, size))
        return field / field.std()

    states = [noise(band) for band, _, _ in bands]
    for _ in range(frames):
        yield sum(state * share**0.5 for state, (_, share, _) in zip(states, bands, strict=True))
        states = [
            memory * state + (1 - memory**2) ** 0.5 * noise(band)
            for state, (band, _, memory) in zip(states, bands, strict=True)
        ]


def to_rain(field: np.ndarray, threshold: float) -> np.ndarray:
    """Convert a Gaussian field of any shape to rain rate in mm/h: 0 below the threshold, nearly log-normal above."""
    excess = np.maximum(field - threshold, 0)
    return np.where(excess > 0, 0.08 * np.exp(3.45 * excess**0.63), 0)


def event(flow: Flow, frames: int, shape: tuple[int, int], threshold: float, rng: np.random.Generator) -> np.ndarray:
    """Make the fields (frame, y, x) in mm/h of one event: an evolving field, read where each cell's air was at the start."""
    size = 2 ** int(np.ceil(np.log2(max(3 * max(shape), 128))))
    points = np.indices(shape).reshape(2, -1) - (np.array(shape)[:, None] - 1) / 2
    out = np.empty((frames, *shape))
    for frame, field in enumerate(gaussian_fields(frames, size, rng)):
        at = flow.origins(points, frame) + size / 2
        out[frame] = to_rain(map_coordinates(field, at, order=3, mode="grid-wrap"), threshold).reshape(shape)
    return out


def make_events(
    frames: int, shape: tuple[int, int], motion: tuple[float, float], seed: int, event_frames: int = EVENT_FRAMES
) -> Iterator[tuple[Flow, np.ndarray]]:
    """Yield the flow and the fields (frame, y, x) in mm/h of independent events, until there are `frames` fields."""
    for number, first in enumerate(range(0, frames, event_frames)):
        rng = np.random.default_rng([seed, number])
        angle, speed = np.deg2rad(rng.normal(0, 12)), float(np.clip(rng.normal(1, 0.12), 0.7, 1.3))
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.asarray(motion)
        flow = Flow(turned * speed, float(rng.normal(0, 0.003)), float(rng.normal(0, 0.002)))
        threshold = 0.52 + rng.normal(0, 0.2)  # 30 % of a normal distribution lies above 0.52
        yield flow, event(flow, min(event_frames, frames - first), shape, threshold, rng)


def event_times(num_events: int, event_frames: int, step_minutes: int, seed: int) -> list[np.datetime64]:
    """Draw the start of each event: one every one to three days, at any time step of the day."""
    rng = np.random.default_rng([seed, 10**6])
    length = event_frames * step_minutes
    starts, day = [], np.datetime64("2021-05-01T00:00:00")
    for _ in range(num_events):
        minute = int(rng.integers(0, max(1, (1440 - length) // step_minutes))) * step_minutes
        starts.append(day + np.timedelta64(minute * 60, "s"))
        day += np.timedelta64(max(int(rng.integers(1, 4)), -(-length // 1440) + 1) * 86400, "s")
    return starts


def observed_mask(shape: tuple[int, int]) -> np.ndarray:
    """Return the cells (y, x) within the radar's range: a disk around the centre of the grid, without the corners."""
    y, x = np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2
    return np.hypot(y, x) <= 0.58 * max(shape)


ABOUT = {
    "Conventions": "CF-1.11",
    "title": "Synthetic radar rain with known motion",
    "institution": "none: made by a program",
    "source": "random fields moved by a steady flow (scripts/data/make_rain.py); no observation is in it",
    "references": "for the cascade: Seed (2003), doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2",
    "license": "CC0-1.0",
    "comment": "Motion in cells per frame at (row, column) distance (y, x) from the grid's centre: event_motion"
    " + event_turn (-x, y) + event_stretch (-y, x). Rows run from north to south.",
}
TIME = {
    "standard_name": "time",
    "long_name": "time (UTC)",
    "units": "seconds since 1970-01-01 00:00:00",
    "calendar": "standard",
    "units_metadata": "leap_seconds: none",
    "axis": "T",
}
MAPPING = {
    "grid_mapping_name": "azimuthal_equidistant",
    "latitude_of_projection_origin": 50.0,
    "longitude_of_projection_origin": 5.0,
    "false_easting": 0.0,
    "false_northing": 0.0,
    "earth_radius": EARTH_RADIUS,
    "proj4": f"+proj=aeqd +lat_0=50 +lon_0=5 +R={EARTH_RADIUS:.0f} +units=m +no_defs",
}
RAIN = {
    "standard_name": "rainfall_rate",
    "long_name": "surface precipitation rate",
    "units": "mm h-1",
    "grid_mapping": "crs",
    "scale_factor": SCALE,
    "add_offset": 0.0,
}


def write(path: Path, fields: np.ndarray, times: np.ndarray, flows: list[Flow], first: list[int], command: str) -> None:
    """Write fields (time, y, x) mm/h, NaN missing, on cells of 1 km around a radar, as CF-1.11 NetCDF-4."""
    ny, nx = fields.shape[1:]
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts(ABOUT | {"history": command})
        for name, size in {"time": len(fields), "y": ny, "x": nx, "event": len(flows), "axis": 2}.items():
            file.createDimension(name, size)
        _put(file, "time", ("time",), times.astype("datetime64[s]").astype(np.int32), TIME)
        for axis, cells in (("y", (ny - 1) / 2 - np.arange(ny)), ("x", np.arange(nx) - (nx - 1) / 2)):
            about = {"standard_name": f"projection_{axis}_coordinate", "units": "m", "axis": axis.upper()}
            _put(file, axis, (axis,), 1000.0 * cells, about | {"long_name": f"{axis} of cell centre"})
        file.createVariable("crs", "i4").setncatts(MAPPING)
        _put(file, "event_first_frame", ("event",), np.array(first, np.int32), {"long_name": "position in time"})
        for name in ("motion", "turn", "stretch"):  # motion: (row, column)
            values = np.array([getattr(flow, name) for flow in flows])
            about = {"long_name": f"{name} of the flow, see comment", "units": "1"}
            _put(file, f"event_{name}", ("event", "axis")[: values.ndim], values, about)
        packing = {"zlib": True, "complevel": 9, "fletcher32": True, "chunksizes": (1, ny, nx), "fill_value": FILL}
        rain = file.createVariable("rainfall_rate", "i2", ("time", "y", "x"), **packing)
        rain.setncatts(RAIN)
        rain.set_auto_maskandscale(False)
        counts = np.round(np.minimum(np.nan_to_num(fields), HIGHEST) / SCALE)
        rain[:] = np.where(np.isnan(fields), FILL, counts).astype(np.int16)


def _put(file, name: str, dimensions: tuple[str, ...], values: np.ndarray, attributes: dict) -> None:
    variable = file.createVariable(name, values.dtype, dimensions)
    variable.setncatts(attributes)
    variable[:] = values


def make(
    path: Path,
    *,
    frames: int,
    shape: tuple[int, int],
    motion: tuple[float, float],
    seed: int,
    step_minutes: int,
    event_frames: int = EVENT_FRAMES,
) -> None:
    """Make a record and write it; the same arguments give the same values."""
    events = list(make_events(frames, shape, motion, seed, event_frames))
    starts = event_times(len(events), event_frames, step_minutes, seed)
    step = np.timedelta64(step_minutes * 60, "s")
    times = np.concatenate([start + np.arange(len(e)) * step for start, (_, e) in zip(starts, events, strict=True)])
    fields = np.concatenate([fields for _, fields in events])
    fields[:, ~observed_mask(shape)] = np.nan
    first = list(range(0, frames, event_frames))
    command = (
        f"make_rain.py --frames {frames} --event-frames {event_frames} --shape {shape[0]} {shape[1]}"
        f" --motion {motion[0]} {motion[1]} --seed {seed} --step-minutes {step_minutes}"
    )
    part = path.with_name(path.name + ".part")
    write(part, fields, times, [flow for flow, _ in events], first, command)
    part.replace(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="NetCDF file to write, such as data/synthetic.nc")
    parser.add_argument("--frames", type=int, default=900, help="total number of frames")
    parser.add_argument("--event-frames", type=int, default=EVENT_FRAMES, help="frames of one event")
    parser.add_argument(
        "--shape", type=int, nargs=2, default=(64, 64), metavar=("Y", "X"), help="number of cells, of 1 km each"
    )
    parser.add_argument(
        "--motion",
        type=float,
        nargs=2,
        default=(0.8, 1.8),
        metavar=("Y", "X"),
        help="mean motion in cells per frame, towards larger row and column",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--step-minutes", type=int, default=5, help="time step")
    args = parser.parse_args(arguments)
    if min(args.frames, args.event_frames, args.step_minutes, *args.shape) < 1:
        parser.error("frames, shape and step must be at least 1")
    make(
        args.output,
        frames=args.frames,
        shape=tuple(args.shape),
        motion=tuple(args.motion),
        seed=args.seed,
        step_minutes=args.step_minutes,
        event_frames=args.event_frames,
    )


if __name__ == "__main__":
    main()
