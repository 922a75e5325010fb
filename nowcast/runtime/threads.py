"""Run work in threads: while one waits for OpenCV, NumPy, torch, NetCDF or the disk, the others go on."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_THREADS = 4  # in `side_by_side`: each takes the memory of a few fields


@contextlib.contextmanager
def threads_kept(get: Callable[[], int], limit: Callable[[int], None]) -> Iterator[None]:
    """Restore a library's number of threads after a block. get, limit: see `one_thread`."""
    num_threads = get()
    try:
        yield
    finally:
        limit(num_threads)


@contextlib.contextmanager
def one_thread(get: Callable[[], int], limit: Callable[[int], None]) -> Iterator[None]:
    """Limit a library to one thread within a block, or as a decorator within a function.

    get, limit: the library's functions that return and set its number of threads
    """
    with threads_kept(get, limit):
        limit(1)
        yield


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; each is computed in another thread while the caller uses the one before."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of each item, in order, computed in as many threads as OpenCV may use.

    The items themselves are computed in this thread, at most one ahead of the workers.
    """
    num_threads = min(cv2.getNumThreads(), MOST_THREADS)
    if num_threads < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(num_threads) as threads:
        coming: deque = deque()
        for item in items:
            coming.append(threads.submit(function, item))
            if len(coming) > num_threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def in_torch_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return `function` of each item, each computed by torch on one thread, in as many threads as torch may use.

    The threads of a single torch call may spin while they wait for each other, which takes long on busy cores. If a torch
    dispatch mode is active (`memory.peak_bytes`), everything is computed in this thread, so that the mode sees it.
    """
    import torch
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    number = torch.get_num_threads()
    if number < 2 or _get_current_dispatch_mode() is not None:
        return list(map(function, items))
    return list(_torch_threads(number).map(function, items))


@cache
def _torch_threads(number: int) -> ThreadPoolExecutor:
    """Return a pool of threads in each of which torch uses one thread."""
    import torch

    all_are_limited = threading.Barrier(number)

    def limit() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # without it torch would take the number that is set last, at the first computation
        all_are_limited.wait()

    threads = ThreadPoolExecutor(number, initializer=limit)
    list(threads.map(lambda _: None, range(number)))
    torch.set_num_threads(number)  # in this thread: the number is that of each thread, and of those that begin later
    return threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_torch_threads.cache_clear)  # no thread but one lives on in the child
