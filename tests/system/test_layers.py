"""Each folder imports only from the layers before its own; what is heavy stays out of the way until it is needed."""

import ast
import subprocess
import sys
from functools import cache

import pytest
from makers import ROOT, rain, write_record

PACKAGE = ROOT / "nowcast"

# A folder (or a module that lies beside the folders) imports from the rows before its own, and from its own row.
LAYERS = """
errors quantity
config runtime
motion models netcdf convert scores
dataset forecasters
training prediction
plan evaluation
report
commands
api
cli
__main__
"""
RANK = {name: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}
WITHOUT_TORCH = {"errors", "quantity", "config", "scores", "netcdf", "convert", "motion", "report", "cli"}
# what only these folders may import: the rest of the package goes through them
ONLY_IN = {
    "netCDF4": {"netcdf"},
    "cftime": {"netcdf"},
    "cf_units": {"netcdf"},
    "matplotlib": {"report"},
    "PIL": {"report", "convert"},
    "jinja2": {"report"},
    **{name: {"convert"} for name in ("h5py", "eccodes", "rasterio", "zarr")},
}
MOST_FILES, MOST_ENTRIES = 14, 23
MOST_FILE_LINES, MOST_FUNCTION_LINES = 330, 40


def modules():
    """Name in LAYERS -> the files of that folder, or of that module alone."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


MODULES = modules()
FILES = {path.relative_to(PACKAGE).as_posix(): path for paths in MODULES.values() for path in paths}


@cache
def parsed(path):
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path):
    """Return all nodes of a file's syntax tree."""
    return tuple(ast.walk(parsed(path)))


@cache
def imports(path, *, top_only=False):
    """Return the dotted names that a file imports; `top_only` leaves out what functions import."""
    found = []
    for node in parsed(path).body if top_only else nodes(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} imports relatively"
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@cache
def calls(path):
    """Return each call in a file, as the text of what is called and the node."""
    return [(ast.unparse(node.func), node) for node in nodes(path) if isinstance(node, ast.Call)]


def inner(name):
    """The other names in LAYERS that a folder or module imports."""
    names = (dotted.split(".") for path in MODULES[name] for dotted in imports(path))
    return {parts[1] for parts in names if parts[0] == "nowcast" and len(parts) > 1 and parts[1] in MODULES} - {name}


def outer(path, **options):
    """The packages that a file imports, but for this one."""
    return {dotted.split(".")[0] for dotted in imports(path, **options)} - {"nowcast"}


def test_every_folder_has_a_layer():
    assert set(MODULES) <= set(RANK)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_folder_imports_from_its_own_layer_and_those_before(name):
    after = {other for other in inner(name) if RANK[other] > RANK[name]}
    assert not after


def module_name(path):
    """As `nowcast.netcdf.places.grid`; of a folder's __init__.py the folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needed(path, names):
    """The files of the package that a file imports: of `from folder import module` the module, not the folder."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dotted = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= dotted & set(names) if dotted & set(names) else {node.module}
    return found & set(names)


def test_no_imports_go_round_in_a_circle():
    """Of files: a folder may import from another of its layer, and that from the first, but no two files each other."""
    names = {module_name(path): path for path in FILES.values()}
    remaining = {name: needed(path, names) - {name} for name, path in names.items()}
    while remaining:
        free = {name for name, imported in remaining.items() if not imported & set(remaining)}
        assert free, f"these import each other: {sorted(remaining)}"
        remaining = {name: imported for name, imported in remaining.items() if name not in free}


def test_folders_that_need_no_torch_do_not_load_it():
    """All in one process, one after the other: the first one that is printed loads it."""
    program = "import sys\n"
    for name in sorted(WITHOUT_TORCH & set(MODULES)):
        program += f"import {', '.join(map(module_name, MODULES[name]))}\n'torch' in sys.modules and print({name!r})\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""


@pytest.mark.parametrize("package", ONLY_IN)
def test_some_packages_are_imported_in_few_folders(package):
    assert {name.split("/")[0] for name, path in FILES.items() if package in outer(path)} <= ONLY_IN[package]


def test_models_load_no_netcdf():
    program = "import sys, nowcast.models; print([name for name in ('netCDF4', 'cf_units', 'xarray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_network_is_opened_without_the_compiler_of_torch():
    """It takes seconds to import, as torch does where normal numbers are drawn on its device "meta"."""
    program = "import sys, torch\nfrom nowcast.forecasters import open_forecaster\n"
    program += "open_forecaster('pretrained', device=torch.device('cpu'))\nprint('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_baselines_forecast_and_are_scored_without_torch(tmp_path, monkeypatch):
    """It takes longer to import than a baseline to forecast. The last scores are those of files."""
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "radar.nc", rain(frames=8, shape=(16, 16)))
    names, chosen = ("persistence", "extrapolation"), ["--leads", "2", "--end", "2020-06-01T00:25"]
    calls = [["predict", name, "radar.nc", "--output", f"{name}/", *chosen] for name in names]
    calls += [["evaluate", *scored, "--observations", "radar.nc", "--leads", "2"] for scored in (names, ["extrapolation/"])]
    program = "import sys\nfrom nowcast.cli import app\n"
    program += f"for call in {calls}:\n    app(call, standalone_mode=False)\n"
    program += "import nowcast\nnowcast.load('extrapolation').forecast(nowcast.open_records('radar.nc')[0])\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert done.stdout.count("No confidence intervals") == 2
    assert {path.stem for path in tmp_path.iterdir()} == {"radar", *names}


@pytest.mark.parametrize("name", ["cli.py", "commands/arguments.py", "commands/completion.py"])
def test_the_command_line_imports_nothing_heavy(name):
    own = {imported for imported in imports(FILES[name], top_only=True) if imported.startswith("nowcast.")}
    light = ("nowcast.__version__", "nowcast.errors", "nowcast.commands.arguments", "nowcast.commands.completion")
    assert {imported for imported in own if not imported.startswith(light)} <= {"nowcast.commands"}
    assert outer(FILES[name], top_only=True) <= {"typer", *sys.stdlib_module_names}


def test_a_folder_has_few_entries():
    folders = {path.parent for path in FILES.values()} - {PACKAGE}
    for folder in folders:
        files = [path.name for path in folder.iterdir() if path.is_file()]
        assert len(files) <= MOST_FILES, f"{folder.name}: {len(files)} files"
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_files_and_functions_are_short():
    for name, path in FILES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_FILE_LINES, name
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                num_lines = node.end_lineno - node.lineno + 1
                assert num_lines <= MOST_FUNCTION_LINES, f"{name}: {node.name} has {num_lines} lines"


@pytest.mark.parametrize("name", sorted(set(FILES) - {"cli.py", "__main__.py"}))
def test_only_the_command_line_prints_exits_and_sets_up_logging(name):
    forbidden = {"print", "sys.exit", "exit", "typer.echo", "logging.basicConfig"}
    assert not forbidden & {called for called, _ in calls(FILES[name])}


def test_no_pickle_is_read():
    forbidden = {"torch.load", "pickle.load", "pickle.loads", "yaml.load", "eval", "exec", "os.system"}
    for paths in MODULES.values():
        for path in paths:
            assert not {called for called, _ in calls(path)} & forbidden, path.name
            loads = [node for called, node in calls(path) if called == "np.load"]
            assert not any(keyword.arg == "allow_pickle" for node in loads for keyword in node.keywords), path.name


def test_help_imports_neither_torch_nor_numpy():
    program = "import sys; from nowcast import cli; sys.argv[1:] = ['--help']\ntry: cli.main()\nexcept SystemExit: pass\n"
    program += "print([name for name in ('torch', 'numpy', 'xarray', 'matplotlib', 'netCDF4', 'cv2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
