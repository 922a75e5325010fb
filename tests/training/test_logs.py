"""What a training logs: metrics.csv with times, TensorBoard, MLflow and Weights & Biases offline; and never at its cost."""

import csv
import signal
from datetime import datetime

import numpy as np
import pytest
from makers import rain, tiny_experiment
from makers.runs import train

from nowcast import config
from nowcast.config.schema import NamedSection
from nowcast.errors import Stopped, UsageError
from nowcast.quantity import RAIN_RATE
from nowcast.report.case_picture import draw_case
from nowcast.training.learner import Learner
from nowcast.training.logs import LOGGERS, check_installed
from nowcast.training.logs.logger import Logger, numbers
from nowcast.training.recorder import Recorder

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]


def rows_of(run):
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_numbers_are_named_by_score_and_forecaster():
    event = {"step": 0, "split": "validation", "weights": "untrained", "loss": 2.0, "csi": {"0.5": 0.4, "1": None}, "mae": 1.0,
             "extrapolation_csi": {"0.5": 0.6}, "extrapolation_mae": 0.9, "unit": "mm/h"}  # fmt: skip
    assert numbers(event) == {"loss/validation": 2.0, "csi_0.5/untrained": 0.4, "mae/untrained": 1.0,
                              "csi_0.5/extrapolation": 0.6, "mae/extrapolation": 0.9}  # fmt: skip
    trained = numbers({"step": 3, "split": "training", "loss": 1.0, "learning_rate": 0.01})
    assert trained == {"loss/training": 1.0, "learning_rate/training": 0.01}


def test_metrics_csv_has_times_and_goes_on_after_a_resume(record, tmp_path, monkeypatch):
    apply = Learner.apply_gradients

    def apply_then_signal(self, step, **rate):
        apply(self, step, **rate)
        if step + 1 == 4:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", apply_then_signal)
        with pytest.raises(Stopped):
            train(tiny_experiment([record]), tmp_path / "run")
    train(tiny_experiment([record]), tmp_path / "run", resume=True)
    rows = rows_of(tmp_path / "run")
    assert [(row["step"], row["split"]) for row in rows] == [("0", "validation"), ("3", "training"), ("3", "validation"),
                                                             ("6", "training"), ("6", "validation")]  # fmt: skip
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert all(datetime.fromisoformat(row["time"]) for row in rows)
    assert rows[0]["mae/untrained"]
    assert rows[2]["mae/network"]
    for beside in ("csi_1/extrapolation", "csi_1/untrained", "mae/untrained"):
        assert rows[4][beside] == rows[2][beside] == rows[0][beside] != ""


def test_a_log_that_fails_never_costs_the_run(record, tmp_path, monkeypatch, caplog):
    class Broken(Logger):
        def __init__(self, start): ...

        def record(self, event):
            raise ValueError("full\nand more")

    monkeypatch.setitem(LOGGERS, "csv", Broken)
    train(tiny_experiment([record], steps=2), tmp_path / "run")
    assert caplog.text.count("training.loggers: csv cannot log (full): training goes on without") == 1


def test_a_missing_package_is_told_before_the_work(record, tmp_path, monkeypatch):
    monkeypatch.setattr(LOGGERS["wandb"], "requires", "absent_package")
    says = r"training\.loggers has 'wandb', and absent_package is not installed\.\nInstall it: pip install wandb"
    with pytest.raises(UsageError, match=says):
        train(tiny_experiment([record], loggers=["csv", "wandb"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_installed(["csv"])


def test_an_old_config_without_the_key_still_reads(record):
    tree = config.as_dict(tiny_experiment([record]))
    del tree["training"]["loggers"]
    assert config.from_dict(tree, source="old").training.loggers == ("csv",)


def test_a_picture_shows_past_observed_and_forecast():
    fields = rain(frames=14, shape=(20, 30))
    fields[0, :5] = np.nan
    picture = draw_case(fields[:2], fields[2:8], fields[8:], RAIN_RATE)
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * (20 * 4 + 3), 5 * (30 * 4 + 3), 3)
    assert (picture[:80, :120] == picture[83:163, :120]).all()  # the newest past frame in both rows
    assert (picture[:80, 123:243] != picture[83:163, 123:243]).any()


def with_pictures(record, tmp_path, name, **sections):
    experiment = tiny_experiment([record], steps=2, validate_every=2, loggers=["csv", name])
    experiment = experiment.model_copy(update={key: NamedSection(**keys) for key, keys in sections.items()})
    train(experiment, tmp_path / "run")
    return tmp_path / "run" / "logs" / name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_scores_and_three_pictures(record, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(with_pictures(record, tmp_path, "tensorboard")))
    events.Reload()
    assert {"loss/training", "loss/validation", "csi_1/network", "csi_1/untrained", "csi_1/extrapolation"} <= set(
        events.Tags()["scalars"]
    )
    assert sorted(events.Tags()["images"]) == ["cases/1", "cases/2", "cases/3"]
    assert [image.step for image in events.Images("cases/1")] == [0, 2]
    (loss,) = [row["loss/training"] for row in rows_of(tmp_path / "run") if row["split"] == "training"]
    assert events.Scalars("loss/training")[0].value == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_scores_and_pictures_without_a_server(record, tmp_path):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    folder = with_pictures(record, tmp_path, "mlflow")
    client = MlflowClient(folder.as_uri())
    run = client.get_run((folder / "run_id").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.params["model.name"] == "encoder_forecaster"
    (loss,) = [row["loss/training"] for row in rows_of(tmp_path / "run") if row["split"] == "training"]
    assert client.get_metric_history(run.info.run_id, "loss/training")[0].value == pytest.approx(float(loss), rel=1e-4)
    assert len(list(folder.rglob("case*step*.png"))) == 6


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_offline(record, tmp_path):
    pytest.importorskip("wandb")
    folder = with_pictures(record, tmp_path, "wandb")
    (run,) = folder.glob("offline-run-*")
    assert next(run.glob("*.wandb")).stat().st_size > 1000
    assert len(list(run.rglob("cases*.png"))) + len(list(run.rglob("*.png"))) >= 6


def test_without_validation_and_draw_no_picture_is_asked(tmp_path):
    recorder = Recorder(tmp_path, ["csv"], draw=None)
    with recorder.opened(-1, {}):
        recorder.record({"step": 1, "split": "training", "loss": 1.0})
        recorder.show(None, None, 0, 1)
    assert rows_of(tmp_path)[0]["loss/training"] == "1"
