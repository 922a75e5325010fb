"""The cache: where it is, and that what nothing has used for long is removed from it, and nothing else."""

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from makers import write_record

from nowcast.dataset.packed import pack
from nowcast.errors import OutputError
from nowcast.netcdf.opening import open_records
from nowcast.runtime import cache as cache_module
from nowcast.runtime.cache import UNUSED_DAYS, cache_folder, mark_used, remove_unused

PACKED, GUIDANCE = f"{'0a' * 32}-2", f"{'1b' * 16}-guidance-12"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def kept(name, *, days):
    folder = cache_folder() / name
    folder.mkdir()
    (folder / "frames.npy").write_bytes(bytes(50_000_000))
    os.utime(folder, (time.time() - days * 86_400,) * 2)
    return folder


@pytest.mark.parametrize(("variables", "expected"), [
    ({"NOWCAST_CACHE": "~/rain"}, "home/rain"), ({"NOWCAST_CACHE": "", "XDG_CACHE_HOME": "/there"}, "/there/nowcast"),
    ({"NOWCAST_CACHE": "", "XDG_CACHE_HOME": ""}, "home/.cache/nowcast"),
    ({"NOWCAST_CACHE": "", "XDG_CACHE_HOME": "there"}, "home/.cache/nowcast"),
    ({"NOWCAST_CACHE": "", "XDG_CACHE_HOME": "./there"}, "home/.cache/nowcast"),
    ({"NOWCAST_CACHE": "", "XDG_CACHE_HOME": "~/there"}, "home/there/nowcast"),
])  # fmt: skip
def test_where_it_is(variables, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == tmp_path / expected


@pytest.mark.parametrize("chosen", ["", "~/c", "~nobody-of-this-name/c"])
def test_an_unknown_home_is_told(monkeypatch, chosen):
    """Of a user without a home and without an entry in the list of users, as in containers."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    monkeypatch.setenv("NOWCAST_CACHE", chosen)
    place = chosen or "~/.cache/nowcast"
    says = f"^no cache at {place}: the home folder is unknown\\.\nSet NOWCAST_CACHE to a folder of yours\\.$"
    with pytest.raises(OutputError, match=says):
        cache_folder()


@pytest.mark.parametrize("name", [PACKED, GUIDANCE])
def test_what_nothing_has_used_for_long_is_removed(name, caplog):
    caplog.set_level(logging.INFO)
    old, used = kept(name, days=UNUSED_DAYS + 1), kept(name.replace("a", "c").replace("b", "d"), days=UNUSED_DAYS - 1)
    remove_unused()
    assert (old.exists(), used.exists()) == (False, True)
    assert caplog.messages == [f"removed 0.1 GB of the cache, which nothing had used for {UNUSED_DAYS} days"]


def test_use_keeps_it(caplog):
    folder = kept(PACKED, days=UNUSED_DAYS + 1)
    mark_used(folder)
    remove_unused()
    assert folder.exists()
    assert not caplog.messages


@pytest.mark.parametrize("name", ["my results", "native", "index", f"{'0a' * 31}-2", f".{PACKED}.tmp", f"{PACKED} copy"])
def test_nothing_else_is_removed(name):
    folder = kept(name, days=1000)
    remove_unused()
    assert folder.exists()


def test_a_link_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.utime(elsewhere, (0, 0))
    (cache_folder() / PACKED).symlink_to(elsewhere)
    remove_unused()
    assert elsewhere.exists()


def test_no_cache_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "none"))
    remove_unused()
    mark_used(Path(tmp_path / "none" / PACKED))


def test_packing_removes_what_is_unused_and_notes_what_is_used(tmp_path):
    old = kept(PACKED, days=UNUSED_DAYS + 1)
    (record,) = open_records([write_record(tmp_path / "rain.nc", np.ones((3, 8, 9), np.float32))])
    packed = pack(record).folder
    assert not old.exists()
    os.utime(packed, (0, 0))
    pack(record)
    assert time.time() - packed.stat().st_mtime < 600


def test_an_interrupted_removal_leaves_no_part_under_the_name(tmp_path, monkeypatch):
    (record,) = open_records([write_record(tmp_path / "a.nc", np.ones((3, 8, 8)))])
    folder = pack(record).folder
    os.utime(folder, (0, 0))

    def killed(path, **_):
        (Path(path) / "facts.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_unused()
    assert not folder.exists()
    assert pack(record).frames().shape == (3, 8, 8)


def test_the_rest_of_a_folder_is_replaced(tmp_path):
    (record,) = open_records([write_record(tmp_path / "a.nc", np.ones((3, 8, 8)))])
    folder = pack(record).folder
    (folder / "facts.json").unlink()
    (folder / "rain_blocks.npy").unlink()
    assert pack(record).rain_blocks().shape == (3, 1, 1)
