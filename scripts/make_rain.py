#!/usr/bin/env python3
"""Make a synthetic radar rain record with known motion, as CF NetCDF; data/sample.nc is one with the defaults.

Each event is a Gaussian field with a power-law spectrum, split into octaves that each evolve by an AR(1) process in
the frame that moves with the rain (small cells live minutes, large ones hours), carried by a steady flow and turned
into rain by a steep power of its excess over a threshold. The flow at (y, x), in cells per frame, is

    motion + turn · (−(x − x0), y − y0) + stretch · (−(y − y0), x − x0)

around the grid's centre, where `motion`, `turn` and `stretch` differ a little between events and are written to the
file (`event_motion` and its neighbours). Cells outside the radar's disk are not observed. Stand-alone: numpy, scipy, netCDF4.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

EVENT_FRAMES = 30
WET_FRACTION = 0.3  # of the periodic world, on average over an event
SPECTRAL_SLOPE = 2.3  # of the radially averaged power spectrum; radar rain has 2 to 3
LIFETIMES = {64: 240, 32: 100, 16: 45, 8: 22, 4: 10}  # frames, by wavelength in cells, of the AR(1) memory
SCALE = 0.01  # mm/h per count
FILL = np.uint16(65535)
EARTH_RADIUS = 6371000.0


@dataclass(frozen=True)
class Flow:
    """A steady flow in cells per frame: `motion` (y, x) at the centre, and its linear change with the distance."""

    motion: np.ndarray  # (2,)
    turn: float  # per frame, anticlockwise with row 0 at the top when positive
    stretch: float  # per frame, along x against y

    def gradient(self) -> np.ndarray:
        return np.array([[-self.stretch, -self.turn], [self.turn, self.stretch]])

    def origins(self, points: np.ndarray, num_frames: float) -> np.ndarray:
        """Where the air at points (2, n), relative to the centre, was num_frames ago: exact for a linear flow."""
        augmented = np.zeros((3, 3))
        augmented[:2, :2], augmented[:2, 2] = self.gradient(), self.motion
        back = expm(-num_frames * augmented)
        return back[:2, :2] @ points + back[:2, 2:]


def octaves(size: int) -> list[tuple[np.ndarray, float, float]]:
    """(amplitude filter on the rfft grid, share of variance, AR(1) memory per frame) of each octave of wavelengths."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    wavelength = 1 / np.maximum(frequency, 1 / (4 * size))
    power = np.where(frequency > 0, wavelength ** (SPECTRAL_SLOPE + 1), 0)  # radial average: one power of k less
    power[wavelength > 80] = 0  # no weather system larger than that
    bands, largest = [], max(LIFETIMES)
    for centre, lifetime in LIFETIMES.items():
        inside = (wavelength >= centre / 2**0.5) & ((wavelength < centre * 2**0.5) | (centre == largest))
        band = np.where(inside, np.sqrt(power), 0)
        bands.append((band, float((band**2).sum()), float(np.exp(-1 / lifetime))))
    total = sum(variance for _, variance, _ in bands)
    return [(band, variance / total, memory) for band, variance, memory in bands]


def gaussian_fields(frames: int, size: int, rng: np.random.Generator):
    """Yield `frames` periodic (size, size) fields of zero mean and unit variance, evolving in place."""
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
    """Gaussian field -> mm/h: dry below the threshold, then steep at the edge and log-normal-like above."""
    excess = np.maximum(field - threshold, 0)
    return np.where(excess > 0, 0.08 * np.exp(3.45 * excess**0.63), 0)


def event(flow: Flow, frames: int, shape: tuple[int, int], threshold: float, rng: np.random.Generator) -> np.ndarray:
    """(frame, y, x) mm/h of one event: an evolving field seen at where each cell's air was when the event began."""
    size = 2 ** int(np.ceil(np.log2(max(3 * max(shape), 128))))
    points = np.indices(shape).reshape(2, -1) - (np.array(shape)[:, None] - 1) / 2
    out = np.empty((frames, *shape))
    for frame, field in enumerate(gaussian_fields(frames, size, rng)):
        at = flow.origins(points, frame) + size / 2
        out[frame] = to_rain(map_coordinates(field, at, order=3, mode="grid-wrap"), threshold).reshape(shape)
    return out


def make_events(frames: int, shape, motion, seed: int, event_frames: int = EVENT_FRAMES):
    """Yield (flow, fields (frame, y, x) mm/h) of each event until `frames` are made."""
    for number, first in enumerate(range(0, frames, event_frames)):
        rng = np.random.default_rng([seed, number])
        angle, speed = np.deg2rad(rng.normal(0, 12)), float(np.clip(rng.normal(1, 0.12), 0.7, 1.3))
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.asarray(motion)
        flow = Flow(turned * speed, float(rng.normal(0, 0.003)), float(rng.normal(0, 0.002)))
        threshold = 0.52 + rng.normal(0, 0.2)  # 0.52: 30 % of a normal distribution lies above
        yield flow, event(flow, min(event_frames, frames - first), shape, threshold, rng)


def event_times(num_events: int, event_frames: int, step_minutes: int, seed: int) -> list[np.datetime64]:
    """When each event begins: one every one to three days, at any whole time step of the day."""
    rng = np.random.default_rng([seed, 10**6])
    length = event_frames * step_minutes
    starts, day = [], np.datetime64("2021-05-01T00:00:00")
    for _ in range(num_events):
        minute = int(rng.integers(0, max(1, (1440 - length) // step_minutes))) * step_minutes
        starts.append(day + np.timedelta64(minute * 60, "s"))
        day += np.timedelta64(max(int(rng.integers(1, 4)), -(-length // 1440) + 1) * 86400, "s")
    return starts


def observed_mask(shape: tuple[int, int]) -> np.ndarray:
    """True within the radar's range: a disk at the grid's centre that leaves out the corners."""
    y, x = np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2
    return np.hypot(y, x) <= 0.58 * max(shape)


def write(path: Path, flows: list[Flow], fields: np.ndarray, times: np.ndarray, first: list[int], command: str) -> None:
    """Write (time, y, x) mm/h on 1 km cells around a radar, NaN = not observed, as CF-1.11 NetCDF-4."""
    ny, nx = fields.shape[1:]
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts(
            {
                "Conventions": "CF-1.11",
                "title": "Synthetic radar rain with known motion",
                "institution": "none: made by a program",
                "source": "random fields moved by a steady flow (scripts/make_rain.py); no observation is in it",
                "history": command,
                "references": "Seed (2003), doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2, for the cascade",
                "license": "CC0-1.0",
                "comment": "Motion in cells per frame at (row, column) distance (y, x) from the grid's centre: event_motion"
                " + turn (-x, y) + stretch (-y, x). Rows run from north to south.",
            }
        )
        for name, size in {"time": len(fields), "y": ny, "x": nx, "event": len(flows), "axis": 2}.items():
            file.createDimension(name, size)
        seconds = times.astype("datetime64[s]").astype(np.int64)
        _put(file, "time", "i4", ("time",), seconds, standard_name="time", axis="T", calendar="standard",
             units="seconds since 1970-01-01 00:00:00", long_name="time (UTC), end of the interval")
        for name, values, axis in (("y", (ny - 1) / 2 - np.arange(ny), "Y"), ("x", np.arange(nx) - (nx - 1) / 2, "X")):
            _put(file, name, "f8", (name,), 1000 * values, standard_name=f"projection_{name}_coordinate",
                 long_name=f"{name} of cell centre", units="m", axis=axis)
        _put_mapping(file)
        _put_flows(file, flows, first)
        rain = file.createVariable("rainfall_rate", "u2", ("time", "y", "x"), fill_value=FILL, zlib=True,
                                   complevel=9, shuffle=True, fletcher32=True, chunksizes=(1, ny, nx))
        rain.setncatts({"standard_name": "rainfall_rate", "long_name": "surface precipitation rate", "units": "mm h-1",
                        "grid_mapping": "crs", "scale_factor": SCALE, "add_offset": 0.0})
        rain.set_auto_maskandscale(False)
        rain[:] = np.where(np.isnan(fields), FILL, np.round(np.nan_to_num(fields) / SCALE)).astype(np.uint16)


def _put(file, name: str, kind: str, dimensions: tuple[str, ...], values, **attributes) -> None:
    variable = file.createVariable(name, kind, dimensions)
    variable.setncatts(attributes)
    variable[:] = values


def _put_mapping(file) -> None:
    file.createVariable("crs", "i4").setncatts(
        {
            "grid_mapping_name": "azimuthal_equidistant",
            "latitude_of_projection_origin": 50.0,
            "longitude_of_projection_origin": 5.0,
            "false_easting": 0.0,
            "false_northing": 0.0,
            "earth_radius": EARTH_RADIUS,
            "proj4": f"+proj=aeqd +lat_0=50 +lon_0=5 +R={EARTH_RADIUS:.0f} +units=m +no_defs",
        }
    )


def _put_flows(file, flows: list[Flow], first: list[int]) -> None:
    _put(file, "event_first_frame", "i4", ("event",), first, long_name="position in time of the event's first frame")
    _put(file, "event_motion", "f8", ("event", "axis"), np.array([flow.motion for flow in flows]),
         long_name="motion at the grid's centre in cells per frame, (row, column)", units="1")
    _put(file, "event_turn", "f8", ("event",), [flow.turn for flow in flows], long_name="turn per frame", units="1")
    _put(file, "event_stretch", "f8", ("event",), [flow.stretch for flow in flows], long_name="stretch per frame",
         units="1")


def make(path: Path, *, frames: int, shape: tuple[int, int], motion: tuple[float, float], seed: int, step_minutes: int,
         event_frames: int = EVENT_FRAMES) -> None:
    """Make the record and write it; the same arguments give the same values."""
    events = list(make_events(frames, shape, motion, seed, event_frames))
    starts = event_times(len(events), event_frames, step_minutes, seed)
    step = np.timedelta64(step_minutes * 60, "s")
    times = np.concatenate([start + np.arange(len(e)) * step for start, (_, e) in zip(starts, events, strict=True)])
    fields = np.concatenate([fields for _, fields in events])
    fields[:, ~observed_mask(shape)] = np.nan
    first = list(range(0, frames, event_frames))
    command = (f"make_rain.py --frames {frames} --event-frames {event_frames} --shape {shape[0]} {shape[1]}"
               f" --motion {motion[0]} {motion[1]} --seed {seed} --step-minutes {step_minutes}")
    write(path, [flow for flow, _ in events], fields, times, first, command)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the NetCDF file to write, e.g. data/sample.nc")
    parser.add_argument("--frames", type=int, default=900, help="frames in all")
    parser.add_argument("--event-frames", type=int, default=EVENT_FRAMES, help="frames of an event, without a gap")
    parser.add_argument("--shape", type=int, nargs=2, default=(64, 64), metavar=("Y", "X"), help="cells of 1 km")
    parser.add_argument("--motion", type=float, nargs=2, default=(0.8, 1.8), metavar=("Y", "X"),
                        help="mean motion in cells per frame, towards larger row and column")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--step-minutes", type=int, default=5, help="time between frames")
    given = parser.parse_args(arguments)
    if min(given.frames, given.event_frames, given.step_minutes, *given.shape) < 1:
        parser.error("frames, shape and step must be at least 1")
    make(given.output, frames=given.frames, shape=tuple(given.shape), motion=tuple(given.motion), seed=given.seed,
         step_minutes=given.step_minutes, event_frames=given.event_frames)


if __name__ == "__main__":
    main()
