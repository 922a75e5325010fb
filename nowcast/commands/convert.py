"""Implement `nowcast convert`: check the arguments, convert the files, once or whenever new ones arrive."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nowcast.convert import archive
from nowcast.convert.jobs import Request
from nowcast.convert.original import Options
from nowcast.convert.watch import watch as watch_folder
from nowcast.errors import OutputError, UsageError
from nowcast.runtime.signals import stop_on_signals


def convert_files(
    files: Sequence[str],
    output: Path,
    *,
    format: str = "auto",
    per: str = "day",
    box: str | None = None,
    every: float | None = None,
    variable: str | None = None,
    units: str | None = None,
    colours: Path | None = None,
    processes: int | None = None,
    watch: bool = False,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Convert original files to records in the folder `output`; yield the records.

    Raises UsageError (exit 2) for options that do not fit, OutputError (5) for an output that is a file, and the errors of
    `convert.archive.convert`.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file.\nGive a folder as --output: it gets one record per {per}.")
    if every is not None and not 0 < every <= 1440:
        raise UsageError(f"--every {every:g}: write minutes above 0 and up to 1440, such as 10")
    if processes is not None and processes < 1:
        raise UsageError(f"--processes {processes}: write a number from 1 on")
    options = Options(variable, units, _text_of(colours))
    request = Request(format, options, per, _parse_box(box), every, overwrite, processes or archive.most_processes())
    if not watch:
        yield from archive.convert(files, output, request).written
        return
    if overwrite or per != "day" or len(files) != 1:
        raise UsageError("--watch takes one folder, no --per and no --overwrite: each file that comes becomes a record")
    with stop_on_signals() as stop:
        yield from watch_folder(Path(files[0]), output, request, stop=stop)
        raise stop.error("stopped watching; all started files are written")


def _parse_box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        raise UsageError(f"--box {text}: write west,south,east,north in degrees, such as 5,46,11,48") from None
    if not (-90 <= south < north <= 90 and -360 <= west <= 360 and -360 <= east <= 360 and west != east):
        raise UsageError(f"--box {text}: write west,south,east,north in degrees, with south below north")
    return west, south, east, north


def _text_of(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--colours {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
