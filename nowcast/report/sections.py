"""The parts of report.html, pictures and sections, and its sections on sums and members of ensembles."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from nowcast.evaluation.examples import Example
from nowcast.evaluation.member_examples import SUM_AMOUNTS
from nowcast.evaluation.result import Evaluation
from nowcast.report.diagrams import HIGHEST_RATIO, Style, draw_spectrum_ratio
from nowcast.report.maps import moment, svg
from nowcast.report.page_tables import Table, sum_tables
from nowcast.report.pictures.members import draw_fan, draw_members, draw_sums
from nowcast.report.probability_diagrams import draw_ranks, draw_reliability
from nowcast.scores.boxes import AMOUNTS, SUM_MINUTES
from nowcast.scores.ensemble import ensemble_size

_FORMATS = {b"GIF8": "gif", b"\x89PNG": "png"}


@dataclass(frozen=True)
class Picture:
    """An image in the page; a `wide` one has a row of its own."""

    title: str
    content: bytes
    wide: bool = False

    @property
    def source(self) -> str:
        """The image as a data URL."""
        kind = _FORMATS.get(self.content[:4], "svg+xml")
        return f"data:image/{kind};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Section:
    """A section of the page: heading, text, tables and groups of pictures.

    With `legend` it shows the colours of the forecasters; with `large` its pictures are wider; with `words` its tables hold
    texts, no numbers.
    """

    title: str
    text: str
    pictures: Sequence[Sequence[Picture]] = ()
    tables: Sequence[Table] = ()
    legend: bool = False
    large: bool = False
    words: bool = False


def drawn(title: str, figure: Figure) -> Picture:
    """Return a figure as a picture of the page."""
    return Picture(title, svg(figure))


def sums_section(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Iterable[Section]:
    """Yield the section on the rain of 30 and 60 minutes in boxes; nothing where no ensemble was scored."""
    minutes = max((m for m in SUM_MINUTES if evaluation.forecasters_with(f"members_{m}_min")), default=None)
    if minutes is None:
        return
    chances, members = ({name: evaluation.total(name, kind).pooled() for name in evaluation.forecasters_with(kind)}
                        for kind in (f"probabilities_{minutes}_min", f"members_{minutes}_min"))  # fmt: skip
    first = next(iter(members.values()))
    boxes = [(n, f"in boxes of {side:g} km" if side else "at cells") for n, side in enumerate(first.boxes_km)]
    boxes = [(n, where) for n, where in boxes if first.num_pairs[0, n]]
    groups = [
        [
            drawn(
                f"Reliability ≥ {amount:g} mm in {minutes} minutes, {where}",
                draw_reliability({name: each.of_box(n) for name, each in chances.items()}, AMOUNTS.index(amount), styles),
            )
            for n, where in boxes
        ]
        for amount in SUM_AMOUNTS
    ]
    ensembles = {name: sums for name, sums in members.items() if ensemble_size(sums.of_box(0))[0] > 1}
    groups.append([drawn(f"Ranks of {minutes} minutes, {where}: {name}", draw_ranks(sums.of_box(n), styles[name]))
                   for name, sums in ensembles.items() for n, where in boxes])  # fmt: skip
    text = (
        "Flood models take rain summed over time and area. Amounts are those of intervals that follow one another from the "
        "reference time on, at cells and as means over boxes; a box counts where all its cells are known throughout the "
        "interval. The probability of an amount is the fraction of members that reach it; a forecast without members counts as "
        "one member."
    )
    yield Section("Sums over time and area", text, groups, tables=sum_tables(evaluation, rows), legend=True)


def members_section(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Iterable[Section]:
    """Yield the section on the members of the example cases; nothing where no ensemble was scored."""
    examples = [example for example in evaluation.examples if example.members is not None]
    if not examples and not evaluation.forecasters_with("member_spectra"):
        return
    text = (
        "Each member is a possible course of the rain, coherent in space and time. Fans: the median of the members, and shaded "
        "the middle 50 % and 90 % of them; black is the observation. Power of members: 1 is as rough as the observed "
        f"rain, at every wavelength (axis cut off at {HIGHEST_RATIO:g}); the mean of the members is always smoother."
    )
    if evaluation.quantity.is_rain:
        text += " Probabilities of sums are fractions of members."
    ratio = [drawn("Power of members / observed power", draw_spectrum_ratio(rows, styles, score="member_spectrum_ratio"))]
    pictures = [group for example in examples for group in _of_example(example, evaluation, styles)]
    yield Section("Members", text, [*pictures, ratio], legend=True)


def _of_example(example: Example, evaluation: Evaluation, styles: Mapping[str, Style]) -> Iterable[Sequence[Picture]]:
    """Yield groups of pictures of the members of a case: maps, fans, probabilities of sums."""
    case, quantity, members = f"The {example.rank} case", evaluation.quantity, example.members
    yield [Picture(f"{case}, from {moment(example.case.reference)}: members", draw_members(example, quantity), wide=True)]
    yield [
        drawn(f"{case}: {name}, {fan.place}", draw_fan(fan, name, members.lead_minutes, styles[name], quantity.unit))
        for name in members.fields
        for fan in members.fans
    ]
    if sums := draw_sums(example, quantity):
        yield [Picture(f"{case}: probabilities of {members.sum_minutes} minutes' rain", sums, wide=True)]
