#!/usr/bin/env python3
"""The beams of the torch convLSTM check: a diagonal of six cells that moves up and to the right, one cell a frame.

eye(6) stands in a 24 × 24 frame (6 columns left, 12 right, 12 rows above, 6 below it); that frame and those rolled by (-k, +k)
for k = 1 … 5 make 6 frames. The first sequence is exact; each of the others is moved as a whole by two numbers from the
uniform distribution over ± 12 cells, rounded; what comes in is 0. So drawn, an all-zero forecast scores .0086 on average
(published: .00863) and persistence .0176 (.0178), as it would not with integers drawn alike: .0083 and .0170.

    python scripts/data/make_beams.py --output beams.nc
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sequence_file import write_sequences

FRAMES, SIZE, REACH = 6, 24, 12


def beam() -> np.ndarray:
    """The exact sequence, float32 (6, 24, 24)."""
    frame = np.pad(np.eye(6, dtype=np.float32), ((12, 6), (6, 12)))
    return np.stack([np.roll(frame, (-k, k), axis=(0, 1)) for k in range(FRAMES)])


def moved(sequence: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The whole sequence moved by integers, 0 where nothing comes from."""
    padded = np.pad(sequence, ((0, 0), (REACH, REACH), (REACH, REACH)))
    return padded[:, REACH - rows : REACH - rows + SIZE, REACH - columns : REACH - columns + SIZE]


def sequences(number: int, seed: int) -> Iterator[np.ndarray]:
    """The exact sequence, then moved ones."""
    rng, exact = np.random.default_rng(seed), beam()
    yield exact
    for rows, columns in np.round(rng.uniform(-REACH, REACH, size=(number - 1, 2))):
        yield moved(exact, int(rows), int(columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("data/beams.nc"))
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    count = write_sequences(
        given.output, sequences(given.sequences, given.seed), title="Moving beams", source=f"make_beams.py --seed {given.seed}"
    )
    print(f"{given.output}: {count} sequences of {FRAMES} frames, {SIZE} × {SIZE}")


if __name__ == "__main__":
    main()
