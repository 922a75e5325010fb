"""Outputs are refused before the work that makes them: what exists, what is read, folders that are absent."""

import os
from pathlib import Path

import pytest

from nowcast.errors import OutputError
from nowcast.runtime.outputs import may_write


@pytest.fixture
def existing(tmp_path):
    path = tmp_path / "a.nc"
    path.write_text("mine")
    return path


def test_a_new_file_in_a_folder_may_be_written(tmp_path):
    may_write(tmp_path / "a.nc", overwrite=False)
    assert not any(tmp_path.iterdir()), "it only looks"


def test_an_existing_file_is_replaced_only_when_asked(existing):
    may_write(existing, overwrite=True)
    with pytest.raises(OutputError, match=r"a\.nc exists already\.\nChoose another name, or replace it with --overwrite\.$"):
        may_write(existing, overwrite=False)


def test_of_several_existing_files_the_first_is_named_and_the_others_counted(existing):
    other = existing.with_name("b.nc")
    other.write_text("mine")
    with pytest.raises(OutputError, match=r"a\.nc exists already, and so do 1 others\.\nChoose another folder, or"):
        may_write([existing, other, existing.with_name("c.nc")], overwrite=False, instead="another folder")


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(OutputError, match="cannot be written: it is a folder"):
        may_write(tmp_path, overwrite=True)


def test_an_absent_folder_is_refused_unless_it_will_be_made(tmp_path):
    path = tmp_path / "absent" / "a.nc"
    may_write(path, overwrite=False, makes_folder=True)
    with pytest.raises(OutputError, match=r"a\.nc cannot be written: there is no folder .*absent\.$"):
        may_write(path, overwrite=False)


def test_a_read_only_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    may_write(tmp_path / "a.nc", overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and path == tmp_path))
    with pytest.raises(OutputError, match=rf"^cannot write to {tmp_path}: it is read-only$") as caught:
        may_write(tmp_path / "a.nc", overwrite=True)
    assert caught.value.exit_code == 5
    with pytest.raises(OutputError, match=rf"^cannot write to {tmp_path / 'new'}: {tmp_path} is read-only$"):
        may_write(tmp_path / "new" / "a.nc", overwrite=True, makes_folder=True)


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    for path in (pipe, Path("/dev/null"), Path("/dev/stdout")):
        with pytest.raises(OutputError, match=rf"^{path} cannot be written: it is no regular file"):
            may_write(path, overwrite=True)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_input_is_never_overwritten_by_whatever_name(existing, link):
    link(existing, other := existing.with_name("b.nc"))
    with pytest.raises(OutputError, match=r"b\.nc is an input \(.*a\.nc\), and no input is overwritten"):
        may_write(other, overwrite=True, inputs=[existing])


def test_inputs_are_not_looked_for_where_nothing_would_be_replaced(tmp_path):
    inputs = iter([tmp_path / "in.nc"])
    may_write(tmp_path / "new.nc", overwrite=True, inputs=inputs)
    assert list(inputs) == [tmp_path / "in.nc"], "it was not read"
