"""Work in threads: results in order, bounded work ahead, and errors raised where the item is asked for."""

import threading
import time

import cv2
import pytest

from nowcast.runtime.threads import MOST_THREADS, ahead, side_by_side


@pytest.fixture(params=[1, 2, 64])
def num_threads(request):
    before = cv2.getNumThreads()
    cv2.setNumThreads(request.param)
    yield min(request.param, MOST_THREADS)
    cv2.setNumThreads(before)


def test_results_come_in_the_order_of_the_items(num_threads):
    def late(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    assert list(side_by_side(late, range(20))) == [number**2 for number in range(20)]
    assert list(side_by_side(late, [])) == []


def test_as_many_are_worked_on_at_once_as_there_are_threads(num_threads):
    together = threading.Barrier(num_threads)
    assert list(side_by_side(lambda number: together.wait(timeout=30) >= 0 and number, range(1, 4 * num_threads + 1))) == list(
        range(1, 4 * num_threads + 1)
    )


def test_items_are_made_one_more_than_are_worked_on(num_threads):
    made = []

    def items():
        for number in range(50):
            made.append(number)
            yield number

    results = side_by_side(str, items())
    assert next(results) == "0"
    assert len(made) <= num_threads + 1
    results.close()
    assert len(made) <= num_threads + 1


def test_an_error_comes_where_its_item_is_asked_for(num_threads):
    results = side_by_side(lambda number: 1 // (2 - number), range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_next_item_is_made_while_one_is_used_and_no_other():
    made, is_made = [], threading.Event()

    def items():
        for number in range(5):
            made.append((number, threading.current_thread() is threading.main_thread()))
            if number == 1:
                is_made.set()
            yield number

    found = ahead(items())
    assert next(found) == 0
    assert is_made.wait(timeout=30)
    time.sleep(0.02)
    assert made == [(0, False), (1, False)]
    assert list(found) == [1, 2, 3, 4]


def test_an_error_ahead_comes_after_the_items_before_it():
    found = ahead(1 // (1 - number) for number in range(3))
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)
