"""Implement `nowcast series`: read places, open records and forecasts, write the rain at the places."""

from collections.abc import Sequence
from pathlib import Path

from nowcast.errors import UsageError
from nowcast.prediction.areas import read_areas
from nowcast.prediction.gauges import read_gauges, require_own_names
from nowcast.prediction.series import Series, Span, Wanted, make_series, open_sources
from nowcast.prediction.series_files import check_output, write_series
from nowcast.runtime.outputs import may_write


def write_places(
    inputs: Sequence[str],
    output: Path,
    at: Sequence[str],
    areas: Sequence[str],
    *,
    sums: tuple[int, ...] = (),
    thresholds: tuple[float, ...] | None = None,
    span: Span = (None, None),
    variable: str | None = None,
    units: str | None = None,
    overwrite: bool = False,
) -> list[Series]:
    """Write the rain at gauges and of areas, of records and forecasts; return what was written.

    sums: minutes; span: of frames and reference times
    thresholds: mm/h, by default those of the first forecast with probabilities

    Raises UsageError (exit 2) for arguments that make no sense, and the errors of `prediction.series`.
    """
    check_output(output)
    if span[0] is not None and span[1] is not None and span[0] > span[1]:
        raise UsageError(f"--start {span[0]} is after --end {span[1]}")
    places = [*read_gauges(at), *(place for path in areas for place in read_areas(path))]
    require_own_names(places)
    may_write(output, overwrite=overwrite)
    sources = open_sources(inputs, variable=variable, units=units)
    may_write(output, overwrite=overwrite, inputs=[*sources.files, *map(Path, areas), *map(Path, at)])
    wanted = Wanted(sums, sources.thresholds if thresholds is None else thresholds, span)
    series = make_series(sources, places, wanted)
    write_series(series, output, overwrite=overwrite)
    return series
