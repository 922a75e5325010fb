"""Work in threads: OpenCV, NumPy, NetCDF and the disk let other threads go on meanwhile."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST_THREADS = 4  # side by side: each takes the memory of a few fields


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each made in another thread while the one before is used."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def side_by_side(function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`function` of each item, in order; several at once where OpenCV may use several threads.

    The items themselves are made in this thread, one more than are being worked on.
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
