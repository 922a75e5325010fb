"""scripts/skill/archives.py: cases on the right days, the cascade's correction, and the table with intervals over days."""

import json

import archive_table
import archives
import cascade
import numpy as np
import pytest
from makers import rain, write_record
from makers.ensembles import exceedance_sums
from scipy.special import expit

from nowcast.errors import DataError
from nowcast.forecasters.baselines import BASELINES, Persistence

DAY = np.datetime64("2020-06-03T00:00:00")  # day number 6
HOUR, MINUTE = np.timedelta64(3600, "s"), np.timedelta64(60, "s")
FRAMES = 18


class Halved(Persistence):
    """Stands for the forecasts of pysteps, which need not be installed."""

    def forecast_case(self, past, num_leads):
        return super().forecast_case(past, num_leads) / 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An archive of five cycles with rain on days 6 and 7 of each."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    for name in archives.KEPT:
        monkeypatch.setitem(BASELINES, name, Halved)
    monkeypatch.setattr(archives, "available", lambda: tuple(BASELINES))
    starts = [DAY + (10 * cycle + day) * 24 * HOUR for cycle in range(5) for day in (0, 1)]
    times = np.concatenate([start + 5 * MINUTE * np.arange(FRAMES) for start in starts])
    fields = np.concatenate([rain(frames=FRAMES, shape=(24, 28), seed=seed) for seed in range(len(starts))])
    (tmp_path / "archives" / "taasrad").mkdir(parents=True)
    write_record(tmp_path / "archives" / "taasrad" / "rain.nc", fields, times=list(times))
    return tmp_path


def call(folder, *words):
    archives.main(["--archive", "taasrad", "--archives", str(folder / "archives"), "--cases", "10", "--device", "cpu",
                   "--output", str(folder / "out"), *map(str, words)])  # fmt: skip
    return json.loads((folder / "out" / "archive.json").read_text())


@pytest.mark.slow
def test_a_table_of_all_forecasters_on_day_7_and_what_is_done_is_kept(folder, capsys, monkeypatch):
    found = call(folder)
    text = capsys.readouterr().out
    assert "# taasrad, day 7 of every ten: 10 cases on 5 days" in text
    assert (folder / "out" / "archive.md").read_text() == text[:-1]
    assert {"cascade", "persistence", "extrapolation", "pysteps", "sprog", "cascade ÷ sprog"} <= set(found["scores"])
    assert found["thresholds"] == list(cascade.THRESHOLDS)
    monkeypatch.setattr(archives, "predict", None)  # would fail if anything were forecast again
    monkeypatch.setattr(archives, "count", None)
    assert call(folder) == found


@pytest.mark.slow
def test_a_network_is_named_with_where_it_misses(folder, capsys):
    call(folder, "--network", "persistence")
    text = capsys.readouterr().out
    assert "**Where persistence misses what is asked of it**" in text
    assert "- CSI ≥ 1 mm/h ÷ cascade is" in text


def test_other_records_are_scored_on_days_8_and_9(folder, capsys):
    with pytest.raises(SystemExit) as caught:
        call(folder, "--test", folder / "archives" / "taasrad")
    assert caught.value.code == 3
    assert "no case of 4 + 12 frames, 1 % wet, on days 8 and 9 of every ten" in capsys.readouterr().err


def test_cases_are_on_days_of_the_number_and_wet(folder):
    record = archives.open_record(folder / "archives" / "taasrad")
    cases = archives.choose_cases(record, (7,), 100)
    assert len(cases.windows) == 5 * (FRAMES - 15)
    assert set(cases.references.astype("datetime64[D]").astype(int) % 10) == {7}
    past, future = cases.read(0)
    assert past.shape == (4, 24, 28)
    assert future.shape == (12, 24, 28)
    with pytest.raises(DataError, match="on days 3 of every ten"):
        archives.choose_cases(record, (3,), 100)


def test_cases_are_spread_over_the_days_and_within_each():
    days = np.repeat([1, 2, 3], [2, 10, 30])
    chosen = archives.spread_over_days(days, 14)
    assert np.bincount(days[chosen]).tolist() == [0, 2, 6, 6]
    assert np.flatnonzero(chosen)[8:].tolist() == [14, 19, 24, 29, 34, 39]
    assert archives.spread_over_days(days, 100).all()
    assert np.bincount(days[archives.spread_over_days(days, 2)]).tolist() == [0, 1, 0, 1]


def counted(intercept, slope, seed=0, cells=400_000):
    """Counts (bin, 2) of log-odds whose true ones are intercept + slope z."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 2, cells)
    event = rng.random(cells) < expit(intercept + slope * z)
    bins = ((z + cascade.LIMIT) / cascade.WIDTH).astype(int).clip(0, len(cascade.CENTRES) - 1)
    return np.bincount(2 * bins + event, minlength=2 * len(cascade.CENTRES)).reshape(-1, 2)


def test_the_correction_is_what_the_odds_were_distorted_by():
    assert cascade.logistic_regression(counted(-0.5, 0.7)) == pytest.approx((-0.5, 0.7), abs=0.02)
    assert cascade.logistic_regression(counted(0, 1) * 0) == pytest.approx((0, 1))


def test_as_many_cells_reach_the_cut_as_there_are_events():
    counts = counted(-0.5, 0.7)
    cut = cascade.unbiased_cut(counts)
    above = counts[cut < cascade.CENTRES].sum()
    assert above == pytest.approx(counts[:, 1].sum(), rel=0.05)
    assert cascade.unbiased_cut(counts * [1, 0]) > cascade.LIMIT  # no event: never


def test_few_events_lean_on_their_neighbours():
    counts = np.zeros((3, 2, len(cascade.CENTRES), 2))
    counts[0, 0], counts[2, 0] = counted(0, 1, cells=40_000), counted(0, 1, seed=1, cells=40_000)
    events, kept = counts[..., 1].sum(axis=-1), cascade.with_neighbours(counts)[..., 1].sum(axis=-1)
    next_lead, lead_after = np.exp(-1 / cascade.LEAD_RANGE), np.exp(-2 / cascade.LEAD_RANGE)
    assert kept[0, 0] == pytest.approx(events[0, 0] + lead_after * events[2, 0])
    assert kept[1, 0] == pytest.approx(next_lead * (events[0, 0] + events[2, 0]))
    assert kept[:, 1] == pytest.approx([cascade.THRESHOLDS_WORTH] * 3)
    cut = cascade.calibrate(counts).cut
    assert cut == pytest.approx(np.full_like(cut, cut[0, 0]), abs=0.1)


def test_cells_are_counted_by_log_odds_and_event():
    odds = np.full((1, len(cascade.THRESHOLDS), 1, 3), -1.0, np.float32)
    odds[0, :, 0, 2] = np.nan
    counts = cascade.count(odds, np.array([[[0.7, 0.0, 3.0]]], np.float32))
    at = int((cascade.LIMIT - 1.0) / cascade.WIDTH)
    assert counts.sum() == 2 * len(cascade.THRESHOLDS)
    assert counts[0, 1, at].tolist() == [1, 1]  # 0.7 mm/h reaches 0.5
    assert counts[0, 2, at].tolist() == [2, 0]


def test_the_rate_is_the_highest_reached_and_linear_between():
    margins = np.full((len(cascade.THRESHOLDS), 1, 4), -1.0)
    margins[0, 0, 1:] = 1.0
    margins[1, 0, 1] = -1.0  # half way from 0.1 to 0.5
    margins[:3, 0, 2] = 1.0
    margins[:, 0, 3] = 2.0
    assert cascade.rain_rate(margins).ravel().tolist() == pytest.approx([0, 0.3, 1.5, 50])
    margins[:, 0, 0] = np.nan
    assert np.isnan(cascade.rain_rate(margins)[0, 0])


def test_crps_is_the_integral_of_the_brier_score():
    probabilities = np.array([0.5, 0.25, 0.0]).reshape(3, 1, 1, 1)
    tally = exceedance_sums(probabilities, np.array([[[2.0]]]), thresholds=(1.0, 2.0, 4.0))
    # Brier scores .25, .5625 and 0 over 0 to 1.5, 1.5 to 3 and 3 to 4 mm/h
    assert archive_table.crps(tally) == pytest.approx(0.25 * 1.5 + 0.5625 * 1.5)
