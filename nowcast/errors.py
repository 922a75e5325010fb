"""What a user can act on, and the exit code it ends with.

    NowcastError          1   (never raised itself: a bug has no class of its own)
    ├── UsageError        2   a command line or config that cannot be run
    ├── DataError         3   an input file that cannot be used
    │   └── NotEnoughFrames  75   too few or too late frames: try again when more have come
    ├── CheckpointError   4   a checkpoint that cannot be trusted or does not fit
    ├── OutputError       5   an output that cannot be written
    ├── DivergenceError   6   training whose numbers stopped being finite
    ├── MemoryLimitError  7   out of memory
    ├── LoadingError     75   a process that reads training data died or hangs: the state is saved, try again
    └── Stopped         130   SIGINT, or 143 for SIGTERM: the state is saved

Errors are divided by what the user should do. A message is one or two lines: what is wrong with the
value, where, and what would be right.
"""

import errno


class NowcastError(Exception):
    """Base of every error that is shown without a traceback."""

    exit_code = 1


class UsageError(NowcastError):
    exit_code = 2


class DataError(NowcastError):
    exit_code = 3


class NotEnoughFrames(DataError):
    exit_code = 75


class CheckpointError(NowcastError):
    exit_code = 4


class OutputError(NowcastError):
    exit_code = 5


class DivergenceError(NowcastError):
    exit_code = 6


class MemoryLimitError(NowcastError):
    exit_code = 7


class LoadingError(NowcastError):
    exit_code = 75


class Stopped(NowcastError):
    """Training was stopped by a signal after its state was saved; `exit_code` is 128 + the signal."""

    def __init__(self, message: str, *, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def is_out_of_memory(error: BaseException) -> bool:
    """Whether numpy, torch or Python ran out of memory: by name, since torch's own class would have to be imported."""
    names = {"MemoryError", "OutOfMemoryError", "_ArrayMemoryError"}
    return type(error).__name__ in names or "can't allocate memory" in str(error)


def explain_failure(error: Exception) -> tuple[str, int]:
    """Return message and exit code for lack of memory or a disk that cannot be written; raise any other error, a bug."""
    if is_out_of_memory(error):
        hint = "out of memory; try a smaller training.batch_size or data.crop, or a machine with more"
        return hint, MemoryLimitError.exit_code
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}:
        return f"{error.filename or 'an output'}: {error.strerror}", OutputError.exit_code
    raise error
