"""Record a training: its events in metrics.jsonl and in the loggers of `training.loggers`, and pictures of a few cases.

Errors here never end the run: a warning is logged once, and training continues without that log.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.dataset.batches import Batches
from nowcast.runtime import distributed
from nowcast.training.learner import Learner
from nowcast.training.logs import LOGGERS
from nowcast.training.logs.logger import Logger, Start
from nowcast.training.run_folder import METRICS, append_event, first_validation
from nowcast.training.validation import Kept

log = logging.getLogger(__name__)
NUM_CASES = 3  # number of cases whose pictures are logged at each validation
# past (time, y, x), forecast and observed (lead, y, x) mm/h -> a picture (row, column, RGB) uint8
Draw = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Recorder:
    """Writes the events of a run and sends them to loggers; only in the first of several processes.

    draw: draws a picture of a case, or None: no pictures
    """

    def __init__(self, output: Path, names: Sequence[str], draw: Draw | None = None):
        self.output, self.names, self.draw = output, names, draw
        self.loggers: dict[str, Logger] = {}
        self.can_record = True
        self.start: dict[str, Any] = {}  # scores of the weights before the first step, which stand beside all later ones
        self.cases: list[tuple[int, int]] = []  # (batch, case in it) of the cases whose pictures are logged

    @contextmanager
    def opened(self, step: int, config: Mapping[str, Any]) -> Iterator[None]:
        """Context manager around a training whose last validation was at `step` (-1: none): opens the loggers, closes them."""
        for name in self.names if distributed.is_first() else ():
            self._attempt(name, lambda name=name: self.loggers.update({name: LOGGERS[name](Start(self.output, step, config))}))
        self.start = _named_scores(first_validation(self.output / METRICS)) if step >= 0 else {}
        try:
            yield
        finally:
            for name, logger in list(self.loggers.items()):
                self._attempt(name, logger.close)

    def record(self, event: dict[str, Any]) -> None:
        """Add an event to metrics.jsonl, and send it to the loggers."""
        if not distributed.is_first():
            return
        try:
            append_event(self.output / METRICS, event)
        except OSError as error:
            if self.can_record:
                log.warning("%s cannot be written (%s): training goes on without", self.output / METRICS, error.strerror)
            self.can_record = False
        event = event | (self.start if event["split"] == "validation" else {})
        for name, logger in list(self.loggers.items()):
            self._attempt(name, lambda logger=logger: logger.record(event))
        if "weights" in event:
            self.start = _named_scores(event)

    def show(self, learner: Learner, batches: Batches | Kept, num_batches: int, step: int) -> None:
        """Forecast the cases whose pictures are logged, always the same, and send the pictures to the loggers."""
        shown = {name: logger for name, logger in self.loggers.items() if logger.takes_pictures}
        if not shown or self.draw is None:
            return
        self.cases = self.cases or _wettest(batches, num_batches)
        pictures = [self._drawn(learner, batches, *case) for case in self.cases]
        for name, logger in shown.items():
            self._attempt(name, lambda logger=logger: logger.show(step, pictures))

    def _drawn(self, learner: Learner, batches: Batches | Kept, number: int, case: int) -> np.ndarray:
        batch = batches[number]
        forecast = learner.forecast(batch)[case]
        return self.draw(batch.past[case].numpy(), forecast, batch.future[case].float().numpy())

    def _attempt(self, name: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # whatever a package raises, the training is worth more than its log
            self.loggers.pop(name, None)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            log.warning("training.loggers: %s cannot log (%s): training goes on without", name, reason)


def _named_scores(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of the validation before the first step under the name of its weights, as those of a baseline."""
    return {f"{event['weights']}_{score}": event[score] for score in ("csi", "mae") if score in event and "weights" in event}


def _wettest(batches: Batches | Kept, num_batches: int) -> list[tuple[int, int]]:
    """Return (batch, case in it) of the wettest case in the first, the middle and the last batch of a validation."""
    ranked = []
    for number in sorted({0, num_batches // 2, num_batches - 1}):
        rain = np.nan_to_num(batches[number].future.float().numpy()).mean(axis=(1, 2, 3))
        ranked += [(number, int(case)) for case in np.argsort(-rain, kind="stable")]
    firsts = [pair for n, pair in enumerate(ranked) if pair[0] not in {other[0] for other in ranked[:n]}]
    return (firsts + [pair for pair in ranked if pair not in firsts])[:NUM_CASES]
