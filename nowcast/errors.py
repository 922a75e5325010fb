"""Errors that a user can act on, and the exit code that a command ends with.

    NowcastError          1   (never raised itself: a bug has no class of its own)
    ├── UsageError        2   a command line or config that cannot be run
    ├── DataError         3   an input file that cannot be used
    │   └── NotEnoughFrames  75   too few or too late frames: try again when more have arrived
    ├── CheckpointError   4   a checkpoint that is damaged or does not fit
    ├── OutputError       5   an output that cannot be written
    ├── DivergenceError   6   training whose loss or gradients are no longer finite
    ├── MemoryLimitError  7   not enough memory
    ├── LoadingError     75   a process that reads training data died or hangs: the state is saved, try again
    └── Stopped         130   SIGINT, or 143 for SIGTERM: the state is saved

Errors are divided by what the user should do. A message is one or two lines: what is wrong, where, and what would be right.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = "data|device|end|every|output|overwrite|resume|set|start|thresholds|variable"
_VALUE = r'(?P<value>"[^"]*"|\[[^\[\]]*\]|[^\s"\[{;,]*[^\s"\[{;,:.)])'  # not a list of lists, nor a table
_OPTION = re.compile(rf"--(?P<name>{_NAMES})\b(?: (?P<key>[\w.]+)={_VALUE}| (?P<stand_in>[A-Z]{{2,}}\b/?))?(?P<more> (?=--))?")
_COMMAND = re.compile(r"\bnowcast [a-z]+ ")


class NowcastError(Exception):
    """An error that is shown without a traceback: base of all others."""

    exit_code = 1


class UsageError(NowcastError):
    """A command line or config that cannot be run."""

    exit_code = 2


class DataError(NowcastError):
    """An input file that cannot be used."""

    exit_code = 3


class NotEnoughFrames(DataError):
    """Too few or too late frames: the same command can succeed when more have arrived."""

    exit_code = 75


class CheckpointError(NowcastError):
    """A checkpoint that is damaged or does not fit."""

    exit_code = 4


class OutputError(NowcastError):
    """An output that cannot be written."""

    exit_code = 5


class DivergenceError(NowcastError):
    """A training whose loss or gradients are no longer finite."""

    exit_code = 6


class MemoryLimitError(NowcastError):
    """Not enough memory."""

    exit_code = 7


class LoadingError(NowcastError):
    """A process that reads training data died or hangs; the state was saved, so training can be resumed."""

    exit_code = 75


class Stopped(NowcastError):
    """A command that a signal stopped after its state was saved; the exit code is 128 + the number of the signal."""

    def __init__(self, message: str, *, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


@contextmanager
def in_words_of_python() -> Iterator[None]:
    """Make errors name Python arguments instead of command-line options; a context manager or decorator.

    Lines with a whole command stay as they are.
    """
    try:
        yield
    except NowcastError as error:
        lines = str(error).split("\n")
        error.args = ("\n".join(line if _COMMAND.search(line) else _OPTION.sub(_as_argument, line) for line in lines),)
        raise


def _as_argument(option: re.Match) -> str:
    name, rest = option["name"], option[0].removeprefix(f"--{option['name']}").rstrip()
    if name in ("overwrite", "resume"):
        shown = f"{name}=True{'' if option['stand_in'] else rest}"
    elif option["stand_in"]:
        shown = f"{name}=..."
    elif name == "set" and option["key"]:
        shown = f'set={{"{option["key"]}": {_in_python(option["value"])}}}'
    else:
        shown = name + rest
    return shown + (", " if option["more"] else "")


def _in_python(value: str) -> str:
    """Return the text of a TOML value, or of a word without quotes, as a Python literal."""
    if value in ("true", "false"):
        return value.title()
    return value if re.fullmatch(r'[+-]?\d[\d_]*(\.\d+)?([eE][+-]?\d+)?|[\["].*', value) else f'"{value}"'


def counted(number: int, thing: str) -> str:
    """Return a number with the thing that it counts, in the plural unless it is one, for a message: "1 case", "1,200 cases"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether numpy, torch or Python ran out of memory. Goes by class names, so that torch need not be imported."""
    names = {"MemoryError", "OutOfMemoryError", "_ArrayMemoryError"}
    return type(error).__name__ in names or "can't allocate memory" in str(error) or getattr(error, "errno", 0) == errno.ENOMEM


def explain_failure(error: Exception) -> tuple[str, int]:
    """Return message and exit code if memory, file handles or the disk are exhausted; raise any other error, a bug."""
    if is_out_of_memory(error):
        hint = "out of memory; try a smaller training.batch_size or data.crop, or a machine with more memory"
        return hint, MemoryLimitError.exit_code
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}:
        return f"{error.filename or 'an output'}: {error.strerror}", OutputError.exit_code
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        limit = "Expected a limit of some hundreds or more: raise it by `ulimit -n`."
        return f"{error.filename or 'a file'}: {error.strerror}.\n{limit}", OutputError.exit_code
    raise error
