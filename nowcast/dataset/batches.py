"""Draw batches of windows: random crops, weighted by their rain, flipped and transposed at random.

Batch k depends on the seed and on k alone: it is the same for any number of worker processes, and after a resume. Fields are
in mm/h with NaN for missing. The cells of a crop beyond the edge of the grid are missing. In Lagrangian coordinates
the cells of a crop follow the motion of the rain that is in it at the reference time.
"""

import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from nowcast.dataset.draws import Box, Case, Series, Weights, uniform_corner
from nowcast.dataset.kept_cases import KeptCases
from nowcast.models.model import Block
from nowcast.motion import MARGIN, Cells, future_places, motion, past_to_lagrangian, read_nearest
from nowcast.runtime.threads import one_thread

# seeds, in place of a batch number, for the order of windows in an epoch and for kept cases; larger than any batch number
_EPOCHS, _KEPT = 1 << 40, 1 << 41
_QUARTER_TURNS = ((1, 1, False), (1, -1, True), (-1, -1, False), (-1, 1, True))  # orientations after 0 to 3 quarter turns


@dataclass(frozen=True)
class Batch:
    """Past and future frames of several cases.

    past: (case, input_frames, y, x) float32 mm/h, NaN missing
    future: (case, lead_frames, y, x) float32 mm/h, NaN missing
    cases: (series, window, top row, left column) of each case
    guidance: (case, lead_frames, rate, y, x) int8, for a model that takes it (models/guided/guidance.py), else None
    """

    past: Tensor
    future: Tensor
    cases: tuple[Case, ...]
    guidance: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return past, future and, if there is any, guidance: (case, time, y, x) and (case, lead, rate, y, x)."""
        return tuple(tensor for tensor in (self.past, self.future, self.guidance) if tensor is not None)

    def pin_memory(self) -> "Batch":
        """Copy the batch to pinned memory, from which a GPU can copy it in the background. Called by the DataLoader."""
        return self._with([tensor.pin_memory() for tensor in self.tensors])

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device, without waiting for the copy from pinned memory to a GPU."""
        return self._with([tensor.to(device, non_blocking=True) for tensor in self.tensors])

    def _with(self, tensors: Sequence[Tensor]) -> "Batch":
        return Batch(*tensors[:2], self.cases, *tensors[2:])


class Batches(Dataset):
    """All batches of a training or a validation: `batches[k]` reads batch k.

    crop: side of the crops in cells; 0 for whole frames, which must then all have the same shape.
    sampler: "rain" draws windows and crops in proportion to the rain in their future frames, "past" in their past ones;
    "uniform" draws all with equal probability; "each" takes every window once per epoch, in a new random order.
    augmentation: "flips" along y and x at random, "rotations" by quarter turns of squares; with both, all eight orientations.
    coordinates: "grid" or "lagrangian".
    share: (rank r, number n of processes); the process reads cases r, r + n, r + 2 n, … of each batch.
    kept: cases with guidance, used instead of new draws, each once per epoch in a new random order; if their side is larger
    than `crop`, a crop is drawn from them each time.
    """

    kept: KeptCases | None = None

    def __init__(
        self,
        series: Sequence[Series],
        *,
        batch_size: int,
        crop: int,
        seed: int,
        sampler: str = "uniform",
        augmentation: Sequence[str] = (),
        coordinates: str = "grid",
        share: tuple[int, int] = (0, 1),
    ):
        self.share, self.lagrangian = share, coordinates == "lagrangian"
        if self.lagrangian:
            cv2.setNumThreads(1)  # before workers are forked: OpenCV's threads would not exist in them
        self.series = [one for one in series if len(one.windows)]
        assert self.series, "no windows to draw from"
        self.batch_size, self.crop, self.seed = batch_size, crop, seed
        self.sampler, self.augmentation = sampler, frozenset(augmentation)
        self._frames: dict[int, Tensor] = {}
        self._epoch_order = ((-1, 0), np.zeros(0, int))

    def __getstate__(self) -> dict:
        # Each worker opens the memory maps, and computes the weights, for itself.
        return {key: value for key, value in self.__dict__.items() if key != "weights"} | {"_frames": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.lagrangian:  # in a worker that is spawned
            cv2.setNumThreads(1)

    def with_crop(self, crop: int) -> "Batches":
        """Return batches of the same windows with crops of another side."""
        other = copy(self)
        other.__dict__.pop("weights", None)  # they depend on the crop
        other.crop = crop
        return other

    @cached_property
    def num_windows(self) -> int:
        return sum(len(one.windows) for one in self.series)

    @cached_property
    def weights(self) -> "Weights":
        return Weights(self.series, self.crop, by_past=self.sampler == "past")

    # reading a batch takes many tiny operations, ten times slower if each waits for a second thread on a busy machine
    @one_thread(torch.get_num_threads, torch.set_num_threads)
    def __getitem__(self, k: int) -> Batch:
        rng = np.random.default_rng([self.seed, k])
        cases, pasts, futures, guidances = [], [], [], []
        for number in range(self.batch_size):
            case, guidance = self._next(rng, k * self.batch_size + number)
            orientation = self._orientation(case, rng)
            if number % self.share[1] != self.share[0]:
                continue
            num_past = self.series[case[0]].windows.input_frames
            frames = self.read(case)
            frames = _orient(frames, *orientation)
            cases.append(case)
            pasts.append(frames[:num_past])
            futures.append(frames[num_past:])
            if guidance is not None:
                guidances.append(_orient(guidance, *orientation))
        guidance = torch.stack(guidances) if guidances else None
        return Batch(_stack_float32(pasts), _stack_float32(futures), tuple(cases), guidance)

    def draw_cases(self, number: int) -> list[Case]:
        """Draw the cases 0 to `number` - 1 to keep; they depend on the seed only."""
        return [self._draw(np.random.default_rng([self.seed, _KEPT, n]), n) for n in range(number)]

    def read(self, case: Case) -> Tensor:
        """Read past and future of a case, (time, y, x) float16 mm/h, if possible as a view of the packed frames."""
        return self._read_lagrangian(*case, self.series[case[0]].windows.input_frames) if self.lagrangian else self._read(*case)

    def _next(self, rng: np.random.Generator, number: int) -> tuple[Case, Tensor | None]:
        """Return case `number` since the start of the training, and its guidance if cases are kept."""
        if self.kept is None:
            return self._draw(rng, number), None
        epoch, place = divmod(number, len(self.kept.cases))
        chosen = int(self._order_of_epoch(epoch, len(self.kept.cases))[place])
        series, window, *corner = self._crop_of_kept(self.kept.cases[chosen], rng)
        return (series, window, *corner), from_numpy(self.kept.guidance(chosen, corner, self.crop))

    def _crop_of_kept(self, case: Case, rng: np.random.Generator) -> Case:
        """Draw a crop in a kept case: the kept case itself where it is no larger."""
        series, window, top, left = case
        if self.kept.side <= self.crop:
            return case
        shape = self.series[series].frames.shape[1:]
        bottom, right = (min(start + self.kept.side, size) for start, size in zip((top, left), shape, strict=True))
        if self.sampler in ("rain", "past"):
            return series, window, *self.weights.corner(series, window, rng, within=(top, left, bottom, right))
        rows, columns = uniform_corner((bottom - top, right - left), self.crop, rng)
        return series, window, top + rows, left + columns

    def describe_case(self, case: tuple[int, int, int, int]) -> str:
        """Describe a case for a message, for example `2015_event at frame 17, rows from 32, columns from 64`."""
        index, window, top, left = case
        windows = self.series[index].windows
        frame = windows.reference_positions[window]
        return f"{self.series[index].name} at frame {frame}, rows from {top}, columns from {left}"

    def day_of(self, series: int, window: int) -> int:
        """Return the day of a window's reference frame, in days since 1970-01-01 UTC."""
        one = self.series[series]
        return int(one.times[one.windows.reference_positions[window]].astype("datetime64[D]").astype(int))

    def blocks(self, batch: Batch) -> list[Block]:
        """Return the block of each case: its series, and the day of its reference frame."""
        return [(series, self.day_of(series, window)) for series, window, *_ in batch.cases]

    def _draw(self, rng: np.random.Generator, number: int) -> tuple[int, int, int, int]:
        """Draw the series, window and crop of a case. `number`: of the case since the start of the training."""
        if self.sampler in ("rain", "past"):
            return self.weights.draw(rng)
        if self.sampler == "each":
            epoch, place = divmod(number, self.num_windows)
            index = int(self._order_of_epoch(epoch, self.num_windows)[place])
        else:
            index = int(rng.integers(self.num_windows))
        series = int(np.searchsorted(self._ends, index, side="right"))
        window = index - int(self._ends[series]) + len(self.series[series].windows)
        return series, window, *uniform_corner(self.series[series].frames.shape[1:], self.crop, rng)

    @cached_property
    def _ends(self) -> np.ndarray:
        """Number of windows up to the end of each series."""
        return np.cumsum([len(one.windows) for one in self.series])

    def _order_of_epoch(self, epoch: int, number: int) -> np.ndarray:
        if self._epoch_order[0] != (epoch, number):
            order = np.random.default_rng([self.seed, _EPOCHS, epoch]).permutation(number)
            self._epoch_order = ((epoch, number), order)
        return self._epoch_order[1]

    def _read(self, index: int, window: int, top: int, left: int) -> Tensor:
        """Read the crop of a window of the series `index`: (time, y, x) float16, if possible a view of the packed frames."""
        positions = self.series[index].windows.positions[window]
        return self._pad_to_crop(self._read_box(index, positions, *self._box(index, top, left)))

    def _read_lagrangian(self, index: int, window: int, top: int, left: int, num_past: int) -> Tensor:
        """Read like `_read`, in Lagrangian coordinates. The motion is found in the crop and MARGIN cells around it."""
        positions = self.series[index].windows.positions[window]
        past, crop, box = self.past_around((index, window, top, left), MARGIN)
        flow = motion(past)
        frames = [*past_to_lagrangian(past, flow, crop)]
        future = positions[num_past:]
        for position, (columns, rows) in zip(future, future_places(flow, len(future), crop), strict=True):
            frame = self._read_places(index, position, columns + box[1], rows + box[0])
            # a cell that is missing in the newest past frame gets no forecast, so it is left out of training too
            frames.append(np.where(np.isnan(frames[num_past - 1]), np.nan, frame))
        return self._pad_to_crop(from_numpy(np.stack(frames)).half())

    def past_around(self, case: Case, margin: int) -> tuple[np.ndarray, Cells, Box]:
        """Read the past frames of a case with `margin` cells around its crop, as far as the grid reaches.

        returns: (time, y, x) mm/h float32; the crop in it; and its top, left, bottom and right on the grid
        """
        index, window, top, left = case
        windows, box = self.series[index].windows, self._box(index, top, left, margin=margin)
        past = self._read_box(index, windows.positions[window][: windows.input_frames], *box).float().numpy()
        crop = tuple(slice(start - first, start - first + self.crop) if self.crop else slice(None)
                     for start, first in zip((top, left), box[:2], strict=True))  # fmt: skip
        return past, crop, box

    def _read_places(self, index: int, position: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Read one frame at the given places of its grid (y, x), NaN outside of it."""
        shape = self.series[index].frames.shape[1:]
        first = [min(max(int(places.min()), 0), size) for places, size in zip((rows, columns), shape, strict=True)]
        last = [min(max(int(places.max()) + 2, 0), size) for places, size in zip((rows, columns), shape, strict=True)]
        if first[0] >= last[0] or first[1] >= last[1]:
            return np.full(rows.shape, np.nan, np.float32)
        frame = self._read_box(index, np.array([position]), *first, *last)[0].float().numpy()
        return read_nearest(frame, (columns - first[1], rows - first[0]))

    def _pad_to_crop(self, frames: Tensor) -> Tensor:
        """Pad frames (time, y, x) at the bottom and right to the size of a crop, with NaN."""
        if not self.crop or frames.shape[1:] == (self.crop, self.crop):
            return frames
        out = torch.full((len(frames), self.crop, self.crop), torch.nan, dtype=frames.dtype)
        out[:, : frames.shape[1], : frames.shape[2]] = frames
        return out

    def _box(self, index: int, top: int, left: int, *, margin: int = 0) -> Box:
        """Return the top, left, bottom and right of a crop with a margin around it, cut off at the edges of the grid."""
        shape = self.series[index].frames.shape[1:]
        if not self.crop:
            return 0, 0, *shape
        ends = (min(start + self.crop + margin, size) for start, size in zip((top, left), shape, strict=True))
        return max(top - margin, 0), max(left - margin, 0), *ends

    def _read_box(self, index: int, positions: np.ndarray, top: int, left: int, bottom: int, right: int) -> Tensor:
        """Read a box of the frames at `positions`: (time, y, x) float16."""
        packed = self.series[index].frames
        if packed.in_tiles:
            return from_numpy(packed.tiles.cut(positions, top, left, bottom, right))
        if index not in self._frames:
            self._frames[index] = _as_tensor(packed.frames())
        frames = self._frames[index][:, top:bottom, left:right]
        first, stop = int(positions[0]), int(positions[-1]) + 1
        return frames[first:stop] if stop - first == len(positions) else frames[from_numpy(positions)]

    def _orientation(self, case: tuple[int, int, int, int], rng: np.random.Generator) -> tuple[int, int, bool]:
        """Draw the directions along y and x (-1: flipped), and whether y and x are exchanged."""
        height, width = self.series[case[0]].frames.shape[1:]
        square = bool(self.crop) or height == width
        if self.augmentation == {"rotations"}:  # an exchange alone would be a mirror image
            return _QUARTER_TURNS[rng.integers(4) if square else 0]
        y, x = (rng.choice((1, -1)), rng.choice((1, -1))) if "flips" in self.augmentation else (1, 1)
        return y, x, "rotations" in self.augmentation and square and rng.random() < 0.5


def _orient(frames: Tensor, y: int, x: int, exchanged: bool) -> Tensor:
    """Flip and transpose frames (…, y, x) of float16 or int8."""
    # torch flips integers several times faster than float16
    bits = frames.view(torch.int16) if frames.dtype == torch.float16 else frames
    dims = [dim for dim, direction in ((-2, y), (-1, x)) if direction < 0]
    bits = bits.flip(dims) if dims else bits
    return (bits.transpose(-2, -1).contiguous() if exchanged else bits).view(frames.dtype)


def _as_tensor(frames: np.ndarray) -> Tensor:
    """Return a tensor on a read-only memory map; nothing may write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return from_numpy(frames)


def _stack_float32(cases: Sequence[Tensor]) -> Tensor:
    """Stack float16 tensors into one of float32.

    torch converts, because NumPy takes 20 times as long. NumPy allocates, because it uses huge pages: allocating a large batch
    in torch takes longer than filling it.
    """
    out = from_numpy(np.empty((len(cases), *cases[0].shape), np.float32))
    for target, case in zip(out, cases, strict=True):
        target.copy_(case)
    return out
