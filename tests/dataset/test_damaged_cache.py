"""What is damaged in the cache is made anew, once told: cut off, empty, or zeros in place of what a power cut has lost."""

import errno
import json
import logging
import os
import zlib

import numpy as np
import pytest
from makers import rain, write_record
from makers.damage import cut, empty, remove, replace, zeros_from

from nowcast.dataset import packed_tiles
from nowcast.dataset.packed import pack, to_half
from nowcast.errors import OutputError
from nowcast.netcdf.opening import open_records
from nowcast.runtime import cache as cache_module

pytestmark = pytest.mark.usefixtures("cache")
FIELDS = rain(frames=6, shape=(60, 70), missing=0.02)
PACKED = np.stack([to_half(field) for field in FIELDS])


DAMAGE = {
    "zeros": ("frames.npy", zeros_from(128)), "cut": ("frames.npy", cut), "absent": ("frames.npy", remove),
    "blocks": ("rain_blocks.npy", zeros_from(128)), "statistics": ("summary.npy", empty),
    "no facts": ("facts.json", empty), "zero facts": ("facts.json", zeros_from(0)),
    "other facts": ("facts.json", replace(b'"shape": [6, 60, 70]', b'"shape": [6, 70, 60]')),
    "other JSON": ("facts.json", lambda path: path.write_text("[1]")), "older": ("facts.json", lambda path: path.write_text(
        '{"shape": [6, 60, 70], "record": "a", "in_tiles": false, "damaged": []}')),
}  # fmt: skip


@pytest.fixture(autouse=True)
def warnings_of(caplog):
    caplog.set_level(logging.WARNING, "nowcast")


def record_of(folder):
    path = folder / "a.nc"
    if not path.exists():
        write_record(path, FIELDS)
    return open_records([path])[0]


def told(caplog):
    return [record.message for record in caplog.records if "damaged" in record.message]


@pytest.mark.parametrize("kind", DAMAGE)
def test_packed_frames_that_are_damaged_are_packed_anew(tmp_path, caplog, kind):
    folder = pack(record_of(tmp_path)).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    name, damage = DAMAGE[kind]
    damage(folder / name)
    packed = pack(record_of(tmp_path))
    np.testing.assert_array_equal(packed.frames(), PACKED)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert told(caplog) == [f"{folder} is damaged: it is made anew"]
    inode = (folder / "frames.npy").stat().st_ino
    assert pack(record_of(tmp_path)).shape == (6, 60, 70)
    assert (folder / "frames.npy").stat().st_ino == inode, "what is whole is kept"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", ["tiles.bin", "tile_index.npy"])
def test_tiles_that_are_damaged_are_packed_anew(tmp_path, monkeypatch, caplog, name):
    monkeypatch.setattr(packed_tiles, "UNTILED_BYTES", 0)
    folder = pack(record_of(tmp_path)).folder
    zeros_from(128)(folder / name)
    np.testing.assert_array_equal(pack(record_of(tmp_path)).tiles.cut(np.arange(6), 0, 0, 60, 70), PACKED)
    assert len(told(caplog)) == 1


def test_of_a_large_folder_evenly_spaced_blocks_are_compared(tmp_path, monkeypatch, caplog):
    for name, value in (("BLOCK_BYTES", 1000), ("MOST_BYTES", 20_000)):
        monkeypatch.setattr(cache_module, name, value)
    folder = pack(record_of(tmp_path)).folder
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.npy"))
    every = -(-num_bytes // 20_000)
    assert every == 3
    for block, is_compared in ((0, True), (1, False), (2, False), (3, True), (30, True), (31, False), (50, False)):
        caplog.clear()
        content = bytearray((folder / "frames.npy").read_bytes())
        content[1000 * block + 500] ^= 1
        (folder / "frames.npy").write_bytes(content)
        pack(record_of(tmp_path))
        assert len(told(caplog)) == is_compared, block


def test_checksums_are_compared_once_until_a_file_changes(tmp_path, monkeypatch):
    read, checksums = [], cache_module._checksums
    pack(record_of(tmp_path))
    monkeypatch.setattr(cache_module, "_checksums", lambda path, *every: read.append(path.name) or checksums(path, *every))
    for _ in range(3):
        folder = pack(record_of(tmp_path)).folder
    assert sorted(read) == ["frames.npy", "rain_blocks.npy", "summary.npy"]
    os.utime(folder / "summary.npy")
    pack(record_of(tmp_path))
    assert len(read) == 6


def test_files_are_on_the_disk_before_their_folder_has_its_name(tmp_path, monkeypatch):
    done, rename, fsync = [], os.rename, os.fsync

    def synced(handle):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", lambda old, new: done.append("renamed") or rename(old, new))
    folder = pack(record_of(tmp_path)).folder
    assert done[:4] == ["facts.json", "frames.npy", "rain_blocks.npy", "summary.npy"]
    assert done[4].startswith(f".{folder.name[:40]}")
    assert done[5:] == ["renamed", "cache"]


def test_what_is_damaged_and_cannot_be_removed_is_told(tmp_path, monkeypatch):
    empty(pack(record_of(tmp_path)).folder / "facts.json")

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OutputError, match=r"cannot write the cache .*: Permission denied; set NOWCAST_CACHE") as caught:
        pack(record_of(tmp_path))
    assert caught.value.exit_code == 5


def failing(number):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    return fails


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES])
def test_what_cannot_be_read_for_another_reason_is_kept(tmp_path, monkeypatch, caplog, number):
    folder = pack(record_of(tmp_path)).folder
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "open", failing(number), raising=False)
        with pytest.raises(OutputError, match=f"cannot write the cache .*: {os.strerror(number)}; set NOWCAST_CACHE"):
            pack(record_of(tmp_path))
    assert pack(record_of(tmp_path)).folder == folder
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    assert not told(caplog)


def test_what_the_disk_cannot_read_is_packed_anew(tmp_path, monkeypatch, caplog):
    folder = pack(record_of(tmp_path)).folder
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "open", failing(errno.EIO), raising=False)
        assert cache_module.read_manifest(folder) is None
    assert not folder.exists()
    np.testing.assert_array_equal(pack(record_of(tmp_path)).frames(), PACKED)
    assert told(caplog) == [f"{folder} is damaged: it is made anew"]


def test_what_another_process_has_made_anew_is_kept(tmp_path, monkeypatch, caplog):
    folder = pack(record_of(tmp_path)).folder
    zeros_from(128)(folder / "frames.npy")
    remove_damaged, anew = cache_module.remove_damaged, []

    def later(*given):
        monkeypatch.setattr(cache_module, "remove_damaged", remove_damaged)
        anew.extend([pack(record_of(tmp_path)), (folder / "frames.npy").stat().st_ino])
        remove_damaged(*given)

    monkeypatch.setattr(cache_module, "remove_damaged", later)
    packed = pack(record_of(tmp_path))
    np.testing.assert_array_equal(anew[0].frames(), PACKED)
    np.testing.assert_array_equal(packed.frames(), PACKED)
    assert (folder / "frames.npy").stat().st_ino == anew[1], "not made a second time"
    assert told(caplog) == [f"{folder} is damaged: it is made anew"], "once"


def test_of_what_was_removed_nothing_is_removed_again(tmp_path, caplog):
    folder = pack(record_of(tmp_path)).folder
    found = cache_module.identity(folder / "facts.json")
    assert found == ((folder / "facts.json").stat().st_ino, (folder / "facts.json").stat().st_mtime_ns)
    (folder / "facts.json").unlink()
    assert cache_module.identity(folder / "facts.json") is None
    cache_module.remove_damaged(folder, "facts.json", found)
    assert (folder / "frames.npy").exists()
    assert not told(caplog)


@pytest.mark.parametrize(
    ("rank", "local", "compares"), [("0", "0", True), ("1", "1", False), ("2", "0", True), ("3", "1", True)]
)
def test_processes_beside_the_first_trust_what_it_has_compared(tmp_path, monkeypatch, rank, local, compares):
    folder, read = pack(record_of(tmp_path)).folder, []
    monkeypatch.setattr(cache_module, "open", lambda path, how: read.append(path.name) or path.open(how), raising=False)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", local)
    np.testing.assert_array_equal(pack(record_of(tmp_path)).frames(), PACKED)
    assert len(read) == (3 if compares else 0)
    cut(folder / "frames.npy")
    np.testing.assert_array_equal(pack(record_of(tmp_path)).frames(), PACKED)  # each process compares sizes


def test_at_most_a_gibibyte_of_a_folder_is_read_to_compare_it(tmp_path, monkeypatch):
    block, crc32, read = 4 << 20, zlib.crc32, []
    facts, files = {"shape": [1, 2, 3]}, {"frames.npy": [5 << 30, [crc32(bytes(block))] * (5 * 256)]}
    with open(tmp_path / "frames.npy", "wb") as file:
        file.truncate(5 << 30)  # zeros that take no place on the disk
    entry = {"facts": facts, "files": files, "checksum": crc32(json.dumps([facts, files]).encode())}
    (tmp_path / "facts.json").write_text(json.dumps(entry))
    monkeypatch.setattr(zlib, "crc32", lambda data: read.append(len(data)) or crc32(data))
    assert cache_module.read_manifest(tmp_path) == facts
    assert read.count(block) * block == 1 << 30
