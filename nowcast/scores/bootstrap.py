"""Confidence intervals of scores by the block bootstrap: whole days or events are resampled, as cases near in time correlate.

Forecasters that are compared are resampled with the same blocks. With fewer than MIN_BLOCKS blocks there is no interval (NaN),
because the resamples would not show the sampling uncertainty.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nowcast.scores.sums import Additive, Tally, require_alike

MIN_BLOCKS = 5  # fewest blocks for which there is an interval
MAX_UNDEFINED = 0.05  # largest fraction of resamples with an undefined score for which there is an interval
NUM_SAMPLES, SEED = 1000, 0  # number of resamples and seed of the random generator
LEVEL = 0.95  # confidence level
Block = Additive | Tally
Function = Callable[[Block], np.ndarray]
Interval = tuple[np.ndarray, np.ndarray]  # low and high end


def difference_interval(
    blocks_a: Sequence[Block],
    blocks_b: Sequence[Block],
    score: Function,
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Compute the (low, high) interval of score(a) - score(b) by the paired percentile block bootstrap.

    blocks_a, blocks_b: the sums of two forecasters by event or day, the same blocks in the same order
    returns: two arrays in the shape of the score

    `score` is a score of SCORES or any other function of sums. Both forecasters are resampled with the same blocks. NaN with
    fewer than MIN_BLOCKS blocks that hold pairs, and where the score is undefined in more than MAX_UNDEFINED of the resamples.
    Raises ValueError if the blocks do not hold the same number of pairs. Efron & Tibshirani (1993), ch. 13.
    """
    require_paired(blocks_a, blocks_b)
    sides = [resample(blocks, num_samples=num_samples, seed=seed) for blocks in (blocks_a, blocks_b)]
    return _undefined(score, blocks_a) if None in sides else quantiles(score(sides[0]) - score(sides[1]), level)


def require_paired(blocks_a: Sequence[Block], blocks_b: Sequence[Block]) -> None:
    """Raise ValueError unless both hold the same number of blocks with the same number of pairs in each."""
    if len(blocks_a) != len(blocks_b):
        raise ValueError(f"{len(blocks_a)} blocks cannot be paired with {len(blocks_b)}")
    for a, b in zip(map(_first_kind, blocks_a), map(_first_kind, blocks_b), strict=True):
        require_alike(a, b)
        if not np.array_equal(a.num_pairs, b.num_pairs):
            raise ValueError("the blocks of a paired difference must be scored on the same pairs")


def _first_kind(block: Block) -> Additive:
    return block[next(iter(block))] if isinstance(block, Tally) else block


def resample(
    blocks: Sequence[Block], *, num_samples: int = NUM_SAMPLES, seed: int = SEED, kinds: Sequence[str] | None = None
) -> Block | None:
    """Return the sums of every resample, as arrays with a leading axis of resamples; None with fewer than MIN_BLOCKS blocks.

    Blocks without pairs do not count. Lists of equally many blocks get the same draws. `kinds` are the kinds of sums of a Tally
    to resample (default: all). A kind that has pairs in fewer than MIN_BLOCKS of the blocks gets sums of zero, so that its
    scores are undefined.
    """
    blocks = [block for block in blocks if _first_kind(block).num_pairs.any()]
    if len(blocks) < MIN_BLOCKS:
        return None
    chances = np.full(len(blocks), 1 / len(blocks))
    draws = np.random.default_rng(seed).multinomial(len(blocks), chances, size=num_samples)
    draws = draws.astype(np.float64)  # exact for counts up to 2^53, and makes the sum a matrix product
    if not isinstance(blocks[0], Tally):
        return _resampled(draws, blocks)
    return Tally({kind: _resampled(draws, [block[kind] for block in blocks]) for kind in kinds or blocks[0]})


def _resampled(draws: np.ndarray, blocks: Sequence[Additive]) -> Additive:
    """Add up the blocks as often as each was drawn, draws (resample, block)."""
    enough = sum(bool(block.num_pairs.any()) for block in blocks) >= MIN_BLOCKS
    arrays = {}
    for name in blocks[0].arrays():
        stacked = np.stack([block.arrays()[name] for block in blocks]).astype(np.float64)
        arrays[name] = np.tensordot(draws, stacked if enough else np.zeros_like(stacked), axes=1)
    return blocks[0].like(arrays)


def quantiles(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Return the ends of the central interval of the values over the resamples, NaN where too many are undefined.

    values: (resample, …)
    returns: (…) each
    """
    undefined = np.isnan(values).mean(axis=0) > MAX_UNDEFINED
    ordered = np.sort(np.where(undefined, 0, values), axis=0)  # NaN come last
    last = len(values) - 1 - np.isnan(ordered).sum(axis=0)
    low, high = (_at(ordered, end * last) for end in ((1 - level) / 2, (1 + level) / 2))
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _at(ordered: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Interpolate linearly between ordered values (resample, …) at a place (…) along the first axis.

    np.nanquantile does the same, but one column at a time, which takes 20 times as long.
    """
    before = np.floor(place).astype(int)
    low, high = (np.take_along_axis(ordered, number[None], axis=0)[0] for number in (before, np.ceil(place).astype(int)))
    return low + (high - low) * (place - before)


def _undefined(score: Function, blocks: Sequence[Block]) -> Interval:
    nan = np.full(np.shape(score(blocks[0])) if len(blocks) else (), np.nan)
    return nan, nan.copy()
