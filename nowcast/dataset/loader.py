"""Batches in order: read ahead by processes of their own, and copied to a GPU ahead of their use."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

import torch
from torch.utils.data import DataLoader

from nowcast.dataset.batches import Batch, Batches
from nowcast.errors import LoadingError

WORKER_TIMEOUT = 45  # s: a batch takes milliseconds, and a job that hangs should end within a minute
BATCHES_AHEAD = 16  # beside a GPU; they lie in shared memory, of which a container has little
CASE_TIMEOUT = 1  # s more for each case whose motion is found: it takes .1 s, on a busy machine several times that


def load(batches: Batches, start: int, stop: int, *, workers: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Batches `start` to `stop` - 1 in order on `device`, read ahead by `workers` processes (0: in this one).

    Asking for a batch raises LoadingError (exit 75) when a worker died, or gave nothing for WORKER_TIMEOUT seconds
    and CASE_TIMEOUT for each case.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=(max(BATCHES_AHEAD // workers, 1) if on_gpu else 1) if workers else None,
        pin_memory=on_gpu,
        timeout=WORKER_TIMEOUT + CASE_TIMEOUT * batches.lagrangian * batches.batch_size if workers else 0,
    )
    loaded = _from_workers(loader) if workers else iter(loader)
    return _copied_ahead(loaded, device) if on_gpu else (batch.to(device) for batch in loaded)


def _copied_ahead(loaded: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Each batch on the GPU, copied on a stream of its own while the one before is computed on."""
    copying, coming = torch.cuda.Stream(device), None
    for batch in itertools.chain(loaded, [None]):
        ready, computing = coming, torch.cuda.current_stream(device)
        computing.wait_stream(copying)  # for what was queued by now: the copy of `ready`
        if batch is not None:
            with torch.cuda.stream(copying):
                coming = batch.to(device)
        if ready is not None:
            for part in (ready.past, ready.future):
                part.record_stream(computing)  # its memory is not used again before this stream is done with it
            yield ready


def _from_workers(loader: DataLoader) -> Iterator[Batch]:
    batches = iter(loader)
    _DEATHS.take_over()
    while True:
        try:
            with _DEATHS.told():
                batch = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:  # the last two: it died while it handed over a batch
            if isinstance(error, RuntimeError) and str(error).startswith("Caught"):  # our own, in a worker
                raise
            raise LoadingError(_explain(error)) from None
        if batch is None:
            return
        yield batch


class _Deaths:
    """torch raises in the main thread the moment a worker dies, be it between two halves of an update or of a save.

    With this, only while a batch is asked for: a death at another time is told the next time.
    """

    def __init__(self):
        self.torchs: Callable | None = None
        self.happened = False

    def take_over(self) -> None:
        """In place of torch's handler, which the first loader of a process installs, once."""
        self.happened = False
        current = signal.getsignal(signal.SIGCHLD)
        if callable(current) and current != self.note and threading.current_thread() is threading.main_thread():
            self.torchs = current
            signal.signal(signal.SIGCHLD, self.note)

    def note(self, *_) -> None:
        self.happened = True

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Inside the block torch raises RuntimeError, also for what happened before."""
        if self.torchs is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGCHLD, self.torchs)
        try:
            if self.happened:
                self.torchs(signal.SIGCHLD, None)
            yield
        finally:
            signal.signal(signal.SIGCHLD, self.note)


_DEATHS = _Deaths()


def _explain(error: Exception) -> str:
    # where the death interrupted the waiting, torch says how the worker died in the error before
    told = str(error.__cause__ if isinstance(error.__cause__, RuntimeError) else error) or type(error).__name__
    reason = told.splitlines()[0].rstrip(". ")
    hints = {"Killed": "too little memory?", "Bus error": "is /dev/shm too small? training.workers=0 needs none"}
    hint = next((hint for word, hint in hints.items() if word in reason), "is the disk of the cache slow or gone?")
    return f"a process that reads training data failed ({reason}; {hint})"
