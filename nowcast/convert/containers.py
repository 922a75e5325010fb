"""Read the members of tar and zip files, also of one within another, without unpacking them.

A member is located by its layers: the compression of each archive around it, and the position of its first byte. Names of
members are only shown, never used as paths to write to. Sizes stated in headers are checked before anything is read.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from nowcast.errors import DataError
from nowcast.runtime.outputs import FULL

Result = TypeVar("Seen")
MOST_MEMBERS = 200_000  # in an archive: a year of 5-minute files has 105,120
MOST_BYTES = 1 << 37  # of a decompressed archive; a month of 5-minute fields of 1500 × 1400 cells has 37 GB
MOST_MEMBER_BYTES = 1 << 31
_MOST_DEEP = 3  # levels of archives within archives
_MOST_READ = 1 << 22  # bytes of one header of a tar file
_COMPRESSIONS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))
_DAMAGE = (
    EOFError, OSError, ValueError, RuntimeError, NotImplementedError, OverflowError, zlib.error, lzma.LZMAError,
    tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """The location of a member in one tar or zip file, which may be compressed as a whole.

    kind: tar or zip; first: position of the first byte (tar) or index of the entry (zip); size: bytes of the member
    """

    kind: str
    first: int
    size: int


@dataclass(frozen=True)
class Member:
    """A file within an archive on disk: its name, its layers, and its size with time or checksum, to detect changes."""

    archive: Path
    name: str
    layers: tuple[Layer, ...]
    state: str

    @property
    def size(self) -> int:
        return self.layers[-1].size

    @property
    def path(self) -> Path:
        """The path shown to users: archive / name, without parts such as `..` and unprintable characters."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in self.name.replace("\\", "/"))
        return self.archive.joinpath(*(part for part in PurePosixPath(shown).parts if part.strip("./")))


def decompressed(file: BinaryIO) -> BinaryIO:
    """Return an open file's bytes, decompressed if it is gzip, bzip2 or xz."""
    start = file.read(6)
    file.seek(0)
    return next((opener(file) for beginning, opener in _COMPRESSIONS if start.startswith(beginning)), file)


def kind_of(start: bytes) -> str | None:
    """Return tar or zip from the first bytes of a file; None for other files."""
    return "tar" if start[257:262] == b"ustar" else "zip" if start.startswith(b"PK\x03\x04") else None


def members(path: Path, look: Callable[[BinaryIO], Result]) -> Iterator[tuple[Member, Result | None]]:
    """Yield the files of an archive, and of archives within it, in their order. Links and devices are left out.

    look: called with each open file; its result is yielded too, None for a damaged file

    Raises DataError (exit 3) for an archive that is cut off, damaged or too large, after the members before the damage.
    """
    with damage(path), open(path, "rb") as file:
        yield from _walk(file, Member(path, "", (), ""), look, [MOST_MEMBERS])


def _walk(file: BinaryIO, around: Member, look: Callable, left: list[int]) -> Iterator[tuple]:
    """Yield the members of an open archive. `left`: number of members still allowed."""
    stream = decompressed(file)
    kind = kind_of(stream.read(512))
    stream.seek(0)
    for name, layer, state in {"tar": _in_tar, "zip": _in_zip}[kind](stream, around.path):
        left[0] -= 1
        if left[0] < 0:
            raise DataError(f"{around.archive} holds more than {MOST_MEMBERS:,} files.\nExpected at most one year.")
        if layer.size > MOST_MEMBER_BYTES:
            raise DataError(f"{around.path} states a file of {layer.size:,} bytes.\nExpected {MOST_MEMBER_BYTES:,} at most.")
        member = Member(around.archive, f"{around.name}/{name}".lstrip("/"), (*around.layers, layer), state)
        with contextlib.closing(_slice(stream, layer)) as inner:
            inside = _try_look(inner, lambda file: kind_of(decompressed(file).read(512)))
            if not (inside == "tar" or (inside == "zip" and name.lower().endswith(".zip"))):  # npz is zip, too
                yield member, _try_look(inner, look)
            elif len(member.layers) < _MOST_DEEP:
                yield from _walk(inner, member, look, left)
            else:
                raise DataError(f"{member.path} is an archive nested in {_MOST_DEEP} others.\nExpected fewer levels.")


def _try_look(file: BinaryIO, look: Callable[[BinaryIO], Result]) -> Result | None:
    try:
        return look(file)
    except _DAMAGE:
        return None
    finally:
        file.seek(0)


def _in_tar(stream: BinaryIO, where: Path) -> Iterator[tuple[str, Layer, str]]:
    with tarfile.open(fileobj=_Guarded(stream, where), mode="r:") as archive:
        while (entry := archive.next()) is not None:
            if entry.offset_data + entry.size > MOST_BYTES:
                raise DataError(f"{where} holds more than {MOST_BYTES >> 30} GiB.\nExpected about a month.")
            if entry.isreg() and not entry.issparse():
                yield entry.name, Layer("tar", entry.offset_data, entry.size), f"{entry.size} {entry.mtime}"
            archive.members = []  # else tarfile keeps them all in memory
        stream.seek(archive.offset)
        if any(stream.read(512)):  # tarfile treats an invalid header as the end
            raise DataError(f"{where} is damaged at its byte {archive.offset:,}.\nExpected a whole archive: download it again.")


def _in_zip(stream: BinaryIO, where: Path) -> Iterator[tuple[str, Layer, str]]:
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise DataError(f"{where} holds more than {MOST_BYTES >> 30} GiB.\nExpected about a month.")
    for number, entry in enumerate(entries):
        if not entry.is_dir():
            yield entry.filename, Layer("zip", number, entry.file_size), f"{entry.file_size} {entry.CRC}"


class _Guarded(io.RawIOBase):
    """A stream that limits the size of a read, in case a damaged header states a huge one."""

    def __init__(self, stream: BinaryIO, where: Path):
        super().__init__()
        self._stream, self._where = stream, where

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_READ:
            raise DataError(f"{self._where} has a header of {size:,} bytes.\nExpected {_MOST_READ:,} at most.")
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


class _Slice(io.RawIOBase):
    """The bytes of a member of a tar file, as a stream."""

    def __init__(self, stream: BinaryIO, first: int, size: int):
        super().__init__()
        self._stream, self._first, self._size, self._position = stream, first, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        self._position = max(0, position + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer) -> int:
        size = max(0, min(len(buffer), self._size - self._position))
        self._stream.seek(self._first + self._position)
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError("it ends within a file")
        buffer[:size] = data
        self._position += size
        return size


def _slice(stream: BinaryIO, layer: Layer) -> BinaryIO:
    if layer.kind == "tar":
        return io.BufferedReader(_Slice(stream, layer.first, layer.size), 1 << 16)
    with zipfile.ZipFile(stream) as archive:
        return archive.open(archive.infolist()[layer.first])


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Context manager around reading an archive. Raises DataError (exit 3) if it is damaged, OSError if a disk is full."""
    try:
        yield
    except _DAMAGE as error:
        if getattr(error, "errno", None) in FULL:
            raise
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise DataError(f"{path} is cut off or damaged ({reason}).\nExpected a whole archive: download it again.") from error


class OpenArchive:
    """The archive that a process has open, so that reading its members in order does not start from the beginning each time."""

    def __init__(self):
        self._key, self._streams = None, contextlib.ExitStack()

    def open(self, member: Member) -> BinaryIO:
        """Open a member. The caller closes it before opening the next."""
        status = member.archive.stat()  # a watched archive may have been replaced
        key = member.archive, member.layers[:-1], status.st_ino, status.st_size, status.st_mtime_ns
        if key != self._key:
            self.close()
            stream = self._streams.enter_context(member.archive.open("rb"))
            for layer in member.layers[:-1]:
                stream = self._streams.enter_context(_slice(self._streams.enter_context(decompressed(stream)), layer))
            self._last = self._streams.enter_context(decompressed(stream))
            self._key = key
        return _slice(self._last, member.layers[-1])

    def close(self) -> None:
        """Close the archive."""
        self._key = None
        self._streams.close()
