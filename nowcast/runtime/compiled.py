"""C sources of the package, each compiled once for this machine.

A library is kept in the cache, under a name made from its source, the compiler and the processor, beside its SHA-256: loading
a damaged library would crash the process. If there is no compiler, or if it fails, `load` returns None and logs one
warning; callers then do the same work in torch.
"""

import ctypes
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nowcast.errors import NowcastError
from nowcast.runtime.cache import cache_folder
from nowcast.runtime.outputs import replacing

log = logging.getLogger(__name__)
Library = ctypes.CDLL
POINTER, SIZE, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float  # types of arguments
# None of these changes a value. Without -fno-math-errno and -fno-trapping-math the compiler does not vectorise.
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
TIME_LIMIT = 600  # s, after which the compiler is taken to hang; on a busy machine it takes a minute
_warned: set[str] = set()  # reasons that a warning has been logged for


@dataclass(frozen=True, eq=False)
class Source:
    """A C source file, what it computes (for messages), and the types of the arguments of its functions.

    Each function takes the number of threads as one more argument, the last, and returns nothing.
    """

    path: Path
    computes: str
    functions: Mapping[str, Sequence[type]]


@cache
def load(source: Source, *defines: str) -> Library | None:
    """Return the library of a source compiled with these macros defined, or None if it cannot be compiled or loaded."""
    compiler = _compiler()
    if compiler is None:
        _warn("no C compiler found (cc, gcc, clang or $CC)", source)
        return None
    try:
        folder = cache_folder() / "native"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, NowcastError) as error:
        _warn(f"the cache cannot be written ({_reason(error)}); set NOWCAST_CACHE", source)
        return None
    try:
        path = folder / f"{source.path.stem}-{_fingerprint(compiler, defines, source)}.so"
        with suppress(OSError):  # not built yet, or not for this system
            if _is_whole(path):
                return _declare(ctypes.CDLL(str(path)), source)
        _build(compiler, defines, path, source)
        return _declare(ctypes.CDLL(str(path)), source)
    except (OSError, AttributeError, subprocess.SubprocessError, NowcastError) as error:
        _warn(f"{compiler} did not build {source.path.name} ({_reason(error)})", source)
        return None


@cache
def _compiler() -> str | None:
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _warn(reason: str, source: Source) -> None:
    """Log a warning, once for each reason."""
    if reason not in _warned:
        _warned.add(reason)
        log.warning("%s: %s are computed in torch, which takes more time", reason, source.computes)


def forget() -> None:
    """Forget the libraries loaded, the compiler found and the warnings given, so that `load` starts anew."""
    load.cache_clear()
    _compiler.cache_clear()
    _warned.clear()


def _build(compiler: str, defines: tuple[str, ...], path: Path, source: Source) -> None:
    start = time.perf_counter()
    with replacing(path) as temporary:
        command = [compiler, *FLAGS, *(f"-D{name}" for name in defines), str(source.path), "-o", str(temporary)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIME_LIMIT)
        digest = _sha256(temporary)
    with replacing(_digest_of(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    log.info("compiled %s in %.1f s, kept in %s", source.path.name, time.perf_counter() - start, path)


def _is_whole(path: Path) -> bool:
    """Return whether a library has the SHA-256 that was written beside it. Raises OSError if one of the two is absent."""
    return _digest_of(path).read_bytes().split(b" ")[0] == _sha256(path).encode()


def _digest_of(path: Path) -> Path:
    """Return the file with the SHA-256 of a library, as `sha256sum --check` reads it."""
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _reason(error: Exception) -> str:
    """Return the first line of what the compiler printed, or of the error's message."""
    message = (getattr(error, "stderr", None) or str(error)).strip()
    return message.splitlines()[0] if message else type(error).__name__


def constant(library: Library, name: str) -> int:
    """Read an exported C `int` constant."""
    return ctypes.c_int.in_dll(library, name).value


def _fingerprint(compiler: str, defines: tuple[str, ...], source: Source) -> str:
    """Return a hash (hex) of everything that the library depends on.

    -march=native depends on the processor, so machines that share a cache have a library for each kind of processor.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=TIME_LIMIT, check=True).stdout
    parts = (*_texts(source.path), version, *FLAGS, *defines, platform.machine(), _processor())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _texts(path: Path) -> list[str]:
    """Return the text of a C file and of the files of the package that it includes."""
    text = path.read_text(encoding="utf-8")
    included = re.findall(r'^#include "(.+)"', text, flags=re.MULTILINE)
    return [text, *(each for name in included for each in _texts(path.parent / name))]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _declare(library: Library, source: Source) -> Library:
    """Declare the argument types of the library's functions; AttributeError if it lacks one of them."""
    for name, arguments in source.functions.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [*arguments, INT], None
    return library
