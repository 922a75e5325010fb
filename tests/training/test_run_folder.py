"""One training at a time writes to a run folder."""

import os

import pytest
from makers import tiny_experiment
from makers.runs import straight_run, train

from nowcast.errors import OutputError
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint
from nowcast.runtime.outputs import locked
from nowcast.training.learner import Learner


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_a_folder_that_a_training_writes_to_is_refused_to_another_one(tmp_path, monkeypatch, how):
    """The second training begins in the middle of the first, which ends as if it had been alone."""
    place = straight_run(tmp_path, tiny_experiment)
    monkeypatch.setenv("NOWCAST_CACHE", str(place / "cache"))
    apply, refused = Learner.apply_gradients, []

    def begin_another(learner, step, **rate):
        apply(learner, step, **rate)
        if step == 0:
            with pytest.raises(OutputError, match="another training is writing to") as caught:
                train(tiny_experiment([place / "rain.nc"]), tmp_path / "run", **how)
            refused.append(caught.value)

    monkeypatch.setattr(Learner, "apply_gradients", begin_another)
    train(tiny_experiment([place / "rain.nc"]), tmp_path / "run")
    assert len(refused) == 1
    for name in (BEST, LAST):
        run, straight = (read_checkpoint(place / folder / name).tensors for folder in ("run", "straight"))
        assert all(run[key].equal(straight[key]) for key in straight)


def test_a_process_that_was_forked_keeps_no_folder_locked(tmp_path):
    """A worker may outlive a training that was killed, which must not hinder the one that resumes it."""
    (to_child, end), (from_child, begun) = os.pipe(), os.pipe()
    with locked(tmp_path):
        if (child := os.fork()) == 0:
            os.close(end)
            os.write(begun, b"b")
            os.read(to_child, 1)  # until the test closes the other end
            os._exit(0)
        os.read(from_child, 1)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.close(end)
        os.waitpid(child, 0)
        for handle in (to_child, from_child, begun):
            os.close(handle)
