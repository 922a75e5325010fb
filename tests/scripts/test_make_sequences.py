"""The made-up sequences: digits, squares and beams move as their rules say, and are read back as they were made."""

import gzip
from itertools import pairwise

import make_beams
import make_moving_mnist as mnist
import make_moving_squares as squares
import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.processes import call_script
from sequence_file import write_sequences

from nowcast.dataset.windows import find_windows
from nowcast.netcdf.opening import open_records
from nowcast.quantity import DIMENSIONLESS

pytestmark = pytest.mark.slow  # all of them together take seconds

seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=40)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder like MNIST's, each image telling its number: three bytes of 250 levels, all brighter than nothing."""
    folder = tmp_path_factory.mktemp("mnist")
    for name, count, first in (("train", 60_000, 0), ("t10k", 10_000, 60_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        number = first + np.arange(count)
        images[:, 0, :3] = np.stack([number // 62500, number // 250 % 250, number % 250], axis=1) + 1
        content = b"\0" * 16 + images.tobytes()
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content, compresslevel=1))
    return folder


@some
@given(seeds)
def test_by_the_rules_of_2015_a_digit_stays_inside_and_a_bounce_keeps_its_speed(seed):
    path = mnist.reflected(np.random.default_rng(seed))
    assert path.shape == (20, 2)
    assert path.min() >= 0
    assert path.max() <= mnist.ROOM
    moved = abs(np.diff(path, axis=0))
    speed = moved.max(axis=0)  # crossing the frame takes more than seven frames: in some of them nothing is touched
    at_zero, at_room = path[:-1] + path[1:], 2 * mnist.ROOM - path[:-1] - path[1:]
    travelled = np.stack([moved, at_zero, at_room])  # straight, or to a wall and back from it
    assert (abs(travelled - speed).min(axis=0) < 1e-9).all()
    assert 3 - 1e-9 <= np.hypot(*speed) < 5


@some
@given(seeds)
def test_by_the_fixed_rules_a_digit_stops_at_the_edge_and_turns_round(seed):
    path = mnist.stopped(np.random.default_rng(seed))
    assert path.shape == (20, 2)
    assert path.min() >= 0
    assert path.max() <= mnist.ROOM
    moved = np.diff(path, axis=0)
    speed = abs(moved).max(axis=0)
    assert np.hypot(*speed) == pytest.approx(3.6)
    cut_short = abs(moved) < speed - 1e-9
    assert np.isin(path[1:][cut_short], (0, mnist.ROOM)).all()
    turned = np.sign(moved[1:]) != np.sign(moved[:-1])
    assert np.isin(path[1:-1][turned & (speed > 1e-9)], (0, mnist.ROOM)).all()


def test_the_splits_have_their_digits_for_themselves(digits):
    numbers = {}
    for split in mnist.NUMBER:
        code = mnist.read_digits(digits, split)[:, 0, :3].astype(int) - 1
        numbers[split] = set((code @ [62500, 250, 1]).tolist())
    assert numbers["training"] == set(range(50_000))
    assert numbers["validation"] == set(range(50_000, 60_000))
    assert numbers["test"] == set(range(60_000, 70_000))


@pytest.mark.parametrize(("rules", "most"), [("2015", 500), ("fixed", 600)])
def test_the_rules_of_2015_take_a_subset_of_500_digits(rules, most):
    """600 digits of one pixel each, all of another brightness or place; those that appear are counted by brightness."""
    images = np.zeros((600, 28, 28), np.uint8)
    number = np.arange(600)
    images[number, 0, 0] = number % 250 + 1
    images[number, 27, 27] = number // 250 + 251  # no other digit has this pair of pixels, 27 cells apart
    seen = set()
    for sequence in mnist.sequences(images, 2500, rules, seed=1):
        frame = np.round(sequence[0] * 255).astype(int)
        seen |= {(frame[y, x], frame[y + 27, x + 27]) for y, x in np.argwhere((frame > 0) & (frame < 251)) if y < 37 and x < 37}
    known = {(n % 250 + 1, n // 250 + 251) for n in number.tolist()}
    assert most * 0.97 < len(seen & known) <= most


@pytest.mark.parametrize("rules", mnist.RULES)
def test_two_digits_that_meet_are_no_brighter_than_one(rules):
    white = np.full((500, 28, 28), 255, np.uint8)
    frames = np.concatenate(list(mnist.sequences(white, 30, rules, seed=2)))
    assert frames.shape == (600, 64, 64)
    assert set(np.unique(frames)) == {0.0, 1.0}
    area = frames.sum(axis=(1, 2))
    assert ((area >= 28 * 28) & (area <= 2 * 28 * 28)).all()
    assert area.min() < 2 * 28 * 28  # some did meet


@pytest.mark.parametrize("rules", mnist.RULES)
def test_a_seed_is_a_set_of_sequences(rules):
    images = np.random.default_rng(0).integers(0, 256, (500, 28, 28)).astype(np.uint8)
    first, again, other = (np.stack(list(mnist.sequences(images, 3, rules, seed))) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@some
@given(seeds)
def test_squares_are_0_or_1_and_move_by_one_cell_at_most(seed):
    frames = squares.sequence(np.random.default_rng(seed), noise=False)
    assert frames.shape == (15, 40, 40)
    assert set(np.unique(frames)) <= {0.0, 1.0}
    assert 0 < frames[0].sum() <= 7 * 36
    for before, after in pairwise(frames):
        reached = np.pad(before, 1)
        near = np.max([reached[dy : dy + 40, dx : dx + 40] for dy in range(3) for dx in range(3)], axis=0)
        assert (after <= near)[1:-1, 1:-1].all()  # at the frame's edge they come from outside


def test_noise_disturbs_squares_by_a_tenth_within_the_unit_interval():
    clean, noisy = (np.stack(list(squares.sequences(20, 3, noise=noise))) for noise in (False, True))
    assert noisy.min() == 0
    assert noisy.max() == 1
    values = np.unique(noisy.round(9))
    assert {0.1, 0.9} <= set(values)
    assert set(np.unique(clean)) == {0.0, 1.0}


def test_the_first_beam_is_the_diagonal_rolled_up_and_right():
    exact = make_beams.beam()
    for k, frame in enumerate(exact):
        rows, columns = np.nonzero(frame)
        assert rows.tolist() == list(range(12 - k, 18 - k))
        assert columns.tolist() == list(range(6 + k, 12 + k))
    assert np.array_equal(next(make_beams.sequences(1, 0)), exact)


@some
@given(st.integers(-12, 12), st.integers(-12, 12))
def test_a_moved_beam_is_the_beam_elsewhere_and_zero_beside_it(rows, columns):
    exact = make_beams.beam()
    moved = make_beams.moved(exact, rows, columns)
    expected = np.zeros_like(exact)
    for frame, y, x in np.argwhere(exact):
        if 0 <= y + rows < 24 and 0 <= x + columns < 24:
            expected[frame, y + rows, x + columns] = 1
    assert np.array_equal(moved, expected)


COMMANDS = {
    "beams": ("make_beams.py", ["--sequences", 4], (4, 6, 24, 24)),
    "squares": ("make_moving_squares.py", ["--sequences", 3, "--noise"], (3, 15, 40, 40)),
    "digits": ("make_moving_mnist.py", ["--rules", "fixed", "--split", "test", "--sequences", 2], (2, 20, 64, 64)),
}


@pytest.fixture(scope="module", params=COMMANDS)
def made(request, tmp_path_factory, digits):
    """(path, raw bytes (sequence, time, y, x), what the command printed) of each script, run as a command."""
    script, arguments, shape = COMMANDS[request.param]
    path = tmp_path_factory.mktemp(request.param) / "new" / "made.nc"
    folder = ["--digits", digits] if request.param == "digits" else []
    done = call_script(f"data/{script}", *arguments, *folder, "--output", path)
    assert done.returncode == 0, done.stderr
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        raw = file["intensity"][:]
    assert raw.shape == shape
    return path, raw, done.stdout


def test_a_script_says_what_it_made(made):
    path, raw, said = made
    number, frames, y, x = raw.shape
    assert said == f"{path}: {number} sequences of {frames} frames, {y} × {x}\n"


def test_a_record_of_sequences_has_one_run_without_gaps_for_each(made):
    path, raw, _ = made
    (record,) = open_records([path], variable="intensity")
    assert (record.quantity, record.units, len(record)) == (DIMENSIONLESS, "1", raw.shape[0] * raw.shape[1])
    jumps = np.diff(record.times) != record.time_step
    assert np.flatnonzero(jumps).tolist() == [n * raw.shape[1] - 1 for n in range(1, raw.shape[0])]
    windows = find_windows(record.times, input_frames=raw.shape[1] - 1, lead_frames=1, time_step=record.time_step)
    assert np.array_equal(windows.positions, np.arange(len(record)).reshape(raw.shape[:2]))


def test_frames_are_read_in_the_order_of_the_array_whatever_is_asked_for(made):
    path, raw, _ = made
    (record,) = open_records([path], variable="intensity")
    frames = (raw.reshape(-1, *raw.shape[2:]) / 255).astype(np.float32)
    np.testing.assert_allclose(record.read(range(len(record))), frames, atol=1e-7)

    @settings(max_examples=15)
    @given(st.lists(st.integers(0, len(record) - 1), min_size=1, max_size=40))
    def any_positions(positions):
        np.testing.assert_allclose(record.read(positions), frames[positions], atol=1e-7)

    any_positions()


def test_without_the_digits_the_script_says_what_to_give(tmp_path):
    done = call_script("data/make_moving_mnist.py", "--digits", tmp_path, "--output", tmp_path / "made.nc")
    assert done.returncode == 1
    missing = tmp_path / "train-images-idx3-ubyte.gz"
    assert done.stderr == f"error: cannot read {missing}: No such file or directory; give --digits FOLDER\n"


def test_a_file_that_fails_half_way_is_not_there(tmp_path):
    def sequences():
        yield np.zeros((2, 3, 4))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_sequences(tmp_path / "made.nc", sequences(), title="", source="")
    assert list(tmp_path.iterdir()) == []
