"""Write the output folder of an evaluation: scores, pictures, report.html."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.score_files import SCORES_CSV, SCORES_JSON, SCORES_NC, as_csv, as_dataset, as_json, write_dataset
from nowcast.report.case_maps import CASE_PICTURES
from nowcast.report.diagrams import draw_scores
from nowcast.report.maps import drawn, png
from nowcast.report.page import as_html
from nowcast.runtime.outputs import making_folder, may_write, replacing

log = logging.getLogger(__name__)
LEADS_PNG, MAPS_PNG, ANIMATION_GIF, REPORT_HTML = "scores_by_lead.png", "forecasts.png", "forecasts.gif", "report.html"
FILES = (REPORT_HTML, SCORES_CSV, SCORES_JSON, SCORES_NC, LEADS_PNG, MAPS_PNG, ANIMATION_GIF)


def write(
    evaluation: Evaluation, rows: Sequence[Mapping], output: Path, *, command: str = "", overwrite: bool = False
) -> list[Path]:
    """Write scores.nc, scores.csv, scores.json, the pictures and report.html to the folder `output`; return their paths.

    forecasts.png and forecasts.gif show the middle one of the example cases (the median) and are left out without examples.
    `command` is the command line, for the report. Raises OutputError (exit 5) if a file exists already or cannot be written.
    """
    ready(output, overwrite=overwrite, inputs=evaluation.inputs)
    contents = {
        SCORES_CSV: as_csv(rows).encode(),
        SCORES_JSON: as_json(evaluation, rows).encode(),
        LEADS_PNG: png(drawn(draw_scores(rows, evaluation.thresholds, list(evaluation.blocks), evaluation.quantity.unit))),
    }
    pictures = {
        what: [draw(example, evaluation.quantity) for example in evaluation.examples] for what, draw in CASE_PICTURES.items()
    }
    if evaluation.examples:
        middle = len(evaluation.examples) // 2
        contents |= {MAPS_PNG: pictures["maps"][middle], ANIMATION_GIF: pictures["animation"][middle]}
    contents[REPORT_HTML] = as_html(evaluation, rows, pictures, command=command).encode()
    with making_folder(output):
        for name, content in contents.items():
            with replacing(output / name, overwrite=overwrite) as temporary:
                temporary.write_bytes(content)
        with replacing(output / SCORES_NC, overwrite=overwrite) as temporary:
            write_dataset(as_dataset(evaluation, rows), temporary)
    paths = [output / name for name in FILES if name in contents or name == SCORES_NC]
    log.info("written: %s", ", ".join(map(str, paths)))
    return paths


def ready(output: Path, *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise OutputError (exit 5), before hours of scoring, if the folder holds scores already, or inputs, or cannot be made."""
    files = [output / name for name in FILES]
    may_write(files, overwrite=overwrite, inputs=inputs, makes_folder=True, instead="another --output")
