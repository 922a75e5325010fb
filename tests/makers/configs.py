"""The keys and the comments of a config as text."""

import re


def commented_keys(path):
    """{dotted key: its comment} of a TOML file, by line."""
    found, where = {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if opened := re.match(r"\[([\w.]+)\]", line):
            where = opened[1]
        elif key := re.match(r"(\w+) = [^#]*(#.*)?$", line):
            found[f"{where}.{key[1]}"] = (key[2] or "").strip("# ")
    return found


def dotted(tree, where=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{where}{key}.")
        else:
            yield f"{where}{key}"
