"""TOML <-> Experiment: read, --set, check, write.

An Experiment is one text file: strict, frozen and complete. The sections `transform`, `model` and `loss` are checked by
whatever their `name` chooses (each beside its owner, through `check`); the rest is here. Every key has a value that TOML
can write ("auto" and 0 stand for "not set"), so a resolved config can be written back and read again unchanged.

A config as people write it: one line for each key, with a comment that says why, and the comments read back.

`config.write` gives bare TOML; this is the layout of configs/radar.toml.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from nowcast.config.schema import Experiment, check
from nowcast.errors import UsageError


def read(path: str | Path, settings: Sequence[str] = ()) -> Experiment:
    """The experiment of a TOML file, with each `SECTION.KEY=VALUE` of `settings` applied.

    Raises UsageError (exit 2) for a missing or unreadable file, broken TOML, an unknown key or a wrong value.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is no regular file.\nRight would be a TOML file.")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such config: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the config {path}: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    return with_settings(tree, settings, source=str(path))


def with_settings(tree: dict[str, Any], settings: Sequence[str], *, source: str) -> Experiment:
    """The experiment of TOML values, with each `SECTION.KEY=VALUE` of `settings` applied; UsageError as for `read`."""
    for setting in settings:
        _apply(tree, setting)
    return check(Experiment, tree, source=source)


def _apply(tree: dict, setting: str) -> None:
    dotted, equals, text = setting.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise UsageError(f"--set {setting}: write SECTION.KEY=VALUE, for example training.steps=500")
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UsageError(f"--set {setting}: {key} is a value, not a section")
    tree[keys[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string: --set model.name=encoder_forecaster


def as_dict(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain TOML and JSON values (lists, not tuples; datetimes as ISO text)."""
    return experiment.model_dump(mode="json")


def from_dict(tree: Mapping[str, Any], *, source: str) -> Experiment:
    """The inverse of `as_dict`."""
    return check(Experiment, _with_times(tree), source=source)


def _with_times(tree: Mapping[str, Any]) -> dict[str, Any]:
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    splits = dict(tree.get("data", {}).get("splits", {}))
    for name in ("training", "validation", "test"):
        if name in splits:
            splits[name] = [[datetime.fromisoformat(t) if isinstance(t, str) else t for t in span] for span in splits[name]]
    if splits:
        tree["data"] = {**tree["data"], "splits": splits}
    return tree


def as_toml(experiment: Experiment) -> dict[str, Any]:
    """The experiment as TOML values: lists, and datetimes as such."""
    return _with_times(as_dict(experiment))


def write(experiment: Experiment) -> str:
    """The experiment as TOML text that `read` takes back unchanged."""
    return tomli_w.dumps(as_toml(experiment))


COMMENT_COLUMN = 30
_LINE = re.compile(r"(\w+) = [^#]*?(?:#\s*(.*))?$")


def write_commented(experiment: Experiment, comments: Mapping[str, str], head: Sequence[str] = ()) -> str:
    """TOML text with every key in its section's order; `comments` go by dotted key, `head` stands above it all."""
    lines = [f"# {line}".rstrip() for line in head]
    for section, values in _sections(as_toml(experiment)):
        lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        for key, value in values.items():
            line, comment = f"{key} = {inline(value)}", comments.get(f"{section}.{key}", "")
            lines.append(f"{line:<{COMMENT_COLUMN - 1}} # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def read_comments(text: str) -> dict[str, str]:
    """{dotted key: comment} of the keys that have one on their line."""
    found, section = {}, ""
    for line in text.splitlines():
        if opened := re.match(r"\[([\w.]+)\]", line):
            section = opened[1]
        elif (key := _LINE.match(line)) and key[2]:
            found[f"{section}.{key[1]}"] = key[2]
    return found


def rewritten(text: str, experiment: Experiment) -> str:
    """The experiment with the comments and the head of a config that was written before."""
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line[1:].removeprefix(" "))
    return write_commented(experiment, read_comments(text), head)


def _sections(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted name, plain keys) of every table, sub-tables after the keys of their own table."""
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    if above:
        yield above, plain
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _sections(value, f"{above}.{key}".strip("."))


def inline(value: Any) -> str:
    """A TOML value on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip("\n")
