"""scripts/skill/archives.py: cases on the right days, the cascade's correction, and the table with intervals over days."""

import json

import archive_table
import archives
import cascade
import numpy as np
import pytest
from makers import rain, write_record
from makers.ensembles import exceedance_sums

from nowcast.errors import DataError
from nowcast.forecasters.baselines import BASELINES, Persistence
from nowcast.models.checkpoint import read_checkpoint
from nowcast.models.guided.calibration import GUIDANCE_CENTRES

DAY = np.datetime64("2020-06-03T00:00:00")  # day number 6
HOUR, MINUTE = np.timedelta64(3600, "s"), np.timedelta64(60, "s")
FRAMES = 18


class Halved(Persistence):
    """Stands for the forecasts of pysteps, which need not be installed."""

    def forecast_case(self, past, num_leads):
        return super().forecast_case(past, num_leads) / 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An archive of five cycles with rain on days 2, 6 and 7 of each."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    for name in archives.KEPT:
        monkeypatch.setitem(BASELINES, name, Halved)
    monkeypatch.setattr(archives, "available", lambda: tuple(BASELINES))
    starts = [DAY + (10 * cycle + day) * 24 * HOUR for cycle in range(5) for day in (-4, 0, 1)]
    times = np.concatenate([start + 5 * MINUTE * np.arange(FRAMES) for start in starts])
    fields = np.concatenate([rain(frames=FRAMES, shape=(24, 28), seed=seed) for seed in range(len(starts))])
    (tmp_path / "archives" / "taasrad").mkdir(parents=True)
    write_record(tmp_path / "archives" / "taasrad" / "rain.nc", fields, times=list(times))
    return tmp_path


def call(folder, *words, network="none"):
    words = (*words, *(("--network", network) if network else ()))
    archives.main(["--archive", "taasrad", "--archives", str(folder / "archives"), "--cases", "5", "--device", "cpu",
                   "--output", str(folder / "out"), *map(str, words)])  # fmt: skip
    return json.loads((folder / "out" / "archive.json").read_text())


@pytest.mark.slow
def test_a_table_of_all_forecasters_on_day_7_and_what_is_done_is_kept(folder, capsys, monkeypatch):
    found = call(folder)
    text = capsys.readouterr().out
    assert "# taasrad, day 7 of every ten: 5 cases on 5 days" in text
    assert (folder / "out" / "archive.md").read_text() == text[:-1]
    assert {"cascade", "persistence", "extrapolation", "pysteps", "sprog", "cascade ÷ sprog"} <= set(found["scores"])
    assert found["thresholds"] == list(cascade.THRESHOLDS)
    monkeypatch.setattr(archives, "predict", None)  # would fail if anything were forecast again
    monkeypatch.setattr(archives, "count", None)
    assert call(folder) == found


@pytest.mark.slow
def test_a_network_is_named_with_where_it_misses(folder, capsys):
    call(folder, network="persistence")
    text = capsys.readouterr().out
    assert "**Goals that persistence misses**" in text
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


def test_the_cascade_is_the_guidance_cut_so_that_as_many_cells_are_forecast_as_were_observed():
    cases = [rain(frames=7, shape=(40, 44), seed=seed) for seed in range(3)]
    counts = sum(cascade.count(case[:4], case[4:]) for case in cases)
    assert counts.shape == (3, len(cascade.THRESHOLDS), len(GUIDANCE_CENTRES), 2)
    made = cascade.Cascade(cascade.calibrated(counts))
    field, chances = made.forecast_and_exceedance(np.stack([case[:4] for case in cases]), 3, cascade.THRESHOLDS)
    np.testing.assert_array_equal(made.forecast(np.stack([case[:4] for case in cases]), 3), field)
    observed = np.stack([case[4:] for case in cases])
    known = ~np.isnan(field)
    assert 0.7 < known.mean() < 1
    for number, threshold in enumerate(cascade.THRESHOLDS[:5]):
        reached = (observed >= threshold) & known
        assert (field >= threshold)[known].sum() == pytest.approx(reached.sum(), rel=0.1), threshold
        assert chances[:, :, number][known].sum() == pytest.approx(reached.sum(), rel=0.1), threshold


@pytest.mark.slow
def test_counts_of_an_earlier_version_are_counted_anew(folder):
    cases = archives.choose_cases(archives.open_record(folder / "archives" / "taasrad"), (6,), 2)
    first = archives.cascade_of(cases, folder / "counts.npz")
    with np.load(folder / "counts.npz") as kept:
        np.savez(folder / "counts.npz", **{**kept, "counts": kept["counts"][:, :, ::2]})
    again = archives.cascade_of(cases, folder / "counts.npz")
    assert first.slope.tolist() == again.slope.tolist()


@pytest.mark.slow
def test_a_network_is_trained_where_none_is_named_and_goes_on_where_it_was(folder, capsys):
    model = ("model.hidden_channels=[3]", "model.kernel_sizes=[3]", "model.input_kernel_sizes=[1]")
    short = ("training.steps=2", "training.batch_size=2", "training.validation_cases=2", "training.validate_every=1")
    words = [word for setting in ("data.kept_cases=4", *model, *short) for word in ("--set", setting)]
    found = call(folder, *words, network=None)
    assert "CSI ≥ 1 mm/h ÷ cascade" in capsys.readouterr().out
    assert "taasrad_run" in found["scores"]
    checkpoint = read_checkpoint(folder / "out" / "taasrad_run")
    assert checkpoint.metadata["config"]["model"]["grid"] == [24, 28]
    assert checkpoint.metadata["spans"]["training"][0][1].startswith("2020-05-30")
    assert call(folder, *words, network=None) == found


def test_crps_is_the_integral_of_the_brier_score():
    probabilities = np.array([0.5, 0.25, 0.0]).reshape(3, 1, 1, 1)
    tally = exceedance_sums(probabilities, np.array([[[2.0]]]), thresholds=(1.0, 2.0, 4.0))
    # Brier scores .25, .5625 and 0 over 0 to 1.5, 1.5 to 3 and 3 to 4 mm/h
    assert archive_table.crps(tally) == pytest.approx(0.25 * 1.5 + 0.5625 * 1.5)
