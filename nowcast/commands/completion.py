"""What a shell offers to complete: forecasters, configs, keys of `--set`, devices. Imports only what is quick to import."""

import contextlib
import os
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

BASELINES = ("pretrained", "persistence", "extrapolation", "pysteps", "sprog")
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps")
RUNS = Path("runs")  # the folder of the run folders that `nowcast train` makes by default


def devices(incomplete: str) -> list[str]:
    """Return the devices that begin so."""
    return _beginning(DEVICES, incomplete)


def forecasters(incomplete: str) -> list[str]:
    """Return the forecasters that have a name, and the trained runs, that begin so."""
    runs = sorted(str(path.parent) for path in RUNS.glob("*/best.safetensors"))
    return _beginning([*BASELINES, *runs], incomplete)


def configs(incomplete: str) -> list[str]:
    """Return the names of the configs that are included and begin so."""
    from nowcast.config.toml import named_configs

    return _beginning(named_configs(), incomplete)


def settings(incomplete: str) -> list[str]:
    """Return the keys `SECTION.KEY=` that begin so, of the config on the command line or of any config."""
    return _beginning(dict.fromkeys([*_keys(), *_keys_of_config()]), incomplete)


def _keys_of_config() -> Iterator[str]:
    """Yield the keys of the config file on the command line that is completed; none if it cannot be read."""
    from nowcast.config.toml import find, flat
    from nowcast.errors import UsageError

    words = (os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")).split()
    for word in words[2:]:
        with contextlib.suppress(UsageError, OSError, ValueError):
            yield from (f"{key}=" for key, _ in flat(tomllib.loads(find(word).read_text(encoding="utf-8"))))


def _keys() -> Iterator[str]:
    """Yield the keys that every config has: all of [data] and [training], and the names in the other sections."""
    from nowcast.config.schema import Data, Splits, Training

    for section, kind in (("data", Data), ("data.splits", Splits), ("training", Training)):
        yield from (f"{section}.{key}=" for key in kind.model_fields if key != "splits")
    yield from (f"{section}.name=" for section in ("transform", "model", "loss"))


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
