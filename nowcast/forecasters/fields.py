"""Forecast fields and probabilities with a model and its transform: mm/h in, mm/h out, as tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nowcast.models.model import Model
from nowcast.models.transform import Transform, network_input


def forecast_rain(model: Model, transform: Transform, rain: Tensor, num_leads: int) -> Tensor:
    """Forecast with a model and its transform.

    rain: (case, time, y, x) mm/h, NaN missing
    returns: (case, lead, y, x) mm/h, NaN where every past frame is missing
    """
    return forecast_fields(model, transform, rain, num_leads)[:, :, 0]


def forecast_fields(
    model: Model,
    transform: Transform,
    rain: Tensor,
    num_leads: int,
    *,
    thresholds: Sequence[float] = (),
    matched: Tensor | None = None,
    **further: Tensor,
) -> Tensor:
    """Forecast fields and the probabilities of reaching each threshold, with a model and its transform.

    rain: (case, time, y, x) mm/h, NaN missing
    thresholds: mm/h; only for a DistributionModel
    matched: (case, lead, 2, value) of the model's `match` on a larger grid of which this is a tile; None: no tile
    further: what the model takes beside past frames, such as guidance
    returns: (case, lead, 1 + threshold, y, x), mm/h, then probabilities; NaN where every past frame is missing
    """
    past = network_input(rain, transform)
    encoded = transform.encode(torch.tensor(thresholds, dtype=torch.float32)).tolist() if thresholds else []
    pieces, lead = [], 0
    for outputs in model.leads(past, num_leads, **further):
        stop = lead + outputs.shape[1]
        own = model.matched(outputs, past, lead + 1) if matched is None else matched[:, lead:stop]
        field = transform.decode(model.values(outputs, past, first_lead=lead + 1, matched=own))[:, :, None]
        pieces.append(torch.cat([field, model.exceedance(outputs, encoded, own)], dim=2) if thresholds else field)
        lead = stop
    fields = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
    return torch.where(torch.isnan(rain).all(dim=1)[:, None, None], torch.nan, fields)
