"""The index of opened files saves time and nothing else: it holds what opening finds, and stale entries are not used."""

import ast
import os
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from makers import rain, stored, write_record

from nowcast.errors import DataError
from nowcast.netcdf import index, reading
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.index import MANY, FileIndex
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept")]  # all of them together take seconds

LONG_AGO = 1_600_000_000_000_000_000  # ns


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened for what the index holds, in order; not those whose frames are sampled."""
    names, open_briefly = [], OPEN_FILES.briefly

    def noted(path):
        if sys._getframe(1).f_globals["__name__"] != reading.__name__:
            names.append(path.name)
        return open_briefly(path)

    monkeypatch.setattr(OPEN_FILES, "briefly", noted)
    return names


def archive(folder, *, files=MANY, **attributes):
    """Files of one frame each, last changed long ago."""
    folder.mkdir(exist_ok=True)
    for number in range(files):
        aged(one_frame(folder / f"{number:03}.nc", number, **attributes))
    return folder


def one_frame(path, number, **attributes):
    times = [np.datetime64("2020-06-01T00:00:00") + number * np.timedelta64(300, "s")]
    return write_record(path, rain(frames=1, shape=(4, 6), seed=number), times=times, **attributes)


def aged(path):
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def reopen(*arguments, variable=None):
    (record,) = open_records(arguments, variable=variable, index=FileIndex(variable))
    return record


def index_file(kept):
    (path,) = (kept / "index").iterdir()
    return path


def assert_same(a, b):
    assert (a.name, a.quantity, a.variable, a.institution) == (b.name, b.quantity, b.variable, b.institution)
    assert a.paths == b.paths
    assert repr(a.layouts) == repr(b.layouts)  # not by ==, since a fill value may be NaN
    assert a.digest() == b.digest()
    np.testing.assert_array_equal(a.times, b.times)
    assert a.times.dtype == b.times.dtype
    np.testing.assert_array_equal(a.frame_sources, b.frame_sources)
    assert a.grid.key == b.grid.key
    for name, value in vars(a.grid).items():
        assert_same_values(value, getattr(b.grid, name))


def assert_same_values(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_values(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype


def test_unchanged_files_are_not_opened_again(tmp_path, opened):
    folder = archive(tmp_path / "a")
    first = reopen(folder)
    assert len(opened) == MANY
    again = reopen(folder)
    assert len(opened) == MANY
    assert_same(first, again)
    np.testing.assert_array_equal(again.read(range(MANY)), first.read(range(MANY)))


def test_what_is_remembered_is_what_opening_finds(tmp_path, opened):
    for number in range(MANY):  # two grids, attributes of every type, a fill value of NaN, several frames, an accumulation
        shape = (2, 3, 5) if number % 2 else (2, 4, 5)
        path = stored.write(tmp_path / f"{number:02}.nc", np.ones(shape, np.float32), fill=np.float32(np.nan), units="mm",
                            times=stored.START + 600 * number + np.array([0, 300]), grid_mapping="crs",
                            cell_methods="time: sum (interval: 5 minutes)")  # fmt: skip
        with stored.edit(path) as file:
            file.institution = "a centre"
            file.createVariable("crs", "i4").setncatts({
                "grid_mapping_name": "polar_stereographic", "standard_parallel": np.float32(0.1), "number": np.int16(3),
                "two": np.array([1.1, np.pi]), "proj4": "+proj=stere",
            })  # fmt: skip
        aged(path)
    plain = open_records([tmp_path])
    open_records([tmp_path], index=FileIndex(None))
    opened.clear()
    remembered = open_records([tmp_path], index=FileIndex(None))
    assert not opened
    assert len(plain) == len(remembered) == 2
    for a, b in zip(plain, remembered, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("keeps_its_time", [False, True])
def test_a_changed_file_is_opened_again(tmp_path, opened, keeps_its_time):
    folder = archive(tmp_path / "a")
    reopen(folder)
    opened.clear()
    size = (folder / "005.nc").stat().st_size
    with netCDF4.Dataset(folder / "005.nc", "a") as file:
        file["time"][:] = file["time"][:] + 86400
    if keeps_its_time:
        aged(folder / "005.nc")
        assert (folder / "005.nc").stat().st_size == size
    record = reopen(folder)
    assert opened == ["005.nc"]
    assert record.source(len(record) - 1).name == "005.nc"


def test_a_replaced_file_is_opened_again(tmp_path, opened):
    folder = archive(tmp_path / "a")
    reopen(folder)
    opened.clear()
    aged(one_frame(tmp_path / "new.nc", 77)).replace(folder / "005.nc")
    reopen(folder)
    assert opened == ["005.nc"]


def test_new_files_join_the_index_and_those_that_have_gone_leave_it(tmp_path, kept, opened):
    folder = archive(tmp_path / "a")
    reopen(folder)
    opened.clear()
    (folder / "000.nc").unlink()
    aged(one_frame(folder / "new.nc", MANY))
    assert len(reopen(folder)) == MANY
    assert opened == ["new.nc"]
    names, _ = index.read_checked(index_file(kept))
    assert "new.nc" in names
    assert "000.nc" not in names
    opened.clear()
    reopen(*sorted(folder.iterdir())[:3])  # a few of them: the others stay known
    reopen(folder)
    assert not opened


def test_what_has_just_changed_is_not_remembered(tmp_path, opened):
    folder = archive(tmp_path / "a", files=MANY + 1)
    (folder / "003.nc").touch()
    reopen(folder)
    reopen(folder)
    assert opened[MANY + 1 :] == ["003.nc"]


def test_a_file_that_cannot_be_used_is_reported_each_time(tmp_path, caplog):
    folder = archive(tmp_path / "a")
    (folder / "003.nc").write_bytes(b"CDF\x01 and no more")
    aged(folder / "003.nc")
    for _ in range(2):
        caplog.clear()
        reopen(folder)
        assert f"left out 1 of {MANY} files" in caplog.text


def test_each_variable_has_an_index_of_its_own(tmp_path):
    folder = archive(tmp_path / "a")
    for path in folder.iterdir():
        stored.add_variable(path, "other", units="mm h-1", standard_name="rainfall_rate")
        aged(path)
    for _ in range(2):
        assert reopen(folder, variable="rainfall_rate").variable == "rainfall_rate"
        assert reopen(folder, variable="other").variable == "other"
        with pytest.raises(DataError, match="several rain variables"):
            reopen(folder)


def test_a_few_files_need_no_index(tmp_path, kept):
    reopen(archive(tmp_path / "a", files=MANY - 1))
    assert not (kept / "index").exists()


def test_without_an_index_nothing_is_written(tmp_path, kept):
    open_records([archive(tmp_path / "a")])
    assert not kept.exists()


def test_the_index_of_other_code_is_not_believed(tmp_path, opened, monkeypatch):
    folder = archive(tmp_path / "a")
    reopen(folder)
    monkeypatch.setattr(index, "reading_code", lambda: b"the next version")
    reopen(folder)
    assert len(opened) == 2 * MANY


def test_an_index_is_valid_only_for_all_code_that_reads_files():
    package = Path(index.__file__).parents[1]
    code = {path: ast.parse(path.read_text()) for path in (package / "netcdf").rglob("*.py")}
    imports = {
        node.module for tree in code.values() for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    others = {name for name in imports if name.startswith("nowcast.") and name.split(".")[1] not in ("errors", "runtime")}
    assert "nowcast.quantity" in others
    for name in others:
        path = package.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert path.read_bytes() in index.reading_code(), name


def damage(content):
    """Every way that a file breaks: cut off, one bit flipped, emptied, replaced."""
    middle = len(content) // 2
    yield content[:middle]
    yield content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    yield from (b"", b"{}", b"\n", b"\x80\x04N.", b"[" * 100_000)


def test_a_damaged_index_is_written_anew(tmp_path, kept, opened):
    folder = archive(tmp_path / "a")
    first = reopen(folder)
    whole = index_file(kept).read_bytes()
    for broken in damage(whole):
        index_file(kept).write_bytes(broken)
        opened.clear()
        assert_same(reopen(folder), first)
        assert len(opened) == MANY
        assert index_file(kept).read_bytes() == whole


def forged(files, shared):
    """(files, shared) that are no index, from whoever can also make the digest."""
    state, number, times = files["003.nc"]
    nested = "[" * 100_000 + "]" * 100_000
    for text in ("", "[]", "{}", nested, '{"field": 1}', '{"__numpy__": "O", "data": "AAAA", "shape": [1]}', 5, None, []):
        yield files, [text]
    entries = [[state, wrong, times] for wrong in (1, "0", None, 0.5, [0], [0, 1.5], [0, 9], [[0], 1])]
    entries += [[state, number, wrong] for wrong in (["x"], [10**30], [1e300], None, {"a": 1})]
    for entry in [*entries, None, [], 7, "text", [state], {"003": 1}]:
        yield files | {"003.nc": entry}, shared
    yield from (([], shared), (files, {}), (files, 3), (None, None))


def test_a_forged_index_does_no_more_than_have_files_opened(tmp_path, kept, opened):
    folder = archive(tmp_path / "a")
    first = reopen(folder)
    path = index_file(kept)
    for wrong in forged(*index.read_checked(path)):
        index.write_checked(path, *wrong)
        opened.clear()
        assert_same(reopen(folder), first)
        assert "003.nc" in opened


def test_files_are_opened_where_no_index_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "file" / "below"))
    assert len(reopen(archive(tmp_path / "a"))) == MANY


def test_a_file_may_stand_in_the_way_of_the_cache_only_for_the_index(tmp_path, kept):
    folder = archive(tmp_path / "a")
    kept.mkdir()
    (kept / "index").write_text("in the way")
    assert len(reopen(folder)) == MANY


@pytest.fixture
def sampled(monkeypatch):
    """The names of the files whose frames are sampled, in order."""
    names, open_briefly = [], OPEN_FILES.briefly

    def noted(path):
        if sys._getframe(1).f_globals["__name__"] == reading.__name__:
            names.append(path.name)
        return open_briefly(path)

    monkeypatch.setattr(OPEN_FILES, "briefly", noted)
    return names


def with_a_dry_number(folder):
    """Files of one frame each, in which -99 is dry and NaN missing."""
    folder.mkdir()
    for number in range(MANY):
        field = np.where(np.arange(24).reshape(1, 4, 6) % 3 == 0, -99, 2.5).astype("f4")
        field[0, 0, :2] = np.nan
        aged(stored.write(folder / f"{number:03}.nc", field, times=[stored.START + 300 * number]))
    return folder


def test_a_sample_of_unchanged_files_is_read_once(tmp_path, sampled, caplog):
    folder = with_a_dry_number(tmp_path / "a")
    first, said = reopen(folder), caplog.messages
    assert len(sampled) == 4
    again = reopen(folder)
    assert len(sampled) == 4
    assert_same(first, again)
    assert (again.read([0]) == 0).any()
    assert said[0].endswith("rr: -99 is taken as dry, and the other codes as missing")


def test_a_sample_is_read_again_where_one_of_its_files_has_changed(tmp_path, sampled):
    folder = with_a_dry_number(tmp_path / "a")
    reopen(folder)
    with stored.edit(folder / "000.nc") as file:
        file["rr"][:] = 0
    os.utime(folder / "000.nc", ns=(LONG_AGO, LONG_AGO + 10**9))
    again = reopen(folder)
    assert len(sampled) == 8
    assert np.isnan(again.read([1])).any()  # a dry cell is known, so that -99 is missing


def test_amounts_that_fall_are_not_read_again_to_find_out(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    for number, field in enumerate(rain(frames=MANY, shape=(4, 6)) / 12):
        aged(stored.write(folder / f"{number:03}.nc", field[None], times=[stored.START + 300 * number], units="mm"))
    reopen(folder)

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(Record, "read", refuse)
    assert len(reopen(folder)) == MANY
