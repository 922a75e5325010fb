"""Originals that are removed while they are converted are left out and named; all others become records."""

import errno
import os

import numpy as np
import pytest
from makers.originals import counts, write_odim

from nowcast.convert import archive, inputs
from nowcast.convert.jobs import Request
from nowcast.convert.watch import watch
from nowcast.errors import DataError, explain_failure
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")
pytest.importorskip("h5py")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").mkdir()
    return [write_odim(tmp_path / f"in/{n}.h5", counts(seed=n), minutes=5 * n) for n in range(3)]


def removing(path, function):
    """A function that first removes a file."""

    def removed(*arguments, **options):
        path.unlink(missing_ok=True)
        return function(*arguments, **options)

    return removed


@pytest.mark.parametrize(("module", "name"), [(archive, "_scanned"), (archive, "plan"), (archive, "write"),
                                              (archive, "_fields"), (archive, "_attributes")])  # fmt: skip
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_that_is_removed_is_left_out(files, tmp_path, monkeypatch, caplog, module, name, number):
    monkeypatch.setattr(module, name, removing(files[number], getattr(module, name)))
    outcome = archive.convert([tmp_path / "in"], tmp_path / "out", Request())
    assert list(outcome.broken) == [files[number]]
    told = (
        "is damaged or incomplete ([Errno 2]" if name == "_fields" else "cannot be read (No such file or directory).\nExpected"
    )
    assert outcome.broken[files[number]].startswith(f"{files[number]} {told}")
    assert sum(record.message.startswith(f"left out {files[number]} ") for record in caplog.records) == 1
    (record,) = open_records(outcome.written)
    rest = [n for n in range(3) if n != number]
    np.testing.assert_allclose(record.read([0, 1]), np.stack([counts(seed=n) for n in rest]) * 0.1, rtol=1e-6)
    assert outcome.num_frames == 2


def test_if_all_files_are_removed_there_is_no_record(files, tmp_path, monkeypatch):
    def removed(*arguments, **options):
        for path in files:
            path.unlink()
        return plan(*arguments, **options)

    plan = archive.plan
    monkeypatch.setattr(archive, "plan", removed)
    said = r"0\.h5 cannot be read \(No such file or directory\)\.\nExpected a file .* conversion\. \(and 2 more of 3 files\)"
    with pytest.raises(DataError, match=said):
        archive.convert([tmp_path / "in"], tmp_path / "out", Request())
    assert not (tmp_path / "out").exists()


def test_a_removed_file_does_not_end_the_look_at_records_that_are_there(files, tmp_path, monkeypatch):
    archive.convert([tmp_path / "in"], tmp_path / "out", Request())
    monkeypatch.setattr(archive, "attributes_of", removing(files[1], lambda _: {}))
    outcome = archive.convert([tmp_path / "in"], tmp_path / "out", Request())
    assert (outcome.existing, outcome.changed) == ([*(tmp_path / "out").iterdir()],) * 2
    assert list(outcome.broken) == [files[1]]


class Once:
    """A stop request that lets a folder be listed three times."""

    def __init__(self):
        self.received, self.left = 0, 3

    def wait(self, _):
        self.left -= 1
        self.received = 0 if self.left else 2


@pytest.mark.parametrize("name", ["_scanned", "plan", "write"])
def test_watching_goes_on_when_a_file_is_removed(files, tmp_path, monkeypatch, name):
    monkeypatch.setattr(archive, name, removing(files[1], getattr(archive, name)))
    written = list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Once()))
    assert written == [tmp_path / "out/0.nc", tmp_path / "out/2.nc"]


FAULTS_OF_NO_FILE = {
    errno.ENOSPC: ("x.nc: No space left on device", 5), errno.EMFILE: (
        "x.nc: Too many open files.\nExpected a limit of some hundreds or more: raise it by `ulimit -n`.", 5),
    errno.ENFILE: ("x.nc: Too many open files in system.\nExpected a limit of some hundreds or more: raise it by `ulimit -n`.",
                   5), errno.ENOMEM: (
        "out of memory; try a smaller training.batch_size or data.crop, or a machine with more memory", 7),
}  # fmt: skip


@pytest.mark.parametrize("number", FAULTS_OF_NO_FILE)
def test_a_full_disk_or_memory_is_no_fault_of_a_file(files, tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number), "x.nc")

    monkeypatch.setattr(inputs, "_check_unpacked", full)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        archive.convert([tmp_path / "in"], tmp_path / "out", Request())
    assert explain_failure(caught.value) == FAULTS_OF_NO_FILE[number]


@pytest.mark.parametrize(("number", "expected"), [
    (errno.ENOENT, "a file that is not removed during conversion"),
    (errno.ESTALE, "a file that is not removed during conversion"),
    (errno.EACCES, "permission to read it"), (errno.EPERM, "permission to read it"),
    (errno.EIO, "a readable file"),
])  # fmt: skip
def test_what_would_be_right_of_a_file_that_cannot_be_read(tmp_path, number, expected):
    said = inputs.why_unusable(OSError(number, os.strerror(number)), tmp_path / "a.h5")
    assert said == f"{tmp_path / 'a.h5'} cannot be read ({os.strerror(number)}).\nExpected {expected}."
