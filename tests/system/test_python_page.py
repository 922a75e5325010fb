"""The page and the notebook of nowcast in Python run as they stand."""

import json
import os
import re

import pytest
from makers import ROOT, rain, tiny_experiment, write_record

from nowcast import config

pytestmark = pytest.mark.slow
PAGE, NOTEBOOK = ROOT / "data" / "python.md", ROOT / "data" / "nowcast.ipynb"


def test_the_page_runs(workplace, undrawn):
    for year, seed in ((2015, 0), (2016, 1)):
        (workplace / "radar" / str(year)).mkdir(parents=True)
        write_record(workplace / "radar" / str(year) / "rain.nc", rain(frames=40, shape=(24, 28), seed=seed))
    (workplace / "my.toml").write_text(config.write(tiny_experiment([], validate_every=2)))
    names = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block.replace('"training.steps": 500', '"training.steps": 2'), str(PAGE), "exec"), names)
    assert names["forecast"].shape == (12, 24, 28)
    assert names["probabilities"].threshold.values.tolist() == [1, 5]
    assert (workplace / "forecast.nc").is_file()
    assert (workplace / "runs" / "my" / "best.safetensors").is_file()
    assert (workplace / "scores" / "python" / "report.html").is_file()
    assert names["future"].shape == (2, 12, 1, 24, 28)


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # as committed: small, and no claim of another machine
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path), "MPLBACKEND": "Agg"}
    where = {"metadata": {"path": str(ROOT / "data")}}
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
    client.execute(env=environment)
    printed = json.dumps(notebook.cells)
    assert "pretrained 0." in printed
    assert "precip_intensity" in printed
