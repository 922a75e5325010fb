"""Read a config from TOML, change it by `--set`, and write it as TOML, with or without comments.

A config that was read and written can be read again unchanged. `write` gives TOML without comments. `write_commented` gives
the layout of configs/radar.toml: one line for each key with a comment behind it, below a head of comment lines.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from nowcast.config.schema import Experiment, check
from nowcast.config.slips import parse
from nowcast.errors import UsageError

SET_BY_HAND = "set by hand"  # the comment behind a key that `--set` has changed
REPLACED = {"data.records"}  # keys that another option replaces, and whose comment stays true
COMMENT_COLUMN = 30  # the column of the # before a comment, counted from 1
NUMBERS = re.compile(r"[-+\d.eE,\s\[\]]+")  # a number, or lists of them
_KEY_LINE = re.compile(r"""(\w+)\s*=\s*(?:"(?:\\.|[^"\\])*"|'[^']*'|[^"'#])*(?:#\s*(.*))?$""")  # a key and its comment


def config_folders() -> list[Path]:
    """Return the folders in which configs are found by name: `configs/` here, that of the clone, and the installed ones."""
    package = Path(__file__).resolve().parents[1]
    return [Path("configs"), package.parent / "configs", package / "plan"]


def named_configs() -> list[str]:
    """Return the names of all configs in these folders."""
    return sorted({path.stem for folder in config_folders() for path in folder.glob("*.toml")})


def find(name: str | Path) -> Path:
    """Return the path of a config that is given by its path or its name, such as radar.

    Raises UsageError (exit 2) for one that does not exist, with the name most like it.
    """
    given = Path(name)
    named = [folder / f"{name}.toml" for folder in config_folders() if given.name == str(name)]
    if found := next((path for path in named if path.is_file() and (given.is_dir() or not given.exists())), None):
        return found
    if given.exists():
        return given
    near = difflib.get_close_matches(Path(name).stem, named_configs(), n=1)
    known = "" if given.suffix else f"\nknown by name: {', '.join(named_configs())}"
    raise UsageError(f"no such config: {name}" + (f"; did you mean {near[0]}?" if near else known))


def read(path: str | Path, settings: Sequence[str] = ()) -> Experiment:
    """Read a config from a TOML file, and change it by each `SECTION.KEY=VALUE` of `settings`.

    Raises UsageError (exit 2) for a file that is missing, unreadable or not valid TOML, an unknown key or a wrong value.
    """
    path = find(path)
    if not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is no regular file.\nExpected a TOML file.")
    try:
        text = read_text(path)
    except OSError as error:
        raise UsageError(f"cannot read the config {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the config {path}: {error}.\nExpected text in UTF-8: save it so.") from None
    return with_settings(parse(text, str(path)), settings, source=str(path))


def read_text(path: Path) -> str:
    """Return the text of a config, without the mark that some editors put before UTF-8."""
    return path.read_text(encoding="utf-8-sig")


def with_settings(tree: dict[str, Any], settings: Sequence[str], *, source: str) -> Experiment:
    """Make a config of TOML values, changed by each `SECTION.KEY=VALUE` of `settings`.

    Raises UsageError (exit 2) like `read`; an error in a setting quotes that setting.
    """
    for setting in settings:
        _apply_setting(tree, setting)
    try:
        return check(Experiment, tree, source=source)
    except UsageError as error:
        named = (s for s in reversed(settings) if re.search(rf"(?<![\w.]){re.escape(named_key(s))}(?![\w.])", str(error)))
        if (wrong := next(named, None)) is None:
            raise
        raise UsageError(str(error).replace(source, f"--set {wrong}", 1)) from None


def as_settings(values: Mapping[str, Any] | None) -> list[str]:
    """Return values by dotted key (or None) as texts SECTION.KEY=VALUE.

    Raises UsageError (exit 2) for anything but a dict, and for a value that TOML cannot hold.
    """
    if not isinstance(values, Mapping | None):
        raise UsageError(f'--set {values!r}: write a dict of values by dotted key, such as {{"training.steps": 500}}')
    settings = []
    for key, value in (values or {}).items():
        try:
            settings.append(f"{key}={inline(plain(value))}")
        except TypeError:
            raise UsageError(f"--set {key} = {value!r}: write a number, text, a time, or a list or dict of them") from None
    return settings


def plain(value: Any) -> Any:
    """Convert a value, or a list or dict of values, to TOML types: NumPy values to numbers, lists, times; paths to text."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        # times in nanoseconds would become numbers
        return (value.astype("datetime64[us]") if getattr(value.dtype, "kind", "") == "M" else value).tolist()
    return value


def named_key(setting: str) -> str:
    """Return the dotted key that a SECTION.KEY=VALUE names."""
    return ".".join(key.strip() for key in setting.partition("=")[0].split("."))


def _apply_setting(tree: dict, setting: str) -> None:
    _, equals, text = setting.partition("=")
    keys = named_key(setting).split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise UsageError(f"--set {setting}: write SECTION.KEY=VALUE, for example training.steps=500")
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UsageError(f"--set {setting}: {key} is a value, not a section")
    tree[keys[-1]] = _parse_value(text.strip())


def _parse_value(text: str) -> Any:
    """Return the value of a TOML text. Numbers may also lack the digits before or after the point, as in `.5`."""
    if NUMBERS.fullmatch(text):
        text = re.sub(r"(?<!\d)\.(?=\d)", "0.", re.sub(r"(?<=\d)\.(?!\d)", ".0", text))
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a word without quotes is a string: --set model.name=encoder_forecaster


def as_dict(experiment: Experiment) -> dict[str, Any]:
    """Return the config as JSON values: lists for tuples, ISO text for times."""
    return experiment.model_dump(mode="json")


def from_dict(tree: Mapping[str, Any], *, source: str) -> Experiment:
    """Make a config of the values that `as_dict` returns. Raises UsageError (exit 2) for a wrong key or value."""
    return check(Experiment, _with_times(tree), source=source)


def _with_times(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with the ISO text in the spans of [data.splits] turned into times."""
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    splits = dict(tree.get("data", {}).get("splits", {}))
    for name in ("training", "validation", "test"):
        if name in splits:
            splits[name] = [[datetime.fromisoformat(t) if isinstance(t, str) else t for t in span] for span in splits[name]]
    if splits:
        tree["data"] = {**tree["data"], "splits": splits}
    return tree


def as_toml(experiment: Experiment) -> dict[str, Any]:
    """Return the config as TOML values: lists for tuples, times as they are."""
    return _with_times(as_dict(experiment))


def write(experiment: Experiment) -> str:
    """Return the config as TOML text that `read` reads back unchanged."""
    return tomli_w.dumps(as_toml(experiment))


def write_commented(
    experiment: Experiment,
    comments: Mapping[str, str],
    head: Sequence[str] = (),
    above: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Return the config as TOML text with comments.

    `comments` maps the dotted path of a key to the comment behind it; `head` holds comment lines above all sections, and
    `above` those above a section or a key, by its dotted path.
    """
    lines = [f"# {line}".rstrip() for line in head]
    for section, values in _sections(as_toml(experiment)):
        lines += ["", *above.get(section, ()), f"[{section}]"] if lines else [*above.get(section, ()), f"[{section}]"]
        for key, value in values.items():
            line, comment = f"{key} = {inline(value)}", comments.get(f"{section}.{key}", "")
            lines += above.get(f"{section}.{key}", ())
            lines.append(f"{line:<{COMMENT_COLUMN - 1}} # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def read_comments(text: str) -> dict[str, str]:
    """Return the comments that stand behind keys in a TOML text, by the dotted path of the key."""
    comments, section = {}, ""
    for line in map(str.strip, text.splitlines()):
        if header := re.match(r"\[([\w.]+)\]", line):
            section = header[1]
        elif (key := _KEY_LINE.match(line)) and key[2]:
            comments[f"{section}.{key[1]}"] = key[2]
    return comments


def rewritten(text: str, experiment: Experiment) -> str:
    """Return the config as TOML text, with the head and the comments of an earlier TOML text.

    The comment of a key that `--set` has changed is replaced by SET_BY_HAND.
    """
    lines, head = text.splitlines(), []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line[1:].removeprefix(" "))
    comments, before = read_comments(text), dict(flat(as_toml(check(Experiment, tomllib.loads(text)))))
    for key, value in flat(as_toml(experiment)):
        if key in comments and key not in REPLACED and before.get(key, value) not in (value, "auto"):
            comments[key] = SET_BY_HAND
    return write_commented(experiment, comments, head, _lines_above(lines[len(head) :]))


def _lines_above(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return the comment lines above sections and keys, by their dotted paths."""
    above, comments, section = {}, [], ""
    for line in map(str.strip, lines):
        if line.startswith("#"):
            comments.append(line)
        elif found := re.match(r"\[([\w.]+)\]|(\w+) *=", line):
            section = found[1] or section
            above[found[1] or f"{section}.{found[2]}"], comments = comments, []
    return above


def flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a tree and their values."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def _sections(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted name, keys) of every table of TOML values below the table `above`; tables come after plain keys."""
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    if above:
        yield above, plain
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _sections(value, f"{above}.{key}".strip("."))


def inline(value: Any) -> str:
    """Return a TOML value as text on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(str(key))} = {inline(each)}' for key, each in value.items())}}}"
    return tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip("\n")


def _key(key: str) -> str:
    """Return a key as text, in quotes unless TOML takes it without."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else inline(key)
