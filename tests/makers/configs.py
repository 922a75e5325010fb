"""Read keys and comments from the text of a config."""

import re


def commented_keys(path):
    """Return {dotted key: comment} of a TOML file."""
    comments, section = {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if opened := re.match(r"\[([\w.]+)\]", line):
            section = opened[1]
        elif key := re.match(r"(\w+) = [^#]*(#.*)?$", line):
            comments[f"{section}.{key[1]}"] = (key[2] or "").strip("# ")
    return comments


def dotted(tree, section=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{section}{key}.")
        else:
            yield f"{section}{key}"
