"""Kept cases: the same whatever computed them, computed anew where anything differs, and turned as their frames are."""

import errno
import itertools
import json
import os
import shutil
import signal

import cv2
import numpy as np
import pytest
import torch
from makers import rain, write_record
from makers.damage import cut, empty, remove, zeros_from

from nowcast.dataset import kept_cases
from nowcast.dataset.batches import Batches, Series
from nowcast.dataset.kept_cases import keep_cases
from nowcast.dataset.packed import pack
from nowcast.dataset.windows import find_windows
from nowcast.errors import LoadingError, OutputError
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")

NUMBER, CROP, MARGIN, MISSING = 11, 16, 6, -128


def guide(past, num_leads, cells):
    """In place of guidance (lead, rate, y, x): the newest frame and the number of cells that it is computed from."""
    newest = np.nan_to_num(past[-1][cells], nan=-1.0).clip(max=120).astype(np.int8)
    return np.stack([[newest, np.full_like(newest, (lead + past[0].size) % 100)] for lead in range(num_leads)])


def fails(*_):
    raise AssertionError("nothing is left to compute")


def batches_of(folder, *, crop=CROP, seed=0, name="a", shape=(40, 44), **options):
    path = folder / f"{name}.nc"
    if not path.exists():
        write_record(path, rain(frames=12, shape=shape, missing=0.02, seed=len(name)))
    (record,) = open_records([path])
    windows = find_windows(record.times, input_frames=2, lead_frames=3, time_step=record.time_step)
    return Batches([Series(name, pack(record), windows)], batch_size=4, crop=crop, seed=seed, **options)


def keep(batches, number=NUMBER, guide=guide, version=1):
    return keep_cases(batches, number, guide, rates=2, margin=MARGIN, missing=MISSING, version=version, label="training")


def stored(kept):
    return np.load(kept.path)


def test_the_kept_guidance_is_that_of_each_case(tmp_path):
    batches = batches_of(tmp_path)
    kept = keep(batches)
    assert kept.cases == batches.draw_cases(NUMBER) == batches_of(tmp_path).draw_cases(NUMBER)
    assert stored(kept).shape == (NUMBER, 3, 2, CROP, CROP)
    for number, case in enumerate(kept.cases):
        past, crop, _ = batches.past_around(case, MARGIN)
        np.testing.assert_array_equal(kept.guidance(number), guide(past, 3, crop))
    assert len(set(kept.cases)) > NUMBER // 2


def test_a_crop_beyond_the_grid_is_missing_there(tmp_path):
    kept = keep(batches_of(tmp_path, crop=48), 2)
    assert (stored(kept)[:, :, :, :40, :44] != MISSING).all()
    assert (stored(kept)[:, :, :, 40:] == MISSING).all()
    assert (stored(kept)[:, :, :, :, 44:] == MISSING).all()


def test_any_number_of_processes_computes_the_same(tmp_path, monkeypatch):
    found = []
    for number in (1, 2):
        monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / f"cache of {number}"))
        monkeypatch.setattr(kept_cases, "num_cores", lambda number=number: number)
        found.append(keep(batches_of(tmp_path)))
    assert found[0].cases == found[1].cases
    assert found[0].path != found[1].path
    assert found[0].path.read_bytes() == found[1].path.read_bytes()


def test_an_interrupted_preparation_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    straight = keep(batches_of(tmp_path)).path.read_bytes()
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(kept_cases, "SAVED_EVERY", 3)

    def interrupted(items, *_, **__):
        yield from itertools.islice(items, 8)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept_cases, "track", interrupted)
        with pytest.raises(KeyboardInterrupt):
            keep(batches_of(tmp_path))
    (done,) = (tmp_path / "other").glob("*-guidance-*/done.json")
    assert json.loads(done.read_text()) == len(json.loads(done.with_name("checksums.json").read_text())) == 6
    computed = []

    def tracked(items, *_, **__):
        for item in items:
            computed.append(item[0])
            yield item

    monkeypatch.setattr(kept_cases, "track", tracked)
    assert keep(batches_of(tmp_path)).path.read_bytes() == straight
    assert computed == list(range(6, NUMBER))


@pytest.mark.slow
def test_what_is_kept_is_used_again_and_anything_else_computed_anew(tmp_path):
    first = keep(batches_of(tmp_path))
    assert keep(batches_of(tmp_path), guide=fails).path == first.path
    others = [
        keep(batches_of(tmp_path, crop=20)),
        keep(batches_of(tmp_path, name="another")),
        keep(batches_of(tmp_path, seed=1)),
        keep(batches_of(tmp_path), number=NUMBER + 1),
        keep(batches_of(tmp_path), version=2),
    ]
    assert len({kept.path for kept in [first, *others]}) == 6
    assert keep(batches_of(tmp_path), guide=fails).path == first.path


@pytest.mark.parametrize("sampler", ["rain", "each"])
def test_each_kept_case_is_taken_once_before_any_comes_again(tmp_path, sampler):
    batches = batches_of(tmp_path, sampler=sampler, augmentation=("flips", "rotations"))
    number = 2 * batches.num_windows + 2  # of "each", the windows of two epochs and more
    batches.kept = keep(batches, number)
    drawn = [case for k in range(number // 2) for case in batches[k].cases]
    assert sorted(drawn[:number]) == sorted(drawn[number:]) == sorted(batches.kept.cases)
    assert drawn[:number] != drawn[number:]
    assert batches_of(tmp_path, sampler=sampler)[0].guidance is None


def turned(fields, y, x, exchanged):
    fields = fields[..., ::y, ::x]
    return fields.swapaxes(-2, -1) if exchanged else fields


def test_guidance_is_flipped_and_turned_as_its_frames_are(tmp_path):
    batches = batches_of(tmp_path, augmentation=("flips", "rotations"))
    kept = batches.kept = keep(batches)
    orientations, seen = list(itertools.product((1, -1), (1, -1), (False, True))), set()
    for k in range(6):
        batch = batches[k]
        assert batch.guidance.shape == (4, 3, 2, CROP, CROP)
        for case, past, guidance in zip(batch.cases, batch.past.numpy(), batch.guidance.numpy(), strict=True):
            frames = batches.read(case)[:2].float().numpy()
            (how,) = [one for one in orientations if np.array_equal(turned(frames, *one), past, equal_nan=True)]
            np.testing.assert_array_equal(guidance, turned(kept.guidance(kept.cases.index(case)), *how))
            seen.add(how)
    assert len(seen) > 4


def case_around(kept, case):
    """Return the numbers of the kept cases in which a crop lies as a whole."""
    return [
        number for number, (series, window, top, left) in enumerate(kept.cases)
        if (series, window) == case[:2]
        and 0 <= case[2] - top <= kept.side - CROP and 0 <= case[3] - left <= kept.side - CROP
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", ["past", "uniform"])
def test_crops_are_drawn_anew_within_larger_kept_cases(tmp_path, sampler):
    batches = batches_of(tmp_path, sampler=sampler)
    kept = batches.kept = keep(batches.with_crop(28), 5)
    assert kept.side == 28
    assert stored(kept).shape == (5, 3, 2, 28, 28)
    drawn = set()
    for k in range(20):
        batch = batches[k]
        assert batch.guidance.shape == (4, 3, 2, CROP, CROP)
        for case, past, guidance in zip(batch.cases, batch.past.numpy(), batch.guidance.numpy(), strict=True):
            assert case[2] <= 40 - CROP
            assert case[3] <= 44 - CROP
            newest = np.nan_to_num(past[-1], nan=-1.0).clip(max=120).astype(np.int8)
            np.testing.assert_array_equal(guidance[:, 0], np.stack([newest] * 3))
            assert case_around(kept, case)
            drawn.add(case)
    assert len(drawn) > 30, "80 crops of 5 kept cases are nearly all different"


def test_in_a_kept_case_crops_follow_the_rain_of_the_past(tmp_path):
    fields = np.zeros((12, 96, 96), np.float32)
    fields[:, 70:80, 66:76] = 20.0
    write_record(tmp_path / "corner.nc", fields)
    batches = batches_of(tmp_path, name="corner", sampler="past")
    kept = batches.kept = keep(batches.with_crop(96), 3)
    assert {case[2:] for case in kept.cases} == {(0, 0)}
    cases = [case for k in range(50) for case in batches[k].cases]
    with_rain = [top + CROP > 70 and top < 80 and left + CROP > 66 and left < 76 for _, _, top, left in cases]
    assert 0.6 < np.mean(with_rain) < 1, "a tenth is drawn anywhere, and the shift leads some past the rain"


def test_a_disk_that_is_too_small_is_found_before_anything_is_computed(tmp_path, monkeypatch):
    batches = batches_of(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2000))
    with pytest.raises(
        OutputError, match=r"guidance of 11 cases needs [\d.]+ [kM]B in .* has 2 kB free\.\nSet NOWCAST_CACHE"
    ) as caught:
        keep(batches, guide=fails)
    assert caught.value.exit_code == 5
    assert not list((tmp_path / "cache").glob("*guidance*"))


def test_a_disk_that_fills_up_ends_in_a_message(tmp_path, monkeypatch):
    batches = batches_of(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"cannot write the cache .*: No space left on device; set NOWCAST_CACHE"):
        keep(batches, guide=fails)
    assert not list((tmp_path / "cache").glob("*guidance*")), "nothing is left behind"


def test_workers_compute_with_one_thread_each_also_where_opencv_has_used_several(tmp_path):
    def threads(past, num_leads, cells):
        found = guide(past, num_leads, cells)
        found[:] = [[[[cv2.getNumThreads()]], [[torch.get_num_threads()]]]]
        return found

    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.GaussianBlur(np.zeros((900, 900), np.float32), (0, 0), 5.0)  # starts its threads
        assert (stored(keep(batches_of(tmp_path), guide=threads)) == 1).all()
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.slow
def test_a_process_that_dies_ends_in_a_message_and_what_is_done_is_kept(tmp_path):
    def dies(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        LoadingError, match=r"a process that computes guidance has died \(.*\): completed cases are kept"
    ) as caught:
        keep(batches_of(tmp_path), guide=dies)
    assert caught.value.exit_code == 75
    assert keep(batches_of(tmp_path)).cases


GUIDANCE = {
    "zeros": ("guidance.npy", zeros_from(128)), "last case": ("guidance.npy", zeros_from(-3 * 2 * CROP * CROP)),
    "cut": ("guidance.npy", cut), "empty": ("guidance.npy", empty), "absent": ("guidance.npy", remove),
    "none done": ("done.json", empty), "zero done": ("done.json", zeros_from(0)), "more": ("done.json", lambda path:
        path.write_text("12")), "no checksums": ("checksums.json", empty), "other checksums": ("checksums.json", lambda path:
        path.write_text(str([0] * 11))), "a list": ("done.json", lambda path: path.write_text(str([0] * 11))),
}  # fmt: skip


@pytest.mark.parametrize("kind", GUIDANCE)
def test_guidance_that_is_damaged_is_computed_anew(tmp_path, caplog, kind):
    path = keep(batches_of(tmp_path)).path
    before = path.read_bytes()
    name, damage = GUIDANCE[kind]
    damage(path.with_name(name))
    assert keep(batches_of(tmp_path)).path == path
    assert path.read_bytes() == before
    assert [record.message for record in caplog.records] == [f"{path.parent} is damaged: it is made anew"]
    keep(batches_of(tmp_path), guide=fails)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE])
def test_guidance_that_cannot_be_read_for_another_reason_is_kept(tmp_path, monkeypatch, caplog, number):
    batches = batches_of(tmp_path)
    path = keep(batches).path
    inode = path.stat().st_ino

    def fails_to_open(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", fails_to_open)
        with pytest.raises(OutputError, match=os.strerror(number)):
            keep(batches, guide=fails)
    assert keep(batches, guide=fails).path.stat().st_ino == inode
    assert not caplog.records


def test_guidance_of_older_programs_is_kept_and_theirs_go_on_with_that_of_this_one(tmp_path, caplog):
    path = keep(batches_of(tmp_path)).path
    whole, inode = path.read_bytes(), path.stat().st_ino
    done, checksums = path.with_name("done.json"), path.with_name("checksums.json")
    assert done.read_text() == "11", "what an older program reads: a number"
    known = json.loads(checksums.read_text())
    for stored, old in ((None, "11"), (known[:4], "11"), (None, "7"), (known, "7")):
        checksums.unlink() if stored is None else checksums.write_text(json.dumps(stored))
        done.write_text(old)
        keep(batches_of(tmp_path), guide=fails if old == "11" else guide)
        assert (path.read_bytes(), path.stat().st_ino, done.read_text()) == (whole, inode, "11")
    assert not caplog.records
    assert json.loads(checksums.read_text()) == known
    checksums.unlink()
    done.write_text("7")
    keep(batches_of(tmp_path))
    assert json.loads(checksums.read_text()) == [None] * 7 + known[7:]
    zeros_from(-3 * 2 * CROP * CROP)(path)
    keep(batches_of(tmp_path))
    assert [record.message for record in caplog.records] == [f"{path.parent} is damaged: it is made anew"]


def test_guidance_that_another_process_has_computed_anew_is_kept(tmp_path, monkeypatch, caplog):
    batches = batches_of(tmp_path)
    path = keep(batches).path
    whole, remove_damaged, anew = path.read_bytes(), kept_cases.remove_damaged, []
    zeros_from(128)(path)

    def later(*given):
        monkeypatch.setattr(kept_cases, "remove_damaged", remove_damaged)
        anew.append(keep(batches).path.stat().st_ino)
        remove_damaged(*given)

    monkeypatch.setattr(kept_cases, "remove_damaged", later)
    assert keep(batches, guide=fails).path.stat().st_ino == anew[0]
    assert path.read_bytes() == whole
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("local", "compares"), [("1", False), ("0", True)])
def test_processes_beside_the_first_trust_guidance_that_it_has_compared(tmp_path, monkeypatch, caplog, local, compares):
    path = keep(batches_of(tmp_path)).path
    path.with_name("checksums.json").write_text(str([0] * NUMBER))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", local)
    keep(batches_of(tmp_path))
    assert len(caplog.records) == compares
