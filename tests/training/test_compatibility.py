"""What may go on from a checkpoint: the records must lie where they lay, and what is said of a run that has ended is true."""

import numpy as np
import pytest
import xarray as xr
from makers import rain, tiny_experiment, write_record
from makers.runs import train

from nowcast.errors import CheckpointError, OutputError
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint, write_checkpoint
from nowcast.training.run_folder import begin

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def run(tmp_path):
    """A run folder after two steps, trained on rain.nc."""
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    train(tiny_experiment([record], steps=2), tmp_path / "run")
    return tmp_path / "run"


def moved(source, target, *, east=0.0, **projection):
    """Copy a record to `target` with its x moved by metres, and other numbers of its projection."""
    with xr.open_dataset(source, decode_cf=False) as dataset:
        changed = dataset.assign_coords(x=dataset.x.copy(data=dataset.x.values + east)).load()
    changed.crs.attrs.update(projection)
    changed.to_netcdf(target)
    return target


@pytest.mark.parametrize("changes", [{"east": 100_000.0}, {"latitude_of_projection_origin": 51.0}])
def test_a_record_of_another_place_does_not_resume_a_run(run, tmp_path, changes):
    other = moved(tmp_path / "rain.nc", tmp_path / "other.nc", **changes)
    says = (
        rf"^the records lie elsewhere than those of {run / LAST}, by their coordinates or projection: "
        rf"data\.records = \['{other}'\] \(before: \['{tmp_path / 'rain.nc'}'\]\)\.\nResume with the records as they were"
    )
    with pytest.raises(CheckpointError, match=says) as caught:
        train(tiny_experiment([other], steps=4), run, resume=True)
    assert caught.value.exit_code == 4


def changed(values, *, what):
    """Return the frames (time, y, x) with other values in some places."""
    values = values.copy()
    if what == "missing":
        values[3, :2] = np.nan
    else:
        values[3] *= np.float32(1.01)
    return values


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", r"missing fraction 0\.0\d+ \(before: 0\)"),
        ("scaled", r"(wet fraction|mean of 1 - exp\(-rain\)) 0\.\d+ \(before: 0\.\d+\)"),
    ],
)
@pytest.mark.parametrize("same_file", [True, False])
def test_a_record_of_other_values_at_the_same_times_does_not_resume_a_run(run, tmp_path, what, says, same_file):
    other = tmp_path / ("rain.nc" if same_file else "other.nc")
    other.unlink(missing_ok=True)  # replaced, as the file may still be open
    write_record(other, changed(rain(frames=40, shape=(24, 28)), what=what))
    before = {path: path.read_bytes() for path in sorted(run.iterdir())}
    says = rf"^{other.stem} holds other values than when {run / LAST} was trained: {says}\.\nResume with the records as they"
    with pytest.raises(CheckpointError, match=says) as caught:
        train(tiny_experiment([other], steps=4), run, resume=True)
    assert caught.value.exit_code == 4
    assert {path: path.read_bytes() for path in sorted(run.iterdir())} == before


def test_a_run_of_before_frames_were_compared_resumes_and_compares_them_from_then_on(run, tmp_path):
    last = read_checkpoint(run / LAST)
    older = {key: value for key, value in last.metadata.items() if key != "frame_statistics"}
    write_checkpoint(run / LAST, older, last.tensors)
    assert "of 3" in train(tiny_experiment([tmp_path / "rain.nc"], steps=3), run, resume=True)
    assert read_checkpoint(run / LAST).metadata["frame_statistics"] == last.metadata["frame_statistics"]


@pytest.mark.parametrize("changes", [{"batch_size": 3}, {"validation_cases": 8}, {"batch_size": 1, "validation_cases": 2}, {}])
def test_validations_on_other_cases_than_before_are_told(run, tmp_path, caplog, changes):
    """The best loss so far was taken on the old cases: in silence, easier ones would replace a better network."""
    state = read_checkpoint(run / LAST).metadata["state"]
    train(tiny_experiment([tmp_path / "rain.nc"], steps=4, **changes), run, resume=True)
    before = {"batch_size": 2, "validation_cases": 4}
    listed = ", ".join(f"training.{key} = {value} (before: {before[key]})" for key, value in changes.items())
    told = (
        f"validations take other cases than before, by {listed}: their losses do not compare with the best so far, "
        f"{state['best_loss']:.5g} at step {state['best_step']}"
    )
    assert [line for line in caplog.messages if "other cases" in line] == ([told] if changes else [])
    assert (run / "log.txt").read_text().count("other cases") == bool(changes)


def test_a_checkpoint_whose_config_is_damaged_is_not_resumed(run, tmp_path):
    last = read_checkpoint(run / LAST)
    stored = last.metadata["config"] | {"training": last.metadata["config"]["training"] | {"steps": "many"}}
    write_checkpoint(run / LAST, last.metadata | {"config": stored}, last.tensors)
    says = rf"^{run / LAST} cannot be resumed from: its config: training\.steps = 'many'"
    with pytest.raises(CheckpointError, match=says) as caught:
        train(tiny_experiment([tmp_path / "rain.nc"], steps=4), run, resume=True)
    assert caught.value.exit_code == 4


def test_an_old_run_that_cannot_be_deleted_is_told(tmp_path):
    (tmp_path / BEST).mkdir()
    with pytest.raises(OutputError, match=rf"^cannot replace the run in {tmp_path}: Is a directory$") as caught:
        begin(tmp_path, "")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("by", ["records", "fractions"])
def test_a_run_with_windows_near_another_split_is_told_of_them(tmp_path, by):
    minutes = np.datetime64("2020-06-01") + np.arange(40) * np.timedelta64(5, "m")
    records = [
        write_record(tmp_path / f"{name}.nc", rain(frames=40, shape=(24, 28)), times=minutes + np.timedelta64(days, "D"))
        for name, days in (("a", 0), ("b", 10))
    ]
    made = tiny_experiment(records if by == "records" else records[:1], steps=2)
    if by == "records":
        splits = made.data.splits.model_copy(update={"by": "records", "validation_records": ("*b.nc",)})
        made = made.model_copy(update={"data": made.data.model_copy(update={"splits": splits})})
    train(made, tmp_path / "run")
    last = read_checkpoint(tmp_path / "run" / LAST)
    write_checkpoint(
        tmp_path / "run" / LAST, last.metadata | {"windows_sha256": "0", "windows": {"training": 99}}, last.tensors
    )
    near = "; or that run was trained when nowcast still took windows near another split" if by == "records" else ""
    says = (
        rf"^the records do not hold the windows of .*{LAST}: training windows = \d+ \(before: 99\){near}\.\n"
        r"Resume with the records as they were, or begin a new run\.$"
    )
    with pytest.raises(CheckpointError, match=says):
        train(
            made.model_copy(update={"training": made.training.model_copy(update={"steps": 4})}), tmp_path / "run", resume=True
        )


def test_a_record_rounded_or_moved_to_another_folder_resumes_and_so_does_an_older_run(run, tmp_path):
    same = moved(tmp_path / "rain.nc", tmp_path / "same.nc", east=np.float32(0.1))  # a tenth of a thousandth of a cell
    assert "of 3" in train(tiny_experiment([same], steps=3), run, resume=True)
    last = read_checkpoint(run / LAST)
    older = {key: value for key, value in last.metadata.items() if key != "grids_sha256"}
    write_checkpoint(run / LAST, older, last.tensors)
    other = moved(tmp_path / "rain.nc", tmp_path / "other.nc", east=100_000.0)
    assert "of 4" in train(tiny_experiment([other], steps=4), run, resume=True)


def test_a_run_that_ended_early_or_beyond_what_is_asked_for_says_so(tmp_path):
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    # a rate this small changes nothing, so no validation after the first has a lower loss
    settings = {"learning_rate": 1e-12, "optimizer": "sgd", "ema": 0.0, "validate_every": 2, "early_stopping": 2}
    made = tiny_experiment([record], steps=12, **settings)
    train(made, tmp_path / "run")

    def resumed(**training):
        changed = made.training.model_copy(update=training)
        return train(made.model_copy(update={"training": changed}), tmp_path / "run", resume=True)

    run = tmp_path / "run"
    early = f"{run} was ended by early stopping at step 4 of 12: nothing to resume; --set training.early_stopping=0 trains on"
    assert resumed() == early
    assert resumed(steps=2) == f"{run} is trained to step 4, beyond the requested 2: nothing to resume"
    assert resumed(steps=4) == f"{run} is already trained to its last step, 4: nothing to resume"
    assert "of 6" in resumed(steps=6, early_stopping=0)
