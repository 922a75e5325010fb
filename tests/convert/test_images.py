"""PNG and GIF images: what is told of colours that are not in the table."""

import numpy as np
import pytest
from makers import command
from makers.originals import TABLE, write_image

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")


def test_colours_that_are_not_in_the_table_are_told_once(tmp_path):
    (tmp_path / "table.toml").write_text(TABLE)
    numbers = np.zeros((12, 14), int)
    for minute in (0, 5):
        numbers[:6, : 7 + minute] = 4
        write_image(tmp_path / f"2020060100{minute:02d}.png", numbers)
    arguments = (tmp_path / "*.png", "--output", tmp_path / "out", "--colours", tmp_path / "table.toml", "--processes", 1)
    code, _, err = command("convert", *arguments)
    assert code == 0
    said = "202006010000.png: 25 % of the pixels have colours that are not in the table, such as #010203: they are missing"
    assert (said in err, err.count("not in the table")) == (True, 1)
