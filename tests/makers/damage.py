"""Damage files as a power cut, a full disk or a faulty disk does."""

import os


def zeros_from(first):
    """Return a function that sets all bytes of a file after the first ones to zero."""

    def damage(path):
        content = path.read_bytes()
        path.write_bytes(content[:first] + bytes(len(content) - first))

    return damage


def cut(path):
    """Remove the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    """Truncate a file to 0 bytes."""
    path.write_bytes(b"")


def remove(path):
    """Remove a file."""
    path.unlink()


def replace(old, new):
    """Return a function that replaces bytes of a file by others of the same length."""
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))
