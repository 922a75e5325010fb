#!/usr/bin/env python3
"""Make Moving MNIST: two handwritten digits that cross a frame of 64 × 64 cells and bounce off its edges, 20 frames a sequence.

`--rules 2015` (Shi et al., arXiv 1506.04214): digits from a subset of 500, uniform start and direction, uniform speed in
[3, 5) cells per frame, reflection at the edges. `--rules fixed` (the generator of later benchmarks): all digits of the
file, 3.6 cells per frame; a digit that would leave the frame stops at the edge and turns round. Training, validation and
test use different digits: the first 50,000 training images, the last 10,000, and the test images.

    python scripts/data/make_moving_mnist.py --digits shared/mnist --rules 2015 --split training --output mmnist_training.nc
"""

import argparse
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from sequence_file import write_sequences

FRAMES, SIZE, DIGIT = 20, 64, 28
ROOM = SIZE - DIGIT  # the corner of a digit moves in [0, ROOM]
NUMBER = {"training": 10_000, "validation": 2_000, "test": 3_000}  # sequences of each split
SUBSET = 500  # digits used by the rules of 2015
FIXED_SPEED = 0.1 * ROOM  # cells per frame


def read_digits(folder: Path, split: str) -> np.ndarray:
    """Read the digits of a split from the original gzipped IDX files: uint8 (digit, 28, 28)."""
    name = "t10k-images-idx3-ubyte.gz" if split == "test" else "train-images-idx3-ubyte.gz"
    try:
        content = gzip.decompress((folder / name).read_bytes())
    except OSError as error:
        raise SystemExit(f"error: cannot read {folder / name}: {error.strerror or error}; give --digits FOLDER") from None
    digits = np.frombuffer(content, np.uint8, offset=16).reshape(-1, DIGIT, DIGIT)
    return {"training": digits[:50_000], "validation": digits[50_000:], "test": digits}[split]


def reflected(rng: np.random.Generator) -> np.ndarray:
    """Draw a digit's corners (frame, 2) by the rules of 2015: a straight path that is reflected at the edges."""
    start, angle, speed = rng.uniform(0, ROOM, 2), rng.uniform(0, 2 * np.pi), rng.uniform(3, 5)
    straight = start + np.arange(FRAMES)[:, None] * speed * np.array([np.sin(angle), np.cos(angle)])
    return ROOM - abs(straight % (2 * ROOM) - ROOM)


def stopped(rng: np.random.Generator) -> np.ndarray:
    """Draw a digit's corners (frame, 2) by the fixed rules: a digit that would leave stops at the edge and turns round."""
    place, angle = rng.uniform(0, ROOM, 2), rng.uniform(0, 2 * np.pi)
    motion = FIXED_SPEED * np.array([np.sin(angle), np.cos(angle)])
    corners = np.empty((FRAMES, 2))
    for frame in corners:
        place = place + motion
        motion = np.where((place <= 0) | (place >= ROOM), -motion, motion)
        place = place.clip(0, ROOM)
        frame[:] = place
    return corners


RULES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {"2015": reflected, "fixed": stopped}


def sequences(digits: np.ndarray, number: int, rules: str, seed: int) -> Iterator[np.ndarray]:
    """Yield sequences (20, 64, 64) in [0, 1]; where digits overlap, the larger value is taken."""
    rng = np.random.default_rng(seed)
    if rules == "2015":
        digits = digits[rng.choice(len(digits), SUBSET, replace=False)]
    for _ in range(number):
        frames = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
        for digit in digits[rng.integers(len(digits), size=2)]:
            for frame, corner in zip(frames, RULES[rules](rng), strict=True):
                y, x = (int(c) for c in (np.round(corner) if rules == "2015" else corner))
                np.maximum(frame[y : y + DIGIT, x : x + DIGIT], digit, out=frame[y : y + DIGIT, x : x + DIGIT])
        yield frames / 255


def make(output: Path, digits: Path, split: str, *, rules: str, number: int, seed: int) -> int:
    """Write `number` sequences of a split; return their number."""
    # each split has a seed of its own, so that no split repeats the draws of another
    drawn = sequences(read_digits(digits, split), number, rules, seed * len(NUMBER) + list(NUMBER).index(split))
    source = f"make_moving_mnist.py --rules {rules} --split {split} --seed {seed}"
    return write_sequences(output, drawn, title="Moving MNIST", source=source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four original MNIST files")
    parser.add_argument("--rules", choices=RULES, default="2015")
    parser.add_argument("--split", choices=NUMBER, default="training")
    parser.add_argument("--sequences", type=int, help="default: 10,000 / 2,000 / 3,000")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    number = args.sequences or NUMBER[args.split]
    count = make(args.output, args.digits, args.split, rules=args.rules, number=number, seed=args.seed)
    print(f"{args.output}: {count} sequences of {FRAMES} frames, {SIZE} × {SIZE}")


if __name__ == "__main__":
    main()
