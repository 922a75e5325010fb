"""metrics.csv: one line for each event of metrics.jsonl, with its time and the seconds since the run began."""

import csv
import io
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from nowcast.runtime.outputs import replacing
from nowcast.training.logs.logger import Logger, Start, numbers

METRICS_CSV = "metrics.csv"
FIRST = ("time", "seconds", "step", "split")


class CsvFile(Logger):
    """Writes metrics.csv in the run folder, whole, at each event; a score that comes later gets a column of its own."""

    takes_pictures: ClassVar[bool] = False

    def __init__(self, start: Start):
        self.path, self.rows, self.began = start.output / METRICS_CSV, [], time.monotonic()
        if start.step >= 0 and self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= start.step]
        self.before = float(self.rows[-1]["seconds"]) if self.rows else 0.0  # s that the run took before it was resumed

    def record(self, event: Mapping[str, Any]) -> None:
        seconds = self.before + time.monotonic() - self.began
        first = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "seconds": f"{seconds:.1f}"}
        first |= {"step": event["step"], "split": event["split"]}
        self.rows.append(first | {name: f"{value:.6g}" for name, value in numbers(event).items()})
        columns = dict.fromkeys([*FIRST, *(name for row in self.rows for name in row)])
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
