"""Scores of the rain of 30 and 60 minutes at cells and in boxes: by hand, and beside the sums added up by themselves."""

import numpy as np
import pytest
from makers.ensembles import NAN, ensemble, ensemble_sums

from nowcast.scores import SCORES
from nowcast.scores.boxes import AMOUNTS, BOXES_KM, BoxSums, box_cells, box_means, left_out
from nowcast.scores.ensemble import rank_histogram


def box_sums(members, observed, *, step=10.0, spacing=(10.0, 5.0), most_members=None):
    """The sums of one case by kind: members (member, lead, y, x) and observed (lead, y, x), mm/h."""
    sums = BoxSums(len(observed), step, spacing, most_members=most_members or len(members))
    for lead, field in enumerate(observed):
        known = np.isfinite(field) & np.isfinite(members[:, lead]).all(axis=0)
        sums.add(lead, members[:, lead], field, known)
    return sums.kinds


def test_boxes_have_whole_cells_and_miss_what_has_a_missing_one():
    field = np.arange(30.0).reshape(5, 6)
    field[0, 5] = NAN
    means = box_means(field[None], (2, 2))[0]
    assert means.shape == (2, 3)
    assert means[0, 0] == np.mean([0, 1, 6, 7])
    assert np.isnan(means).tolist() == [[False, False, True], [False, False, False]]
    assert box_means(field, (1, 1)) is field
    assert [box_cells(side, (1.0, 2.7)) for side in BOXES_KM] == [(1, 1), (10, 4), (40, 15)]


def test_the_scores_of_an_hour_by_hand():
    members = np.zeros((2, 6, 1, 2), np.float32)
    members[1, 3:] = 12  # mm/h for half an hour: 6 mm
    observed = np.full((6, 1, 2), 3, np.float32)  # 3 mm
    kinds = box_sums(members, observed)
    of_hour, of_half = kinds["members_60_min"], kinds["members_30_min"]
    assert (of_hour.ends, of_half.ends) == ((60.0,), (30.0, 60.0))
    assert of_hour.num_pairs.tolist() == [[2, 1, 0]]  # cells, boxes of 10 km, none of 40
    np.testing.assert_allclose(SCORES["sum_60_min_crps_fair"](of_hour), [[0, 0, NAN]])  # mean |error| 3, |6 - 0| / 2
    np.testing.assert_allclose(SCORES["sum_30_min_crps_fair"](of_half)[:, 0], [1.5, (1.5 + 4.5) / 2 - 3])
    np.testing.assert_allclose(SCORES["sum_60_min_spread"](of_hour)[0, :2], np.sqrt(1.5 * 18))
    np.testing.assert_allclose(SCORES["sum_60_min_mean_rmse"](of_hour)[0, :2], 0, atol=1e-6)
    chances = kinds["probabilities_60_min"]
    brier = SCORES["sum_60_min_brier"](chances)
    np.testing.assert_allclose(brier[0, 0], [0.25, 0.25, 0.25, 0.25, 0])  # of 0.5, 1, 2, 5 and 10 mm
    assert chances.num_whole_cases.tolist() == [1, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_they_are_the_scores_of_the_sums(seed):
    members, observed = ensemble(seed, (7, 4, 6), members=4, missing=0.01, levels=None)
    kinds = box_sums(members, observed)
    for minutes, leads in ((30, 3), (60, 6)):
        whole = 6 // leads
        amounts, truth = (
            each[..., :6, :, :].reshape(*each.shape[:-3], whole, leads, 4, 6).sum(axis=-3) / 6 for each in (members, observed)
        )
        for box, cells in enumerate([(1, 1), (1, 2)]):
            alone = ensemble_sums(box_means(amounts, cells), box_means(truth, cells), thresholds=AMOUNTS)
            found = kinds[f"members_{minutes}_min"].of_box(box), kinds[f"probabilities_{minutes}_min"].of_box(box)
            for ours, kind in zip(found, ("members", "probabilities"), strict=True):
                for name, array in alone[kind].arrays().items():
                    np.testing.assert_allclose(getattr(ours, name), array, rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(np.nansum(rank_histogram(kinds[f"members_{minutes}_min"])[:, :2], axis=-1), 1)


@pytest.mark.parametrize(("minutes", "leads"), [(30, 6), (60, 12)])
def test_a_sum_of_exactly_an_amount_reaches_it(minutes, leads):
    amounts = {0.5: 50, 1: 100, 2: 200, 5: 500, 10: 1000}  # mm, and the same in units of radars of 0.01 mm in 5 minutes
    assert tuple(amounts) == AMOUNTS
    shares = np.random.default_rng(0).multinomial(list(amounts.values()), np.ones(leads) / leads, size=(400, 5))
    rates = np.float32(0.12) * np.moveaxis(shares, -1, 0).astype(np.float32)  # mm/h
    kinds = box_sums(rates[None], rates, step=5.0)
    reached = kinds[f"probabilities_{minutes}_min"].of_box(0)
    np.testing.assert_array_equal(reached.num_observed[0].sum(axis=-1), [2000, 1600, 1200, 800, 400])
    assert kinds[f"members_{minutes}_min"].of_box(0).num_tied[0] == 2000


def test_a_mean_of_exactly_an_amount_reaches_it():
    boxes, cells = 200, 2 * 8  # boxes of 10 km, in steps of 0.05 mm/h for half an hour: cells differ, their means are 2 mm
    steps = np.random.default_rng(0).multinomial(cells * 80, np.ones(cells) / cells, size=boxes).reshape(boxes, 2, 8)
    rates = np.float32(0.05) * steps.transpose(1, 0, 2).reshape(2, boxes * 8).astype(np.float32)
    kinds = box_sums(rates[None, None], rates[None], step=30.0, spacing=(5.0, 1.25))
    reached = kinds["probabilities_30_min"].of_box(1)
    assert reached.num_observed[0].sum(axis=-1).tolist() == [boxes] * 3 + [0, 0]
    assert reached.num_forecast[0, 2, 100] == boxes
    assert kinds["members_30_min"].of_box(1).num_tied[0] == boxes


def test_a_case_counts_where_one_of_its_intervals_has_pairs():
    members, observed = np.zeros((2, 6, 4, 4), np.float32), np.zeros((6, 4, 4), np.float32)
    observed[4] = NAN  # in the second half hour
    for kind in ("members_30_min", "probabilities_30_min"):
        sums = box_sums(members, observed)[kind]
        assert sums.num_cases.tolist() == [[1, 1, 0], [0, 0, 0]]  # no box of 40 km fits
        assert sums.num_whole_cases.tolist() == [1, 1, 0]


def test_a_small_ensemble_has_the_ranks_of_a_large_one():
    members, observed = ensemble(0, (3, 4, 6), members=2)
    small, wide = (box_sums(members, observed, most_members=most)["members_30_min"] for most in (None, 5))
    assert wide.num_ranked.shape == (1, 3, 6)
    np.testing.assert_array_equal(wide.num_ranked[..., :3], small.num_ranked)


def test_what_does_not_fit_is_named():
    assert left_out((100, 100), 12, 5.0, (1.0, 1.0)) == []
    assert left_out((30, 100), 6, 5.0, (1.0, 1.0)) == [
        "no sums of 60 minutes, since lead times go every 5 minutes to 30",
        "no boxes of 40 km, since its grid is smaller",
    ]
    assert left_out((100, 100), 4, 20.0, (16.0, 16.0)) == [
        "no sums of 30 minutes, since lead times go every 20 minutes to 80",
        "no boxes of 10 km, since its cells are as large",
    ]
    assert left_out((9, 9), 12, 5.0, (NAN, NAN)) == [
        "no boxes of 10 km, since the size of its cells is unknown",
        "no boxes of 40 km, since the size of its cells is unknown",
    ]
    assert left_out((9, 9), 2, 5.0, (NAN, NAN)) == [
        "no sums of 30 minutes, since lead times go every 5 minutes to 10",
        "no sums of 60 minutes, since lead times go every 5 minutes to 10",
    ]
    assert list(box_sums(np.zeros((2, 2, 3, 3)), np.zeros((2, 3, 3)), spacing=(NAN, NAN))) == []
