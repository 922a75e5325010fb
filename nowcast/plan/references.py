"""The recipes that a plan starts from: copies of those in configs/ that are installed with the package."""

from pathlib import Path

from nowcast import config
from nowcast.config.schema import Experiment
from nowcast.config.toml import read_comments
from nowcast.plan.basis import ARCHIVE, RADAR
from nowcast.plan.choices import Choices, make_plain
from nowcast.training.experiment import resolve

RECIPE_OF_MODEL = {"guided": ARCHIVE, "probabilistic": RADAR}


def path_of(recipe: str) -> Path:
    """Return the path of an installed recipe."""
    return Path(__file__).with_name(f"{recipe}.toml")


def reference_choices(recipe: str = RADAR) -> Choices:
    """Return a recipe's values with its comments, before anything is chosen."""
    path = path_of(recipe)
    return Choices(resolve(config.read(path)), read_comments(path.read_text(encoding="utf-8")))


def reference_experiment(model: str) -> Experiment:
    """Return the unchanged experiment of the recipe with that model."""
    choices = reference_choices(RECIPE_OF_MODEL.get(model, RADAR))
    if model not in RECIPE_OF_MODEL:
        make_plain(choices)
        choices.set("data.coordinates", "grid", "")
        choices.replace_section("loss", {"name": ("mae", "")})
    return choices.experiment()
