"""Sums that add over cases, blocks and shards; scores as functions of sums.

An event is a value at or above a threshold (`>=`). A pair counts only where the mask says so and both sides are known.
Whatever is undefined (0/0) is NaN, never 0 and never saved by an epsilon. Scores broadcast: sums may have axes before
(lead,) and (lead, threshold), which the bootstrap uses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

THRESHOLDS = (0.5, 1.0, 5.0, 10.0)  # mm/h
MIN_BLOCKS = 5  # with fewer, resampling says nothing about the spread
MAX_UNDEFINED = 0.05  # share of resamples without a score above which an interval is not given


@dataclass(frozen=True, eq=False)
class Sums:
    """Everything the scores need, per lead and per lead and threshold. `a + b` is the sums of both sets of cases.

    `num_cases` counts the cases with at least one pair at that lead. f is forecast and o observed, in mm/h.
    """

    thresholds: tuple[float, ...]
    num_cases: np.ndarray  # int64 (lead,)
    num_pairs: np.ndarray  # int64 (lead,)
    sum_error: np.ndarray  # float64 (lead,) from here on; error = f - o
    sum_abs_error: np.ndarray
    sum_sq_error: np.ndarray
    sum_f: np.ndarray
    sum_o: np.ndarray
    sum_ff: np.ndarray
    sum_oo: np.ndarray
    sum_fo: np.ndarray
    hits: np.ndarray  # int64 (lead, threshold) from here on
    misses: np.ndarray
    false_alarms: np.ndarray
    correct_negatives: np.ndarray

    @classmethod
    def zeros(cls, num_leads: int, thresholds: Sequence[float] = THRESHOLDS) -> "Sums":
        """The sums of no case at all."""
        thresholds = tuple(float(threshold) for threshold in thresholds)
        by_lead = {name: np.zeros(num_leads, np.float64) for name in _VALUES}
        for name in ("num_cases", "num_pairs"):
            by_lead[name] = np.zeros(num_leads, np.int64)
        counts = {name: np.zeros((num_leads, len(thresholds)), np.int64) for name in _COUNTS}
        return cls(thresholds=thresholds, **by_lead, **counts)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by name, for files and for reduction over processes; `Sums(thresholds, **arrays)` restores."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "thresholds"}

    def __add__(self, other: "Sums") -> "Sums":
        if not isinstance(other, Sums):
            return NotImplemented
        _require_alike(self, other)
        theirs = other.arrays()
        return Sums(self.thresholds, **{name: array + theirs[name] for name, array in self.arrays().items()})

    def __radd__(self, other: int) -> "Sums":
        return self if other == 0 else NotImplemented  # so that sum([...]) works

    def pooled(self) -> "Sums":
        """The sums over all leads as one lead: scores of it are pooled over leads, not means over leads."""
        arrays = self.arrays()
        axes = {name: -2 if name in _COUNTS else -1 for name in arrays}
        return Sums(self.thresholds, **{name: a.sum(axis=axes[name], keepdims=True) for name, a in arrays.items()})


_COUNTS = ("hits", "misses", "false_alarms", "correct_negatives")
_VALUES = ("sum_error", "sum_abs_error", "sum_sq_error", "sum_f", "sum_o", "sum_ff", "sum_oo", "sum_fo")


def _require_alike(a: Sums, b: Sums) -> None:
    if a.thresholds != b.thresholds or a.num_pairs.shape != b.num_pairs.shape:
        raise ValueError(
            f"sums of {a.num_pairs.shape} leads at thresholds {a.thresholds} do not add to "
            f"sums of {b.num_pairs.shape} leads at thresholds {b.thresholds}"
        )


def sums(
    forecast: np.ndarray,
    observed: np.ndarray,
    mask: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Sums:
    """The sums of one case: forecast and observed (lead, y, x) in mm/h, NaN missing; mask (lead, y, x) bool.

    A pair counts where the mask (default: everywhere) is True and neither side is NaN. Values are compared with
    thresholds in their own precision, so a float32 0.1 is at the threshold 0.1. Sums are accumulated in float64.
    """
    forecast, observed = np.asarray(forecast), np.asarray(observed)
    if forecast.ndim != 3 or forecast.shape != observed.shape or (mask is not None and mask.shape != forecast.shape):
        raise ValueError(
            f"forecast {forecast.shape}, observed {observed.shape} and mask {np.shape(mask)} must be one (lead, y, x)"
        )
    total = Sums.zeros(len(forecast), thresholds)  # filled lead by lead: temporaries of one frame
    for lead in range(len(forecast)):
        known = ~(np.isnan(forecast[lead]) | np.isnan(observed[lead]))
        if mask is not None:
            known &= mask[lead]
        if known.all():
            f, o = forecast[lead].ravel(), observed[lead].ravel()
        else:
            f, o = (np.compress(known.ravel(), side[lead].ravel()) for side in (forecast, observed))  # fast [known]
        _count(total, lead, f, o)
        _accumulate(total, lead, f.astype(np.float64), o.astype(np.float64))
    return total


def _count(total: Sums, lead: int, f: np.ndarray, o: np.ndarray) -> None:
    total.num_pairs[lead] = f.size
    total.num_cases[lead] = f.size > 0
    for column, threshold in enumerate(total.thresholds):
        forecast_event, observed_event = f >= threshold, o >= threshold
        num_forecast, num_observed = np.count_nonzero(forecast_event), np.count_nonzero(observed_event)
        hits = np.count_nonzero(forecast_event & observed_event)
        total.hits[lead, column] = hits
        total.misses[lead, column] = num_observed - hits
        total.false_alarms[lead, column] = num_forecast - hits
        total.correct_negatives[lead, column] = f.size - num_forecast - num_observed + hits


def _accumulate(total: Sums, lead: int, f: np.ndarray, o: np.ndarray) -> None:
    """Products then a pairwise sum: as fast as one thread's dot product, more accurate, the same on every machine."""
    work = f - o
    total.sum_error[lead] = work.sum()
    total.sum_sq_error[lead] = np.multiply(work, work).sum()
    total.sum_abs_error[lead] = np.abs(work, out=work).sum()
    total.sum_f[lead] = f.sum()
    total.sum_o[lead] = o.sum()
    total.sum_ff[lead] = np.multiply(f, f, out=work).sum()
    total.sum_oo[lead] = np.multiply(o, o, out=work).sum()
    total.sum_fo[lead] = np.multiply(f, o, out=work).sum()


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator in float64, NaN where the denominator is 0."""
    numerator, denominator = np.float64(numerator), np.float64(denominator)
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator != 0)


def _table(s: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The counts as float64: products of counts overflow int64."""
    return tuple(getattr(s, name).astype(np.float64) for name in _COUNTS)


def csi(s: Sums) -> np.ndarray:
    """Critical success index: hits / (hits + misses + false alarms). Range 0 to 1, best 1.

    Also: threat score, Jaccard index. NaN where there is no event on either side. Gilbert (1884).
    """
    return _ratio(s.hits, s.hits + s.misses + s.false_alarms)


def pod(s: Sums) -> np.ndarray:
    """Probability of detection: hits / (hits + misses). Range 0 to 1, best 1.

    Also: hit rate, recall, sensitivity. NaN where nothing was observed. Wilks (2019), ch. 9.
    """
    return _ratio(s.hits, s.hits + s.misses)


def far(s: Sums) -> np.ndarray:
    """False alarm ratio: false alarms / (hits + false alarms). Range 0 to 1, best 0.

    Also: 1 - precision; not the false alarm rate (pofd). NaN where nothing was forecast. Wilks (2019), ch. 9.
    """
    return _ratio(s.false_alarms, s.hits + s.false_alarms)


def pofd(s: Sums) -> np.ndarray:
    """Probability of false detection: false alarms / (false alarms + correct negatives). Range 0 to 1, best 0.

    Also: false alarm rate. NaN where everything observed was an event. Wilks (2019), ch. 9.
    """
    return _ratio(s.false_alarms, s.false_alarms + s.correct_negatives)


def frequency_bias(s: Sums) -> np.ndarray:
    """Events forecast / events observed: (hits + false alarms) / (hits + misses). Range 0 to infinity, best 1.

    NaN where nothing was observed. Wilks (2019), ch. 9.
    """
    return _ratio(s.hits + s.false_alarms, s.hits + s.misses)


def hss(s: Sums) -> np.ndarray:
    """Heidke skill score: 2 (ad - bc) / ((a + c)(c + d) + (a + b)(b + d)). Range -1 to 1, best 1.

    a hits, b false alarms, c misses, d correct negatives. Also: Cohen's kappa. NaN where both sides are events
    everywhere or nowhere. Heidke (1926).
    """
    a, c, b, d = _table(s)
    return _ratio(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d))


def hk(s: Sums) -> np.ndarray:
    """Hanssen-Kuipers discriminant: pod - pofd. Range -1 to 1, best 1.

    Also: Peirce skill score, true skill statistic. NaN where pod or pofd is. Hanssen & Kuipers (1965).
    """
    return pod(s) - pofd(s)


def ets(s: Sums) -> np.ndarray:
    """Equitable threat score: (hits - r) / (hits + misses + false alarms - r). Range -1/3 to 1, best 1.

    r = (hits + misses)(hits + false alarms) / all pairs, the hits expected by chance. Also: Gilbert skill score. NaN
    where both sides are events everywhere or nowhere. Hogan et al. (2010).
    """
    a, c, b, d = _table(s)
    # multiplied by the number of pairs: (a + b + c) n - (a + c)(a + b) without rounding of the quotient r
    return _ratio(a * d - b * c, a * d - b * c + (b + c) * (a + b + c + d))


def f1(s: Sums) -> np.ndarray:
    """F1: 2 hits / (2 hits + misses + false alarms). Range 0 to 1, best 1.

    Also: Dice coefficient; 2 csi / (1 + csi). NaN where there is no event on either side. Dice (1945).
    """
    return _ratio(2 * s.hits, 2 * s.hits + s.misses + s.false_alarms)


def mae(s: Sums) -> np.ndarray:
    """Mean absolute error, mm/h: mean of |f - o|. Range 0 to infinity, best 0.

    NaN without pairs. Wilks (2019), ch. 9.
    """
    return _ratio(s.sum_abs_error, s.num_pairs)


def mse(s: Sums) -> np.ndarray:
    """Mean squared error, (mm/h)^2: mean of (f - o)^2. Range 0 to infinity, best 0.

    The "Rainfall-MSE" of Shi et al. (2015). NaN without pairs. Wilks (2019), ch. 9.
    """
    return _ratio(s.sum_sq_error, s.num_pairs)


def rmse(s: Sums) -> np.ndarray:
    """Root mean squared error, mm/h: the root of mse over all pairs. Range 0 to infinity, best 0.

    Not a mean of the roots of cases. NaN without pairs. Wilks (2019), ch. 9.
    """
    return np.sqrt(mse(s))


def bias(s: Sums) -> np.ndarray:
    """Mean error, mm/h: mean of f - o, positive where too much is forecast. Range all numbers, best 0.

    Also: additive bias; not frequency_bias. NaN without pairs. Wilks (2019), ch. 9.
    """
    return _ratio(s.sum_error, s.num_pairs)


def correlation(s: Sums) -> np.ndarray:
    """Pearson correlation over all pairs. Range -1 to 1, best 1. NaN without pairs or where a side is constant.

    A variance under 1e-12 of the mean square is the rounding of a constant: float32 data cannot vary by less.
    Pearson (1895).
    """
    num_pairs = np.float64(s.num_pairs)
    covariance = s.sum_fo - _ratio(s.sum_f * s.sum_o, num_pairs)
    variances = []
    for total, squares in ((s.sum_f, s.sum_ff), (s.sum_o, s.sum_oo)):
        variance = squares - _ratio(total * total, num_pairs)
        variances.append(np.where(variance > 1e-12 * squares, variance, 0))
    return np.clip(_ratio(covariance, np.sqrt(variances[0]) * np.sqrt(variances[1])), -1, 1)


def uncentred_correlation(s: Sums) -> np.ndarray:
    """sum(fo) / sqrt(sum(ff) sum(oo)), the "correlation" of Shi et al. (2015). Range -1 to 1 (rain: from 0), best 1.

    Also: cosine similarity. NaN where a side is 0 everywhere.
    """
    return np.clip(_ratio(s.sum_fo, np.sqrt(s.sum_ff) * np.sqrt(s.sum_oo)), -1, 1)


@dataclass(frozen=True)
class Score:
    """One score: called with sums it gives (lead, threshold) where `needs_threshold`, else (lead,)."""

    function: Callable[[Sums], np.ndarray]
    long_name: str
    range: tuple[float, float]
    best: float
    needs_threshold: bool
    units: str = "1"

    def __call__(self, s: Sums) -> np.ndarray:
        return self.function(s)

    def mean_over_leads(self, s: Sums) -> np.ndarray:
        """The mean of the scores of each lead, (threshold,) or (); NaN if any lead's score is. Not the pooled score."""
        return self.function(s).mean(axis=-2 if self.needs_threshold else -1)


_INF = float("inf")
SCORES = {
    "csi": Score(csi, "critical success index", (0, 1), 1, True),
    "pod": Score(pod, "probability of detection", (0, 1), 1, True),
    "far": Score(far, "false alarm ratio", (0, 1), 0, True),
    "pofd": Score(pofd, "probability of false detection", (0, 1), 0, True),
    "frequency_bias": Score(frequency_bias, "frequency bias", (0, _INF), 1, True),
    "hss": Score(hss, "Heidke skill score", (-1, 1), 1, True),
    "hk": Score(hk, "Hanssen-Kuipers discriminant", (-1, 1), 1, True),
    "ets": Score(ets, "equitable threat score", (-1 / 3, 1), 1, True),
    "f1": Score(f1, "F1 score", (0, 1), 1, True),
    "mae": Score(mae, "mean absolute error", (0, _INF), 0, False, "mm h-1"),
    "mse": Score(mse, "mean squared error", (0, _INF), 0, False, "mm2 h-2"),
    "rmse": Score(rmse, "root mean squared error", (0, _INF), 0, False, "mm h-1"),
    "bias": Score(bias, "mean error", (-_INF, _INF), 0, False, "mm h-1"),
    "correlation": Score(correlation, "Pearson correlation", (-1, 1), 1, False),
    "uncentred_correlation": Score(uncentred_correlation, "uncentred correlation", (-1, 1), 1, False),
}


def interval(
    block_sums: Sequence[Sums],
    score: str | Callable[[Sums], np.ndarray],
    *,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of a score, in its shape, by the percentile block bootstrap over events or days.

    `score` is a name in SCORES or any function of sums that uses the last axes: `SCORES["csi"].mean_over_leads`.
    Blocks without pairs are no blocks; fewer than MIN_BLOCKS give NaN, and so does a score that is undefined in more
    than MAX_UNDEFINED of the resamples. Efron & Tibshirani (1993), ch. 13.
    """
    return intervals(block_sums, [score], num_samples=num_samples, seed=seed, level=level)[0]


def intervals(
    block_sums: Sequence[Sums],
    scores: Sequence[str | Callable[[Sums], np.ndarray]],
    *,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The `interval` of each of several scores, from one resampling."""
    functions = [SCORES[score] if isinstance(score, str) else score for score in scores]
    resampled = _resample([block_sums], num_samples=num_samples, seed=seed)
    if resampled is None:
        return [_nowhere(function, block_sums) for function in functions]
    return [_quantiles(function(resampled[0]), level) for function in functions]


def difference_interval(
    blocks_a: Sequence[Sums],
    blocks_b: Sequence[Sums],
    score: str | Callable[[Sums], np.ndarray],
    *,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of score(a) - score(b), paired: both sides are resampled with the same blocks. See `interval`.

    Raises ValueError if the sides do not hold the same blocks under one mask (as many pairs in each).
    """
    score = SCORES[score] if isinstance(score, str) else score
    if len(blocks_a) != len(blocks_b):
        raise ValueError(f"{len(blocks_a)} blocks cannot be paired with {len(blocks_b)}")
    for a, b in zip(blocks_a, blocks_b, strict=True):
        _require_alike(a, b)
        if not np.array_equal(a.num_pairs, b.num_pairs):
            raise ValueError("the blocks of a paired difference must be scored on the same pairs")
    resampled = _resample([blocks_a, blocks_b], num_samples=num_samples, seed=seed)
    if resampled is None:
        return _nowhere(score, blocks_a)
    return _quantiles(score(resampled[0]) - score(resampled[1]), level)


def _resample(sides: Sequence[Sequence[Sums]], *, num_samples: int, seed: int) -> list[Sums] | None:
    """Each side's sums with a leading axis of resamples, drawn alike; None with too few blocks."""
    sides = [[block for block in blocks if block.num_pairs.any()] for blocks in sides]
    num_blocks = len(sides[0])
    if num_blocks < MIN_BLOCKS:
        return None
    draws = np.random.default_rng(seed).multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), size=num_samples)
    draws = draws.astype(np.float64)  # float64: exact for counts to 2^53, and a matrix product
    resampled = []
    for blocks in sides:
        stacked = {name: np.stack([block.arrays()[name] for block in blocks]) for name in blocks[0].arrays()}
        arrays = {name: np.tensordot(draws, array.astype(np.float64), axes=1) for name, array in stacked.items()}
        resampled.append(Sums(blocks[0].thresholds, **arrays))
    return resampled


def _quantiles(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The central `level` of the values over axis 0, NaN where too many of them are undefined."""
    unknown = np.isnan(values)
    undefined = unknown.mean(axis=0) > MAX_UNDEFINED
    filled = np.where(undefined, 0, values)
    quantile = np.nanquantile if (unknown & ~undefined).any() else np.quantile  # 20 times as fast without NaN
    low, high = quantile(filled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def _nowhere(score: Callable[[Sums], np.ndarray], blocks: Sequence[Sums]) -> tuple[np.ndarray, np.ndarray]:
    nan = np.full(np.shape(score(blocks[0])) if len(blocks) else (), np.nan)
    return nan, nan.copy()
