#!/usr/bin/env python3
"""Make the moving squares of the Keras ConvLSTM example (2016): 3 to 7 squares of 4 or 6 cells cross a frame, 15 frames.

The frame is the central 40 × 40 cells of a field of 80 × 80. Each square starts in the frame and moves by -1, 0 or 1 cell
per frame along each axis. Where squares overlap, the value stays 1. The example disturbs its inputs by ± 0.1 in and around
a square, in every second frame on average. `--noise` does the same, but here the targets are disturbed too, as inputs and
targets are frames of the same record.

    python scripts/data/make_moving_squares.py --output squares.nc
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sequence_file import write_sequences

FRAMES, FIELD, MARGIN = 15, 80, 20


def sequence(rng: np.random.Generator, *, noise: bool) -> np.ndarray:
    """Draw one sequence, float64 (15, 40, 40) in [0, 1]."""
    field = np.zeros((FRAMES, FIELD, FIELD))
    for _ in range(rng.integers(3, 8)):
        start, motion = rng.integers(MARGIN, FIELD - MARGIN, 2), rng.integers(-1, 2, 2)
        half = rng.integers(2, 4)
        for time in range(FRAMES):
            y, x = start + motion * time
            field[time, y - half : y + half, x - half : x + half] += 1
            if noise and rng.random() < 0.5:
                field[time, y - half - 1 : y + half + 1, x - half - 1 : x + half + 1] += rng.choice((-0.1, 0.1))
    return field[:, MARGIN:-MARGIN, MARGIN:-MARGIN].clip(0, 1)


def sequences(number: int, seed: int, *, noise: bool = False) -> Iterator[np.ndarray]:
    """Yield `number` sequences (15, 40, 40) in [0, 1]."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield sequence(rng, noise=noise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("data/moving_squares.nc"))
    parser.add_argument("--sequences", type=int, default=1200)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = sequences(args.sequences, args.seed, noise=args.noise)
    count = write_sequences(args.output, made, title="Moving squares", source=f"make_moving_squares.py --seed {args.seed}")
    print(f"{args.output}: {count} sequences of {FRAMES} frames, {FIELD - 2 * MARGIN} × {FIELD - 2 * MARGIN}")


if __name__ == "__main__":
    main()
