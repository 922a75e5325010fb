"""Damage to files, as a power cut, a full disk or a faulty one leaves it."""

import os


def zeros_from(first):
    """Damage that leaves the first bytes of a file and makes all others zero."""

    def damage(path):
        content = path.read_bytes()
        path.write_bytes(content[:first] + bytes(len(content) - first))

    return damage


def cut(path):
    """Remove the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    """Leave nothing in a file."""
    path.write_bytes(b"")


def remove(path):
    """Remove a file."""
    path.unlink()


def replace(old, new):
    """Damage that puts other bytes of the same number in place of some."""
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))
