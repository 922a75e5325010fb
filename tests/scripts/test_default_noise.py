"""scripts/skill/default_noise.py prints the structure of the noise as the package holds it."""

import default_noise
import numpy as np
import pytest
from makers import rain, write_record

from nowcast.forecasters.members.default_structure import DEFAULT


@pytest.mark.slow
def test_what_is_printed_is_the_structure_that_was_measured(tmp_path, capsys):
    fields = rain(frames=18, shape=(64, 64), motion=(1, 1))
    given = [str(write_record(tmp_path / f"{day}.nc", fields, times=times(day))) for day in (1, 2)]
    default_noise.main([*given, "--cases", "2", "--side", "48"])
    printed = capsys.readouterr().out
    assert printed.startswith("# 2 cases of 2 files\n")
    found = {}
    exec(printed, found)
    assert found["MINUTES"] == [5, 10, 15, 20, 30, 40, 50, 60]
    assert found["KM"][:3] == [2, 4, 8]
    power, memory = np.array(found["POWER"]), np.array(found["MEMORY"])
    assert power.shape == memory.shape == (2, 8, len(found["KM"]))
    assert (power.max(axis=2) == 0).all()
    assert ((memory >= 0) & (memory <= 1)).all()
    assert 0 <= found["SHARED"] <= 1
    assert len(np.unique(memory)) > 10, "it is measured"
    assert (power[..., 0] < power[..., 2]).all(), "long waves are the stronger"


def times(day):
    return np.datetime64(f"2020-06-{day:02d}T12:00") + 5 * np.arange(18) * np.timedelta64(1, "m")


def test_records_that_differ_in_their_steps_are_not_measured_together(tmp_path, capsys):
    given = [str(write_record(tmp_path / f"{n}.nc", rain(frames=18, shape=(24, n)), step_minutes=n)) for n in (30, 15)]
    with pytest.raises(SystemExit) as end:
        default_noise.main(given)
    assert end.value.code == 2
    assert "time steps of different minutes" in capsys.readouterr().err


def test_the_default_noise_is_of_the_shape_that_the_script_prints():
    assert DEFAULT.minutes.tolist() == [5 * (lead + 1) for lead in default_noise.SHOWN_LEADS]
    assert DEFAULT.power.shape == DEFAULT.memory.shape == (2, len(DEFAULT.minutes), len(DEFAULT.km))
