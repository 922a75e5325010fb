"""In which precision a network computes: decided by what the processor has."""

import logging

import pytest
import torch

from nowcast.runtime import precision
from nowcast.runtime.precision import forecasting_precision, has_bfloat16, pick_precision, processor_flags, warn_if_slow

CPU = torch.device("cpu")
PLAIN = ("fpu", "sse4_2", "avx2", "fma")  # of a processor without hardware support for bfloat16
UNITS = [(*PLAIN, "avx512f", "avx512_bf16"), (*PLAIN, "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"), ("amx_bf16",)]


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [*((flags, torch.bfloat16) for flags in UNITS), (PLAIN, torch.float32), ((*PLAIN, "avx512f"), torch.float32),
     ((*PLAIN, "amx_tile", "amx_int8"), torch.float32), ((), torch.float32)],
)  # fmt: skip
def test_auto_is_decided_by_what_the_processor_has(flags, chosen):
    assert pick_precision("auto", CPU, flags=flags) == chosen


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), False), ((8, 0), True), ((8, 6), True), ((12, 0), True)])
def test_a_gpu_has_units_from_a_capability_on(capability, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(torch.device("cuda", 0)) == chosen


def test_mps_computes_in_float32():
    assert pick_precision("auto", torch.device("mps"), flags=UNITS[0]) == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("flags", [PLAIN, UNITS[0]])
def test_a_precision_that_is_named_is_taken(name, flags):
    assert str(pick_precision(name, CPU, flags=flags)) == f"torch.{name}"


@pytest.mark.parametrize(
    ("decided", "flags", "chosen"),
    [("float32", UNITS[0], torch.float32), ("bfloat16", UNITS[0], torch.bfloat16), ("float32", PLAIN, torch.float32),
     ("auto", UNITS[0], torch.bfloat16), (None, UNITS[0], torch.bfloat16), ("auto", PLAIN, torch.float32),
     ("float64", PLAIN, torch.float32)],
)  # fmt: skip
def test_a_network_forecasts_in_what_its_training_decided(decided, flags, chosen, caplog):
    with caplog.at_level(logging.INFO, "nowcast"):
        assert forecasting_precision(decided, CPU, name="RUN", flags=flags) == chosen
    assert not caplog.records


def test_a_processor_that_cannot_is_told_in_one_line_and_forecasts_in_float32(caplog):
    with caplog.at_level(logging.INFO, "nowcast"):
        assert forecasting_precision("bfloat16", CPU, name="RUN", flags=PLAIN) == torch.float32
    (line,) = caplog.messages
    assert line == "RUN was trained in bfloat16, which this processor does not support in hardware: it forecasts in float32"


def test_a_training_in_bfloat16_without_units_is_warned_of(caplog):
    for chosen, flags in ((torch.float32, PLAIN), (torch.bfloat16, UNITS[0])):
        warn_if_slow(chosen, CPU, flags=flags)
    assert not caplog.records
    warn_if_slow(torch.bfloat16, CPU, flags=PLAIN)
    assert caplog.messages[0].startswith("training.precision = bfloat16, but this processor has no hardware support")


@pytest.mark.parametrize(
    ("text", "flags"),
    [("processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 amx_bf16\nbugs\t: none\n", {"fpu", "avx2", "amx_bf16"}),
     ("processor\t: 0\nFeatures\t: fp asimd bf16\n", set()), ("", set()), (None, set())],
)  # fmt: skip
def test_the_flags_are_those_of_linux(tmp_path, monkeypatch, text, flags):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(precision, "PROCESSOR", tmp_path / "cpuinfo")
    processor_flags.cache_clear()
    assert processor_flags() == flags
    assert has_bfloat16(CPU) == ("amx_bf16" in flags)
    processor_flags.cache_clear()
