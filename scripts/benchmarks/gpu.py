#!/usr/bin/env python3
"""Run on a machine with a GPU: the tests that need one, then the benchmarks of the engine and of the recipes' steps.

Everything printed goes to one page of Markdown as well, with the GPU, its driver and the version of torch at its head.

    python scripts/benchmarks/gpu.py --data RECORD --output gpu_results.md
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("--stacks", "64x3", "128x3", "--grids", "64", "128", "--batches", "8", "32", "--device", "cuda")
RECIPES = ("radar", "archive", "quickstart")  # are trained on the record; all others on random fields of their own shape


def commands(data: str | None) -> dict[str, list[str]]:
    """Return the commands by the headings of their sections."""
    record = ["--data", data] if data else []
    trained = [f"configs/{name}.toml" for name in RECIPES]
    others = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs").glob("*.toml")) if path.stem not in RECIPES]
    training = "scripts/benchmarks/training.py"
    return {
        "Tests": ["-m", "pytest", "-q", "-n", "0", "tests/system/test_gpu.py"],
        "Engine": ["scripts/benchmarks/engine.py", *STACKS],
        "Recipes": [training, *trained, *record, "--device", "cuda"],
        "Published systems": [training, *others, "--device", "cuda"],
    }


def head() -> list[str]:
    """Return the first lines of the page: the GPU, its memory, and versions."""
    properties = torch.cuda.get_device_properties(0)
    memory, capability = properties.total_memory / 1e9, f"{properties.major}.{properties.minor}"
    return [f"# {properties.name}", "", f"{memory:.0f} GB, capability {capability}, torch {torch.__version__}", ""]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="record, or folder, to train on (default: random fields)")
    parser.add_argument("--output", type=Path, default=Path(tempfile.gettempdir()) / "gpu_results.md", help="the page to write")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print(
            "error: torch sees no CUDA device here.\nRun this on a machine with a GPU and a CUDA build of torch.",
            file=sys.stderr,
        )
        sys.exit(2)
    page, failed = head(), []
    for heading, words in commands(arguments.data).items():
        done = subprocess.run([sys.executable, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"## {heading}\n\n{done.stdout}", flush=True)
        page += [f"## {heading}", "", f"`python {' '.join(words)}`", "", done.stdout.rstrip(), ""]
        if done.returncode:
            failed.append(heading)
        arguments.output.write_text("\n".join(page), encoding="utf-8")
    print(f"written: {arguments.output}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
