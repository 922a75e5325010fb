"""Choose the recipe that a plan starts from: the one for a radar's own archive, or the one for few events and many radars."""

from collections.abc import Sequence
from dataclasses import dataclass

from nowcast.errors import counted
from nowcast.plan.fingerprint import Fingerprint, RecordSummary
from nowcast.plan.frames import FrameChoice, choose_frames

RAINY_DAYS = 10  # days with rain from which on a network learns a radar's own weather
ARCHIVE, RADAR = "archive", "radar"  # the recipes, configs/archive.toml and configs/radar.toml


@dataclass(frozen=True)
class Basis:
    """The recipe to start from, the reason for it, and its frames and split."""

    recipe: str
    reason: str
    frames: FrameChoice

    @property
    def is_archive(self) -> bool:
        """Return whether it is the recipe for a radar's own archive."""
        return self.recipe == ARCHIVE

    @property
    def has_few_events(self) -> bool:
        """Return whether there are too few days for a split by days."""
        return self.frames.splits.by != "days"


def choose_basis(fingerprint: Fingerprint) -> Basis:
    """Return the recipe with its frames. Raises NotEnoughFrames (exit 75) where no window can be made."""
    days = f"about {counted(fingerprint.num_rainy_days, 'day')} with rain" if fingerprint.num_rainy_days else "no day with rain"
    if obstacle := _obstacle(fingerprint, days):
        return Basis(RADAR, obstacle, choose_frames(fingerprint.series))
    frames = choose_frames(fingerprint.series, cycle_days=RAINY_DAYS)
    if frames.splits.by == "days":
        return Basis(ARCHIVE, f"one grid, and {days}: enough to learn the weather of this radar", frames)
    reason = f"{days}, but no split by days leaves windows to train and to validate on"
    return Basis(RADAR, reason, choose_frames(fingerprint.series))


def _obstacle(fingerprint: Fingerprint, days: str) -> str:
    """Return the reason against the archive recipe; "" if there is none."""
    if not fingerprint.quantity.is_rain:
        return "not rain rate: a plain network whose only input are the frames"
    if (number := _num_grids(fingerprint.series)) > 1:
        return f"{number} grids: one network for all of them"
    if fingerprint.num_rainy_days < RAINY_DAYS:
        return f"{days}, fewer than the {RAINY_DAYS} from which a network learns the weather of one radar"
    return ""


def _num_grids(series: Sequence[RecordSummary]) -> int:
    """Count the grids; files on equal grids are one record, so every record has a grid of its own."""
    return len(series)
