"""A pseudo-terminal of a given width, and the text visible on it."""

import fcntl
import os
import pty
import struct
import termios
import threading
from contextlib import contextmanager


@contextmanager
def terminal(columns):
    """Yield the file that a program writes to, and a function that closes it and returns the rows on the screen."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    chunks = []
    thread = threading.Thread(target=_read, args=(reader, chunks))  # else the program would wait for a full buffer
    thread.start()
    file = os.fdopen(writer, "w", encoding="utf-8")

    def rows():
        file.close()
        thread.join()
        return screen(b"".join(chunks).decode(), columns)

    try:
        yield file, rows
    finally:
        file.close()
        thread.join()
        os.close(reader)


def _read(reader, chunks):
    try:
        while chunk := os.read(reader, 1 << 12):
            chunks.append(chunk)
    except OSError:  # the other end is closed
        return


def screen(text, columns):
    """Return the rows of a text on a terminal, without trailing blanks, including rows that scrolled off the top.

    It knows carriage return, line feed and cursor up. A character after the last column goes to the next row.
    """
    cells, row, column = {}, 0, 0
    text = text.replace("\x1b[A", "\v")  # any single character that the text does not have
    for character in text:
        if character == "\r":
            column = 0
        elif character in "\n\v":
            row += 1 if character == "\n" else -1
        else:
            if column == columns:
                row, column = row + 1, 0
            cells[row, column] = character
            column += 1
    last = max((row for row, _ in cells), default=-1)
    rows = ["".join(cells.get((row, column), " ") for column in range(columns)).rstrip() for row in range(last + 1)]
    return rows[: max((n for n, shown in enumerate(rows, 1) if shown), default=0)]
