"""What a GPU is needed for is named where there is none; memory is counted without one."""

import re

import pytest
import torch
from makers import ROOT
from makers.processes import call_script


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told(tmp_path):
    done = call_script("benchmarks/gpu.py", "--output", tmp_path / "page.md")
    assert done.returncode == 2
    assert done.stderr.startswith("error: torch sees no CUDA device")
    assert not (tmp_path / "page.md").exists()


@pytest.mark.slow
def test_the_memory_of_a_step_is_that_of_a_real_one():
    few = ["--set", "data.input_frames=2", "--set", "data.lead_frames=2"]
    done = call_script("benchmarks/gpu_memory.py", ROOT / "configs/synthetic.toml", "--shape", "32", "32", *few, "--check")
    assert done.returncode == 0, done.stderr
    cells = re.split(r" \| ", done.stdout.splitlines()[-1].strip("| "))
    counted, really = float(cells[3]), float(cells[-1].strip(" |"))
    assert counted == pytest.approx(really, rel=0.1)
