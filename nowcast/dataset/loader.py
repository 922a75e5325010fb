"""Load batches in order: worker processes read them ahead, and they are copied to a GPU before they are used."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

import torch
from torch.utils.data import DataLoader

from nowcast.dataset.batches import Batch, Batches
from nowcast.dataset.workers import workers_that_fit
from nowcast.errors import LoadingError

WORKER_TIMEOUT = 45  # s to wait for a batch, which takes milliseconds; a job that hangs should end within a minute
CASE_TIMEOUT = 1  # s to wait longer per case whose motion is estimated, which takes 0.1 s, or more on a busy machine
BATCHES_AHEAD = 16  # batches read ahead for a GPU; they lie in shared memory, which is small in a container


def load(batches: Batches, start: int, stop: int, *, workers: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Yield batches `start` to `stop` - 1 on `device`, read ahead by `workers` processes, or by this one if 0.

    Raises LoadingError (exit 75) if a worker has died, or has not read a batch within WORKER_TIMEOUT (in Lagrangian
    coordinates plus CASE_TIMEOUT for each case).
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    workers = workers_that_fit(batches, workers, BATCHES_AHEAD if on_gpu else workers)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=(max(BATCHES_AHEAD // workers, 1) if on_gpu else 1) if workers else None,
        pin_memory=on_gpu,
        timeout=WORKER_TIMEOUT + CASE_TIMEOUT * batches.lagrangian * batches.batch_size if workers else 0,
        worker_init_fn=_end_without_parent,
    )
    loaded = _load_by_workers(loader) if workers else iter(loader)
    return _copy_ahead(loaded, device) if on_gpu else (batch.to(device) for batch in loaded)


def _end_without_parent(_: int) -> None:
    """End a worker whose training was killed while it started: torch would take the process that inherits it for its parent.

    That of a fork server, Python's default from 3.14 on, is the server's child, and the server ends with the training.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and multiprocessing.get_start_method() != "forkserver" and os.getppid() != parent.pid:
        os._exit(0)


def _copy_ahead(loaded: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy each batch to the GPU, on a CUDA stream of its own, while the batch before it is used."""
    copying, next_batch = torch.cuda.Stream(device), None
    for batch in itertools.chain(loaded, [None]):
        ready, computing = next_batch, torch.cuda.current_stream(device)
        computing.wait_stream(copying)  # the only copy that can be queued now is that of `ready`
        if batch is not None:
            with torch.cuda.stream(copying):
                next_batch = batch.to(device)
        if ready is not None:
            for tensor in ready.tensors:
                tensor.record_stream(computing)  # keeps the memory from being reused while this stream still reads it
            yield ready


def _load_by_workers(loader: DataLoader) -> Iterator[Batch]:
    batches = iter(loader)
    _WORKER_DEATHS.install()
    while True:
        try:
            with _WORKER_DEATHS.raised():
                batch = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:  # OSError and EOFError: died while sending a batch
            if isinstance(error, RuntimeError) and str(error).startswith("Caught"):  # an error in our own code in a worker
                raise
            raise LoadingError(_explain(error)) from None
        if batch is None:
            return
        yield batch


class _WorkerDeaths:
    """Signal handler that raises an error for a dead worker only while a batch is being loaded.

    torch's own handler raises in the main thread at the moment when a worker dies, which may be in the middle of an update of
    the weights, or while a checkpoint is written. With this class, such a death raises when the next batch is loaded.
    """

    def __init__(self):
        self.torch_handler: Callable | None = None
        self.pending = False  # whether a worker has died since the last batch was loaded

    def install(self) -> None:
        """Replace torch's handler, which it installs once, for the first DataLoader of a process."""
        self.pending = False
        current = signal.getsignal(signal.SIGCHLD)
        if callable(current) and current != self.note and threading.current_thread() is threading.main_thread():
            self.torch_handler = current
            signal.signal(signal.SIGCHLD, self.note)

    def note(self, *_) -> None:
        self.pending = True

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Let torch raise RuntimeError inside the block, also for a death that is pending."""
        if self.torch_handler is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGCHLD, self.torch_handler)
        try:
            if self.pending:
                self.torch_handler(signal.SIGCHLD, None)
            yield
        finally:
            signal.signal(signal.SIGCHLD, self.note)


_WORKER_DEATHS = _WorkerDeaths()


def _explain(error: Exception) -> str:
    # If the worker died while this process waited for it, the error's cause says how.
    text = str(error.__cause__ if isinstance(error.__cause__, RuntimeError) else error) or type(error).__name__
    reason = text.splitlines()[0].rstrip(". ")
    hints = {"Killed": "too little memory?", "Bus error": "is /dev/shm too small? training.workers=0 needs none"}
    hint = next((hint for word, hint in hints.items() if word in reason), "is the disk of the cache slow or gone?")
    return f"a process that reads training data failed ({reason}; {hint})"
