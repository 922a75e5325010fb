"""What is compiled for CPUs: builds gates.c, winograd.c and distribution.c once for this machine.

A library lies in the cache under a name that holds source, compiler and processor; where there is no compiler, or it
fails, `load` says so once and returns None, and the same is done in torch.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from nowcast.errors import NowcastError
from nowcast.runtime.cache import cache_folder
from nowcast.runtime.outputs import replacing

log = logging.getLogger(__name__)
Library = ctypes.CDLL
PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = {
    "gates": PACKAGE / "models" / "engine" / "gates.c",
    "winograd": PACKAGE / "models" / "engine" / "winograd.c",
    "distribution": PACKAGE / "models" / "probabilistic" / "distribution.c",
}
WHAT = {"gates": "the gates", "winograd": "the convolutions", "distribution": "the values of a distribution"}
# no value is changed by these; without the first two the compiler must keep errno and traps, and does not vectorise
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
SECONDS = 60  # a compiler that hangs


@cache
def load(*defines: str, source: str = "gates") -> Library | None:
    """The library of this source, compiled with these macros defined; None, said once, where it cannot be had."""
    compiler = _compiler()
    if compiler is None:
        return None
    try:
        path = cache_folder() / "native" / f"{source}-{_fingerprint(compiler, defines, source)}.so"
        with suppress(OSError):  # not built yet, or damaged
            return _declare(ctypes.CDLL(str(path)), source)
        _build(compiler, defines, path, source)
        return _declare(ctypes.CDLL(str(path)), source)
    except (OSError, AttributeError, subprocess.SubprocessError, NowcastError) as error:
        _say(f"{compiler} did not build {source}.c ({_reason(error)})", source)
        return None


@cache
def _compiler() -> str | None:
    found = next((path for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None)
    if found is None:
        _say("no C compiler found (cc, gcc, clang or $CC)")
    return found


@cache
def _say(why: str, source: str = "gates") -> None:
    log.warning("%s: %s are computed in torch, which takes more time", why, WHAT[source])


def forget() -> None:
    """Forget the libraries loaded, the compiler found and the warnings given, so that `load` starts anew."""
    for function in (load, _compiler, _say):
        function.cache_clear()


def _build(compiler: str, defines: tuple[str, ...], path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with replacing(path) as temporary:
        command = [compiler, *FLAGS, *(f"-D{name}" for name in defines), str(_file(source)), "-o", str(temporary)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    log.info("compiled %s.c in %.1f s, kept in %s", source, time.perf_counter() - start, path)


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return said.strip().splitlines()[0] if said.strip() else type(error).__name__


def constant(library: Library, name: str) -> int:
    """What a source says of itself."""
    return ctypes.c_int.in_dll(library, name).value


def _file(source: str) -> Path:
    return SOURCES[source]


def _fingerprint(compiler: str, defines: tuple[str, ...], source: str = "gates") -> str:
    """-march=native depends on the processor: a cache that machines share keeps a library for each kind."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    parts = (_file(source).read_text(encoding="utf-8"), version, *FLAGS, *defines, platform.machine(), _processor())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _declare(library: Library, source: str) -> Library:
    pointer, size, number, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_int
    functions = {
        "gates": {"gates_forward": [pointer] * 8 + [size] * 2, "gates_backward": [pointer] * 7 + [size] * 2},
        "winograd": {
            "convolve": [pointer, size, pointer, size, pointer, pointer] + [size] * 5 + [pointer],
            "weight_gradient": [pointer, size, pointer, size, pointer] + [size] * 4 + [pointer],
        },
        "distribution": {
            "highest_reached": [pointer] + [size] * 4 + [number] + [pointer] * 4 + [number, ctypes.c_float, pointer],
        },
    }
    for name, arguments in functions[source].items():
        function = getattr(library, name)
        function.argtypes, function.restype = [*arguments, threads], None
    return library
