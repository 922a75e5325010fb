"""A training leaves cores to the processes that read for it, and hears every signal."""

import signal

import pytest
import torch
from makers import rain, tiny_experiment, write_record

from nowcast.dataset.archive import open_archive
from nowcast.runtime.threads import one_thread
from nowcast.training import trainer as trainer_module
from nowcast.training.learner import Learner
from nowcast.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def record(tmp_path):
    return write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))


def trainer(experiment, output):
    output.mkdir()
    made = Trainer(Learner(experiment, torch.device("cpu")), open_archive(experiment.data), output)
    made.prepare_data()
    return made


def test_a_signal_that_comes_while_processes_ask_each_other_is_not_forgotten(record, tmp_path, monkeypatch):
    made = trainer(tiny_experiment([record]), tmp_path / "run")

    def largest(number):
        made.stop.received = signal.SIGTERM
        return number

    monkeypatch.setattr(trainer_module.distributed, "largest", largest)
    assert [made.is_asked_to_stop() for _ in range(2)] == [False, True]


def test_updates_leave_a_core_to_the_process_that_reads_and_validations_take_all(record, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(trainer_module, "num_cores", lambda: 2)
    made, seen = trainer(tiny_experiment([record], workers=1), tmp_path / "run"), {}

    def noting(name):
        function = getattr(made.learner, name)

        def noted(*arguments, **options):
            seen.setdefault(name, set()).add(torch.get_num_threads())
            return function(*arguments, **options)

        monkeypatch.setattr(made.learner, name, noted)

    noting("compute_gradients"), noting("validate")
    with one_thread(torch.get_num_threads, torch.set_num_threads):
        torch.set_num_threads(2)
        made.run()
    assert seen == {"compute_gradients": {1}, "validate": {2}}
