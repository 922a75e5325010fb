"""The gradients of convolutions that the engine computes in its own ways are those of torch."""

import threading

import pytest
import torch

from nowcast.models.engine import convolutions
from nowcast.models.engine.convolutions import weight_gradient, weight_gradient_by_products
from nowcast.runtime import threads
from nowcast.runtime.memory import peak_bytes
from nowcast.runtime.threads import in_torch_threads, one_thread


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (4, 2), (9, 7)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_weight_gradient_by_products_is_the_convolutions(kernel, size):
    values, d_out = torch.randn(5, 8, *size), torch.randn(5, 12, *size)
    weight = torch.randn(12, 8, kernel, kernel, requires_grad=True)
    (expected,) = torch.autograd.grad((torch.conv2d(values, weight, padding=kernel // 2) * d_out).sum(), weight)
    found = weight_gradient_by_products(d_out, values, weight, places_at_once=2 * size[0] * size[1])  # the last is smaller
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.fixture
def three_threads():
    with one_thread(torch.get_num_threads, torch.set_num_threads):
        torch.set_num_threads(3)
        yield


@pytest.mark.parametrize("cases", [1, 2, 7])
def test_the_weight_gradient_in_bfloat16_is_that_of_float32(cases, three_threads, monkeypatch):
    generator = torch.Generator().manual_seed(cases)
    values, d_out = (torch.randn(cases, n, 9, 7, generator=generator).bfloat16() for n in (8, 12))
    weight = torch.randn(12, 8, 3, 3, requires_grad=True)
    (expected,) = torch.autograd.grad((torch.conv2d(values.float(), weight, padding=1) * d_out.float()).sum(), weight)
    called = []
    gradient = convolutions._gradient
    monkeypatch.setattr(convolutions, "_gradient", lambda *given: (called.append(threads_of_torch()), gradient(*given))[1])
    found = weight_gradient(d_out, values, weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    assert [number for _, number in called] == [1] * min(cases, 3)  # oneDNN's threads would spin while they wait
    assert len({name for name, _ in called} - {threading.current_thread().name}) >= 1


def threads_of_torch():
    return threading.current_thread().name, torch.get_num_threads()


def test_the_weight_gradient_in_bfloat16_is_the_same_on_one_thread_and_on_two():
    values, d_out = (torch.randn(5, n, 9, 7).bfloat16() for n in (8, 12))
    found = []
    with one_thread(torch.get_num_threads, torch.set_num_threads):
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(weight_gradient(d_out, values, torch.zeros(12, 8, 3, 3)))
    assert torch.equal(*found)


def test_threads_of_their_own_leave_the_number_of_others_as_it_is(three_threads):
    threads._torch_threads.cache_clear()
    found = in_torch_threads(lambda item: (item, torch.get_num_threads()), [5, 6, 7, 8])
    assert found == [(5, 1), (6, 1), (7, 1), (8, 1)]
    assert torch.get_num_threads() == 3
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_what_is_computed_in_parts_is_counted_by_a_count_of_memory(three_threads):
    values, d_out, weight = torch.zeros(6, 64, 4, 4).bfloat16(), torch.zeros(6, 64, 4, 4).bfloat16(), torch.zeros(64, 64, 3, 3)
    counted = peak_bytes(lambda: weight_gradient(d_out, values, weight), torch.device("cpu"))
    assert counted >= 3 * 4 * weight.numel()  # three parts in float32
