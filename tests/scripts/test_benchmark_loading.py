"""The benchmark of the loader: every reader gives the same windows, and the table has a row for each storage."""

from itertools import islice

import loading as benchmark
import numpy as np
import pytest

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]

SHAPE = (36, 40)


def record(path, storage, kind, *, frames=20):
    rain = np.stack(list(benchmark.moving_rain(frames, SHAPE, seed=3)))
    benchmark.write(path, iter(rain), rain.shape, storage, kind)
    return rain


@pytest.mark.parametrize("kind", ["int16", "float32"])
@pytest.mark.parametrize("storage", benchmark.STORAGES, ids=lambda storage: storage.name)
def test_all_readers_give_the_rain_that_was_written(tmp_path, storage, kind):
    rain = record(tmp_path / "a.nc", storage, kind)
    assert np.isnan(rain).any()
    assert (rain > 1).any()
    series = benchmark.packed_series(tmp_path / "a.nc", 20)  # as long as the record: there is one window
    batch = benchmark.Batches([series], batch_size=1, crop=0, seed=0)[0]
    ours = np.concatenate([batch.past[0], batch.future[0]])
    readers = [benchmark.plain_windows]
    if benchmark.has_xbatcher():
        readers.append(benchmark.xbatcher_windows)
    for reader in readers:
        window = next(reader(tmp_path / "a.nc", 20, 0, 0))
        assert window.dtype == ours.dtype == np.float32
        np.testing.assert_allclose(window, rain, atol=0.0051)  # hundredths of mm/h
        np.testing.assert_allclose(ours, window, rtol=1e-3)  # float16


def test_plain_windows_are_as_large_as_asked_for(tmp_path):
    record(tmp_path / "a.nc", benchmark.STORAGES[0], "int16")
    windows = list(islice(benchmark.plain_windows(tmp_path / "a.nc", 8, 16, 0), 5))
    assert {window.shape for window in windows} == {(8, 16, 16)}
    assert len({window.tobytes() for window in windows}) > 1


def test_the_rate_counts_all_but_the_first():
    assert benchmark.rate(iter(range(10**7)), 0.01, each=4) > 1000
    with pytest.raises(StopIteration):
        benchmark.rate(iter([]), 0.01)


def test_one_command_prints_a_table_for_each_crop(capsys, tmp_path):
    benchmark.main(["--frames", "12", "--shape", "24", "40", "--window", "5", "--crops", "0", "16", "--batch", "2",
                    "--seconds", "0.01", "--rounds", "2", "--folder", str(tmp_path)])  # fmt: skip
    first, second = capsys.readouterr().out.strip().split("\n\n")[1::2]
    for table in (first, second):
        header, _, *rows = table.splitlines()
        assert [row.split("|")[1].strip() for row in rows] == [storage.name for storage in benchmark.STORAGES]
        assert all(row.count("|") == header.count("|") for row in rows)
    assert not list(tmp_path.glob("tmp*")), "the records stay behind"


def test_what_is_not_installed_is_said():
    found = dict.fromkeys(set(benchmark.NAMES) - {"xbatcher"}, 2.0)
    rows = benchmark.table({benchmark.STORAGES[0]: [found]})
    assert rows[-1].split("|")[3].strip() == "not installed"


def test_help_is_the_description(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--help"])
    assert "BatchGenerator" in capsys.readouterr().out
