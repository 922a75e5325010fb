"""The network adds its correction to guidance; without one it is the guidance, corrected by intercept and slope."""

import numpy as np
import pytest
import torch
from makers.models import build

from nowcast.models.guided.guidance import LARGEST, MISSING, RATES, STEPS, VALUES
from nowcast.models.guided.network import LEAST_ENTROPY, MOST_LEADS, Guided, GuidedConfig

GENERATOR = torch.Generator()


def untrained():
    model = Guided(GuidedConfig(hidden_channels=(3,), kernel_sizes=(3,), patch=2)).eval()
    with torch.no_grad():
        for buffer in (model.intercept, model.slope, model.cuts):
            buffer += 0.5 * torch.randn(buffer.shape, generator=GENERATOR.manual_seed(1))
    return model


def inputs(leads=3, grid=(9, 10), seed=0):
    """Past frames and guidance of two cases, with missing cells."""
    GENERATOR.manual_seed(seed)
    past = torch.rand(2, 2, 2, *grid, generator=GENERATOR)
    coded = torch.randint(-60, 20, (2, leads, len(RATES), *grid), generator=GENERATOR, dtype=torch.int8)
    coded.masked_fill_(torch.rand(2, leads, 1, *grid, generator=GENERATOR) < 0.1, MISSING)
    return past, coded


def expected(model, coded):
    rows = [min(lead, MOST_LEADS - 1) for lead in range(coded.shape[1])]
    intercept, slope = (buffer[rows][..., None, None].double() for buffer in (model.intercept, model.slope))
    return torch.where(coded == MISSING, torch.nan, intercept + slope * coded.double() / STEPS)


def test_untrained_it_is_the_corrected_guidance():
    model, (past, coded) = untrained(), inputs()
    outputs = model(past, 3, guidance=coded)
    torch.testing.assert_close(outputs.double(), expected(model, coded), rtol=1e-6, atol=1e-6, equal_nan=True)
    for mode in (model.train(), model.eval()):
        torch.testing.assert_close(mode(past + 1, 3, guidance=coded), outputs, rtol=0, atol=0, equal_nan=True)


def test_outputs_are_missing_where_guidance_is_and_nowhere_else():
    model, (past, coded) = build("guided"), inputs()
    outputs = model(past, 3, guidance=coded)
    assert torch.equal(outputs.isnan(), coded == MISSING)
    outputs.nan_to_num(0.0).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_the_correction_depends_on_past_and_guidance():
    model, (past, coded) = build("guided").eval(), inputs()
    changed = coded.clone()
    changed[:, 0, 0, 4, 4] = LARGEST
    with torch.no_grad():
        outputs, of_past, of_guidance = (
            model(p, 3, guidance=g) for p, g in ((past, coded), (past + 1, coded), (past, changed))
        )
    assert not torch.equal(of_past.nan_to_num(0), outputs.nan_to_num(0))
    apart = (of_guidance - outputs).nan_to_num(0)[:, 2]
    assert apart[..., 2:7, 2:7].abs().max() > 0, "it is fed guidance of earlier leads"


def test_only_forecasts_trust_a_part_of_the_correction():
    past, coded = inputs()
    found = {}
    for trust in (0.25, 0.5, 1.0):
        model = build("guided", trust=trust)
        with torch.no_grad():
            found[trust] = model.eval()(past, 3, guidance=coded)
            learnt = model.train()(past, 3, guidance=coded)
    torch.testing.assert_close(learnt, found[1.0], equal_nan=True)
    bare = expected(model, coded).float()
    assert (learnt - bare).nan_to_num(0).abs().max() > 0.05
    for trust in (0.25, 0.5):
        torch.testing.assert_close(found[trust] - bare, trust * (learnt - bare), rtol=1e-4, atol=1e-5, equal_nan=True)


def test_leads_come_one_by_one_as_they_come_together():
    model, (past, coded) = build("guided").eval(), inputs()
    together = model(past, 3, guidance=coded)  # where gradients are asked for
    with torch.no_grad():
        pieces = list(model.leads(past, 3, guidance=coded))
    assert [piece.shape[1] for piece in pieces] == [1, 1, 1]
    torch.testing.assert_close(torch.cat(pieces, dim=1), together.detach(), equal_nan=True)


def test_later_leads_have_the_correction_and_the_cuts_of_the_last():
    model, (past, coded) = untrained(), inputs(leads=MOST_LEADS + 3, grid=(2, 4))
    with torch.no_grad():
        outputs = model(past, MOST_LEADS + 3, guidance=coded)
    torch.testing.assert_close(outputs.double(), expected(model, coded), rtol=1e-6, atol=1e-6, equal_nan=True)
    whole = model.values(outputs, past)
    for lead in (0, 1, MOST_LEADS - 1, MOST_LEADS, MOST_LEADS + 2):
        one = model.values(outputs[:, lead : lead + 1], past, first_lead=lead + 1)
        torch.testing.assert_close(one, whole[:, lead : lead + 1], rtol=0, atol=0, equal_nan=True)
    model.cuts[-1] = 1e4
    assert (model.values(outputs, past)[:, MOST_LEADS - 1 :].nan_to_num(0) == 0).all()


def test_log_odds_are_the_outputs_at_the_rates_and_straight_between():
    model, outputs = untrained(), torch.randn(1, 2, len(RATES), 3, 4)
    for number, value in enumerate(VALUES):
        assert torch.equal(model.log_odds(outputs, value), outputs[:, :, number])
        assert torch.equal(model.loss_input(outputs).log_odds(value), outputs[:, :, number])
    middle = model.log_odds(outputs, (VALUES[2] + VALUES[3]) / 2)
    torch.testing.assert_close(middle, (outputs[:, :, 2] + outputs[:, :, 3]) / 2)
    above = model.log_odds(outputs, 2 * VALUES[-1] - VALUES[-2])
    torch.testing.assert_close(above, 2 * outputs[:, :, -1] - outputs[:, :, -2])


def test_probabilities_never_increase_with_the_value():
    model, outputs = untrained(), torch.randn(1, 2, len(RATES), 30, 40)
    outputs[:, :, :, 0, 0] = torch.nan
    values = sorted([*VALUES, *np.linspace(0.02, 0.95, 12)])
    found = model.exceedance(outputs, values)
    assert found.shape == (1, 2, len(values), 30, 40)
    assert torch.equal(found.isnan(), outputs[:, :, :1].isnan().expand_as(found))
    assert (found.nan_to_num(0).diff(dim=2) <= 1e-7).all()
    torch.testing.assert_close(model.exceedance(outputs, VALUES[:1])[:, :, 0], outputs[:, :, 0].sigmoid(), equal_nan=True)


def test_the_value_is_the_highest_reached_and_linear_between():
    model, margins = untrained(), torch.full((1, 1, len(RATES), 1, 6), -1.0)
    margins[0, 0, :1, 0, 1:] = 1.0  # half way from the first to the second
    margins[0, 0, :3, 0, 2] = 1.0
    margins[0, 0, :, 0, 3] = 2.0
    margins[0, 0, 2:, 0, 4] = 5.0  # higher ones are reached, but not the second
    margins[0, 0, :, 0, 5] = torch.nan
    values = model.values(model.cuts[:1, :, None, None] + margins, torch.zeros(1))
    half = [(VALUES[n] + VALUES[n + 1]) / 2 for n in (0, 2)]
    assert values[0, 0, 0, :5].tolist() == pytest.approx([0, half[0], half[1], VALUES[-1], half[0]], abs=1e-5)
    assert values[0, 0, 0, 5].isnan()
    other_cuts = model.cuts[:1] + 2
    matched = torch.stack([other_cuts, other_cuts - 9], dim=1)[None]  # cuts, and shifts, which are for probabilities alone
    found = model.values(other_cuts[..., None, None] + margins, torch.zeros(1), matched=matched)
    torch.testing.assert_close(found, values, equal_nan=True)


def test_the_correction_is_fitted_to_counts():
    rng, model = np.random.default_rng(0), untrained()
    counts = np.zeros((2, len(RATES), 2 * LARGEST + 1, 2), np.int64)
    codes = rng.integers(-60, 20, 200_000)
    for rate in range(len(RATES) - 1):
        chance = 1 / (1 + np.exp(0.5 + rate / 4 - 0.7 * codes / STEPS))
        index = 2 * (codes + LARGEST) + (rng.random(codes.size) < chance)
        counts[:, rate] = np.bincount(index, minlength=4 * LARGEST + 2).reshape(-1, 2)
    model.correct_guidance(counts)
    assert model.intercept[0, :-1].tolist() == pytest.approx([-0.5 - rate / 4 for rate in range(len(RATES) - 1)], abs=0.05)
    assert model.slope[0, :-1].tolist() == pytest.approx([0.7] * (len(RATES) - 1), abs=0.03)
    assert torch.equal(model.intercept[1:], model.intercept[1:2].expand(MOST_LEADS - 1, -1))
    assert (model.entropy >= LEAST_ENTROPY).all()
    assert torch.equal(model.reference_entropy(VALUES[3]), model.entropy[3])
    coded = torch.from_numpy(codes[:10_000].astype(np.int8)).reshape(1, 1, 1, 100, 100).expand(-1, -1, len(RATES), -1, -1)
    with torch.no_grad():
        outputs = model(torch.zeros(1, 2, 2, 100, 100), 1, guidance=coded)
    for rate in range(3):
        forecast = (outputs[:, :, rate] >= model.cuts[0, rate]).float().mean()
        assert forecast == pytest.approx(counts[0, rate, :, 1].sum() / codes.size, rel=0.1)
