"""Each module imports only from the layers above its own; what is heavy stays out of the way until it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nowcast"

# A module may import from the lines above its own, and from its own line (but never in a circle).
LAYERS = """
errors
atomic config config_text neighbourhood units windows sums motion signals stopwatch file_format frame_store thinning threads
decoding pairs spatial spectra probability examples
fields grid files lagrangian times progress
netcdf baselines metrics
forecast_file forecast_layout forecast_reader damage cache file_index bootstrap probability_scores pictures
diagrams example_pictures plotting probability_diagrams
fingerprint frame_choice choices
device transform losses native memory models
dataset checkpoint calibration distributed optimisation run_folder tiles
planning forecaster validation scored loading starting_weights
cases training probability_cases
prediction provenance inspection estimate export findings resuming
evaluation watching
score_files
html_tables
html_report
report pooling recipe
commands plan_command
cli
__main__
"""
RANK = {name: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}
WITHOUT_TORCH = {
    *("errors", "atomic", "config", "units", "windows", "sums", "pairs", "spatial", "spectra", "metrics", "bootstrap"),
    *("probability", "probability_scores", "signals", "stopwatch", "fields", "grid", "files", "times", "progress"),
    *("netcdf", "baselines", "forecast_file", "forecast_layout", "forecast_reader", "cache", "file_index", "inspection"),
    *("cli", "thinning", "examples", "pictures", "diagrams", "example_pictures", "plotting", "probability_diagrams"),
    *("decoding", "file_format", "frame_store", "damage"),
    *("neighbourhood", "config_text", "fingerprint", "frame_choice", "choices", "motion", "lagrangian", "threads"),
}

OUTPUT = {"print", "sys.exit", "exit", "typer.echo", "logging.basicConfig"}


def modules():
    """Name in LAYERS -> paths; a sub-package is one module."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


MODULES = modules()


def imports(path, *, top_only=False):
    """The dotted names that a file imports; `top_only` leaves out what functions import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} imports relatively"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner(name, **options):
    """The modules of this package that a module imports."""
    names = (dotted.split(".") for path in MODULES[name] for dotted in imports(path, **options))
    return {parts[1] for parts in names if parts[0] == "nowcast" and len(parts) > 1 and parts[1] in MODULES} - {name}


def outer(name, **options):
    return {dotted.split(".")[0] for path in MODULES[name] for dotted in imports(path, **options)} - {"nowcast"}


def test_every_module_has_a_layer():
    assert set(RANK) == set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_from_its_own_layer_and_those_above(name):
    below = {other for other in inner(name) if RANK[other] > RANK[name]}
    assert not below


def test_no_imports_go_round_in_a_circle():
    remaining = {name: inner(name) for name in MODULES}
    while remaining:
        free = {name for name, needed in remaining.items() if not needed & set(remaining)}
        assert free, f"these import each other: {sorted(remaining)}"
        remaining = {name: needed for name, needed in remaining.items() if name not in free}


def reached(name):
    """Everything of this package that importing a module imports."""
    found, queue = set(), [name]
    while queue:
        new = inner(queue.pop(), top_only=True) - found
        found |= new
        queue += new
    return found | {name}


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_torch_is_not_imported_before_it_is_needed(name):
    assert not {module for module in reached(name) if "torch" in outer(module, top_only=True)}


def test_the_command_line_imports_nothing_heavy():
    assert inner("cli", top_only=True) == {"errors"}
    assert outer("cli", top_only=True) <= {"typer", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"cli"}))
def test_only_the_command_line_prints_exits_and_sets_up_logging(name):
    for path in MODULES[name]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "sys.exit", "exit", "typer.echo", "logging.basicConfig"}, (
                    f"{path.name}: {called}"
                )


def test_no_pickle_is_read():
    forbidden = {"torch.load", "pickle.load", "pickle.loads", "yaml.load", "eval", "exec", "os.system"}
    for paths in MODULES.values():
        for path in paths:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            assert not called & forbidden, path.name
            loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load"]
            assert not any(keyword.arg == "allow_pickle" for node in loads for keyword in node.keywords), path.name


def test_help_imports_neither_torch_nor_numpy():
    program = "import sys; from nowcast import cli; sys.argv[1:] = ['--help']\ntry: cli.main()\nexcept SystemExit: pass\n"
    program += "print([name for name in ('torch', 'numpy', 'xarray', 'matplotlib', 'netCDF4', 'cv2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
