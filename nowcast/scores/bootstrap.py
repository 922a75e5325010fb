"""Intervals of scores by the block bootstrap: whole days or events are drawn, so what is near in time stays together.

Sides that are compared are drawn alike. With few blocks there is no interval: the draws would say nothing about the spread.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nowcast.scores import SCORES
from nowcast.scores.sums import Additive, Tally, require_alike

MIN_BLOCKS = 5
MAX_UNDEFINED = 0.05  # share of resamples without a score above which an interval is not given
NUM_SAMPLES, SEED, LEVEL = 1000, 0, 0.95
Block = Additive | Tally
Function = Callable[[Block], np.ndarray]
Interval = tuple[np.ndarray, np.ndarray]


def interval(
    blocks: Sequence[Block],
    score: str | Function,
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """(low, high) of a score, in its shape, by the percentile block bootstrap over events or days.

    `score` is a name in SCORES or any function of sums that uses the last axes: `SCORES["csi"].mean_over_leads`.
    Blocks without pairs are no blocks; fewer than MIN_BLOCKS give NaN, and so does a score that is undefined in more
    than MAX_UNDEFINED of the resamples. Efron & Tibshirani (1993), ch. 13.
    """
    function = SCORES[score] if isinstance(score, str) else score
    resampled = resample(blocks, num_samples=num_samples, seed=seed)
    return _nowhere(function, blocks) if resampled is None else quantiles(function(resampled), level)


def difference_interval(
    blocks_a: Sequence[Block],
    blocks_b: Sequence[Block],
    score: str | Function,
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """(low, high) of score(a) - score(b), paired: both sides are resampled with the same blocks. See `interval`.

    Raises ValueError if the sides do not hold the same blocks under one mask (as many pairs in each).
    """
    function = SCORES[score] if isinstance(score, str) else score
    require_paired(blocks_a, blocks_b)
    sides = [resample(blocks, num_samples=num_samples, seed=seed) for blocks in (blocks_a, blocks_b)]
    return _nowhere(function, blocks_a) if None in sides else quantiles(function(sides[0]) - function(sides[1]), level)


def require_paired(blocks_a: Sequence[Block], blocks_b: Sequence[Block]) -> None:
    """ValueError where blocks are not of the same cases and pairs."""
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
    """The sums with a leading axis of resamples, the same draws for as many blocks; None with too few blocks.

    Of a Tally only these `kinds` (default: all) are drawn. Kinds that have pairs in too few of the blocks come without any,
    so that their scores are undefined.
    """
    blocks = [block for block in blocks if _first_kind(block).num_pairs.any()]
    if len(blocks) < MIN_BLOCKS:
        return None
    shares = np.full(len(blocks), 1 / len(blocks))
    draws = np.random.default_rng(seed).multinomial(len(blocks), shares, size=num_samples)
    draws = draws.astype(np.float64)  # float64: exact for counts to 2^53, and a matrix product
    if not isinstance(blocks[0], Tally):
        return _drawn(draws, blocks)
    return Tally({kind: _drawn(draws, [block[kind] for block in blocks]) for kind in kinds or blocks[0]})


def _drawn(draws: np.ndarray, blocks: Sequence[Additive]) -> Additive:
    enough = sum(bool(block.num_pairs.any()) for block in blocks) >= MIN_BLOCKS
    arrays = {}
    for name in blocks[0].arrays():
        stacked = np.stack([block.arrays()[name] for block in blocks]).astype(np.float64)
        arrays[name] = np.tensordot(draws, stacked if enough else np.zeros_like(stacked), axes=1)
    return blocks[0].like(arrays)


def quantiles(values: np.ndarray, level: float = LEVEL) -> Interval:
    """The central `level` of the values over axis 0, NaN where too many of them are undefined."""
    unknown = np.isnan(values)
    undefined = unknown.mean(axis=0) > MAX_UNDEFINED
    filled = np.where(undefined, 0, values)
    quantile = np.nanquantile if (unknown & ~undefined).any() else np.quantile  # 20 times as fast without NaN
    low, high = quantile(filled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _nowhere(function: Function, blocks: Sequence[Block]) -> Interval:
    nan = np.full(np.shape(function(blocks[0])) if len(blocks) else (), np.nan)
    return nan, nan.copy()
