"""Shell completion of forecasters, configs, keys of `--set` and devices. Imports only modules that load quickly."""

import contextlib
import os
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

BASELINES = ("pretrained", "persistence", "extrapolation", "pysteps", "sprog")
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps")
RUNS = Path("runs")  # the folder of the run folders that `nowcast train` makes by default


def devices(incomplete: str) -> list[str]:
    """Return the devices that begin with `incomplete`."""
    return _beginning(DEVICES, incomplete)


def forecasters(incomplete: str) -> list[str]:
    """Return the named forecasters and the trained runs that begin with `incomplete`."""
    runs = sorted(str(path.parent) for path in RUNS.glob("*/best.safetensors"))
    return _beginning([*BASELINES, *runs], incomplete)


def configs(incomplete: str) -> list[str]:
    """Return the names of included configs that begin with `incomplete`."""
    from nowcast.config.toml import named_configs

    return _beginning(named_configs(), incomplete)


def settings(incomplete: str) -> list[str]:
    """Return the keys `SECTION.KEY=` that begin with `incomplete`, of the config on the command line or of all configs."""
    return _beginning(dict.fromkeys([*_keys(), *_keys_of_config()]), incomplete)


def _keys_of_config() -> Iterator[str]:
    """Yield the keys of the config file on the command line being completed; none if it cannot be read."""
    from nowcast.config.toml import find, flat
    from nowcast.errors import UsageError

    words = (os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")).split()
    for word in words[2:]:
        with contextlib.suppress(UsageError, OSError, ValueError):
            yield from (f"{key}=" for key, _ in flat(tomllib.loads(find(word).read_text(encoding="utf-8"))))


def _keys() -> Iterator[str]:
    """Yield the keys of every config: all of [data] and [training], and `name` in the other sections."""
    from nowcast.config.schema import Data, Splits, Training

    for section, kind in (("data", Data), ("data.splits", Splits), ("training", Training)):
        yield from (f"{section}.{key}=" for key in kind.model_fields if key != "splits")
    yield from (f"{section}.name=" for section in ("transform", "model", "loss"))


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
