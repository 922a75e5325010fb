"""The number of threads does not change a training: where a sum is split in fixed parts, its last bits stay the same."""

import pytest
import torch
from makers import ROOT

from nowcast import config
from nowcast.dataset.batches import Batch
from nowcast.runtime.precision import has_bfloat16, processor_flags
from nowcast.runtime.threads import one_thread
from nowcast.training.learner import Learner

CAPABILITY = torch.backends.cpu.get_cpu_capability()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CAPABILITY not in ("AVX2", "AVX512"), reason="may split other sums"),
]
# cells and cases so many that torch would split each sum and product of these recipes among its threads
SETTINGS = ["training.batch_size=2", 'training.start_from=""']


def trained(recipe, crop, threads, precision):
    """All weights, averages and optimizer states after two updates, and the losses."""
    with one_thread(torch.get_num_threads, torch.set_num_threads):
        torch.set_num_threads(threads)
        made = Learner(config.read(ROOT / f"configs/{recipe}.toml", settings_of(recipe, precision)), torch.device("cpu"))
        data, losses = made.experiment.data, []
        frames = 8 * torch.rand(2, data.input_frames + data.lead_frames, crop, crop, generator=torch.Generator().manual_seed(0))
        blank = made.model.blank_inputs(2, data.lead_frames, (crop, crop)).get("guidance")
        batch = Batch(frames[:, : data.input_frames], frames[:, data.input_frames :], ((0, 0, 0, 0),) * 2, blank)
        for step in range(2):
            losses.append(made.compute_gradients([batch], step, progress=0.0).read())
            made.apply_gradients(step, rate=1e-3)
        return made.state_tensors(), losses


def settings_of(recipe, precision):
    of_grid = ["model.grid=[0,0]"] if recipe == "archive" else []
    return [*SETTINGS, f'training.precision="{precision}"', *of_grid]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("recipe", "crop"), [("archive", 52), ("quickstart", 104), ("synthetic", 64)])
def test_one_thread_and_two_train_alike_to_the_last_bit(recipe, crop, precision):
    if precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
        pytest.skip("no units of bfloat16")
    if precision == "float32" and "amx_bf16" in processor_flags():
        pytest.skip("matrix products of float32 are split among threads on such processors")
    (one, losses), (two, others) = (trained(recipe, crop, threads, precision) for threads in (1, 2))
    assert losses == others
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
    assert any(tensor.any() for name, tensor in one.items() if "head.weight" in name)
