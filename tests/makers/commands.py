"""Command lines of all commands that read a record."""

import tomli_w

from makers import tiny_experiment


def reading_commands(path, folder, *, evaluate=()):
    """Return {name: arguments} of the four commands that read the record at `path` and write into `folder`.

    `evaluate` are more options of that command.
    """
    from nowcast import config

    recipe = folder / "recipe.toml"
    recipe.write_text(tomli_w.dumps(config.as_dict(tiny_experiment([path]))))
    return {
        "inspect": ("inspect", path),
        "predict": ("predict", "persistence", path, "--output", folder / "forecast.nc", "--overwrite"),
        "evaluate": ("evaluate", "persistence", "--observations", path, *evaluate),
        "train": ("train", recipe, "--dry-run"),
    }
