"""Work in threads: while OpenCV, NumPy, NetCDF or the disk work in one, the others go on."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_THREADS = 4  # in `side_by_side`: each takes the memory of a few fields


@contextlib.contextmanager
def one_thread(get: Callable[[], int], limit: Callable[[int], None]) -> Iterator[None]:
    """Limit a library to one thread within a block, or as a decorator within a function.

    get, limit: the library's functions that return and set its number of threads
    """
    num_threads = get()
    limit(1)
    try:
        yield
    finally:
        limit(num_threads)


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; each is made in another thread while the one before it is used."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of each item, in order, computed in as many threads as OpenCV may use.

    The items themselves are made in this thread, at most one more than are being worked on.
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
