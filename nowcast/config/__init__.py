"""The config of a run, called Experiment: its sections and keys (schema.py), and its text form (toml.py)."""

from nowcast.config.schema import Data, Experiment, Many, NamedSection, Number, Section, Splits, Training, check, lookup
from nowcast.config.toml import (
    as_dict,
    as_toml,
    from_dict,
    inline,
    read,
    read_comments,
    rewritten,
    with_settings,
    write,
    write_commented,
)

__all__ = [
    "Data",
    "Experiment",
    "Many",
    "NamedSection",
    "Number",
    "Section",
    "Splits",
    "Training",
    "as_dict",
    "as_toml",
    "check",
    "from_dict",
    "inline",
    "lookup",
    "read",
    "read_comments",
    "rewritten",
    "with_settings",
    "write",
    "write_commented",
]
