"""Read HDF5 with h5py: attributes, also as bytes or one-element arrays, and fields, after a check of their size."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nowcast.convert.original import H5PY, check_size
from nowcast.errors import DataError

_MOST_LINKS = 100_000


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator:
    """Open an HDF5 file. Raises DataError (exit 3) if it is damaged, UsageError (2) without h5py."""
    h5py = H5PY.load(what)
    try:
        with h5py.File(path, "r") as file:
            _check_links(h5py, file, path)
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, SystemError) as error:
        # SystemError: raised by h5py 3.16 for names that are not text
        reason = str(error).strip("'\"").splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged or incomplete ({reason}).\nExpected a whole {what} file.") from error


def _check_links(h5py, file, path: Path) -> None:
    """Raise DataError (exit 3) for links to other files, which could expose private files, and for too many links."""
    seen = itertools.count(1)

    def look(name: str, link) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            return f"a link to {link.filename[:80]}"
        return "more links than a radar's file" if next(seen) > _MOST_LINKS else None

    if fault := file.visititems_links(look):
        raise DataError(f"{path} holds {fault}.\nExpected a file without links to others.")


def attribute(group, name: str):
    """Return an attribute: text, or a number or array of numbers; None if it is absent."""
    if group is None or name not in group.attrs:
        return None
    value = group.attrs[name]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else value


def number(group, name: str, default: float | None, where: str) -> float | None:
    """Return an attribute as a number, also if it is text. Raises DataError (exit 3) if it is not a number."""
    value = attribute(group, name)
    if value is None:
        return default
    try:
        if isinstance(value, complex):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where} has {name} = {str(value)[:40]!r}.\nExpected a number.") from None


def field_of(group, name: str, path: Path):
    """Return the dataset of a field (y, x), without reading it. Raises DataError (exit 3) if it is not a field."""
    dataset = group.get(name)
    if dataset is None or getattr(dataset, "ndim", 0) != 2 or dataset.dtype.kind not in "iuf":
        raise DataError(f"{path} has no field of numbers over y and x in {group.name}/{name}.\nExpected one.")
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{path} keeps {group.name}/{name} in another file.\nExpected a file without links to others.")
    check_size(*dataset.shape, path)
    return dataset
