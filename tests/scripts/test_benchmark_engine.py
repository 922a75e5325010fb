"""scripts/benchmarks/engine.py runs and prints its tables; no time is asserted."""

import pytest
from makers.processes import call_script


@pytest.mark.slow
def test_the_tables_have_a_row_for_each_stack_and_recipe():
    options = ["--device", "cpu", "--precision", "float32", "--stacks", "8x3", "--grids", "8", "--rounds", "1"]
    done = call_script("benchmarks/engine.py", *options, "--recipes", "cnn_lstm")
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    stacks = [row[1:4] for row in rows if row[0] == "3 × 8, 3×3, 8², batch 1"]
    assert [what for what, *_ in stacks] == ["plain float32", "engine float32"]
    assert stacks[0][1:] == ["1.00 (1.00–1.00)"] * 2
    assert "cnn_lstm" in [row[0] for row in rows]
