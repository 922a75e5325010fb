"""README, configs and scripts say what is so: the commands run, the map is the tree, the tables are the code's.

README's ```bash blocks are run in order in a folder that has tiny records and shortened configs under the same names.
"""

import ast
import functools
import importlib.metadata
import os
import re
import shlex
import subprocess
import tomllib

import numpy as np
import pytest
import tomli_w
import typer
from makers import ROOT, rain, write_record
from makers.configs import commented_keys, dotted
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nowcast import cli, config, errors, models, scores
from nowcast.dataset.archive import open_archive
from nowcast.evaluation import score_files
from nowcast.forecasters import baselines, export
from nowcast.models import losses, transform
from nowcast.training import experiment as training_experiment

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(cli.app).commands
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
OTHER_PROGRAMS = {"python3", "source", "pip", "torchrun"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(title):
    """The text below a heading, down to the next one."""
    return re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", README, re.MULTILINE | re.DOTALL)[1]


def command_lines():
    """Every line of the ```bash blocks as a list of words."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ").replace("&&", "\n")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def nowcast_commands():
    return [words for words in command_lines() if words[0] == "nowcast"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").mkdir()
    for name in {word for words in nowcast_commands() for word in words if (ROOT / word).is_file() and word.endswith(".toml")}:
        (folder / name).write_text(shortened(ROOT / name))
    write_events(folder / "data" / "sample.nc", ["2021-06-20T08", "2021-06-22T16", "2021-06-25T03", "2021-06-27T18"])
    write_events(folder / "radar" / "2015" / "rain.nc", [f"2015-05-{day}T15" for day in (15, 16, 17, 18)])
    write_events(folder / "radar" / "2016" / "rain.nc", ["2016-09-28T15"], frames=30)
    return folder


def shortened(path):
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    tree["data"] |= {"crop": min(tree["data"]["crop"], 32), "input_frames": 2, "lead_frames": 2}
    tree["model"]["hidden_channels"] = [4, 4]
    tree["training"] |= {"steps": 2, "batch_size": 1, "validate_every": 1, "validation_cases": 1, "precision": "float32"}
    return tomli_w.dumps(tree)


def write_events(path, starts, *, frames=20):
    path.parent.mkdir(parents=True)
    steps = np.arange(frames) * np.timedelta64(300, "s")
    times = np.concatenate([np.datetime64(f"{start}:00:00") + steps for start in starts])
    write_record(path, np.concatenate([rain(frames=frames, shape=(40, 44), seed=n) for n in range(len(starts))]), times=times)


def test_the_commands_of_readme_run_in_its_order(workspace, monkeypatch, capsys, request):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("NOWCAST_CACHE", str(workspace / "cache"))
    monkeypatch.setattr(export, "program", one_program(export.program))
    for words in nowcast_commands():
        with pytest.raises(SystemExit) as end:
            cli.main(words[1:])
        out, err = capsys.readouterr()
        assert not end.value.code, f"{shlex.join(words)}: exit {end.value.code}\n{err}"
        assert out.strip(), f"{shlex.join(words)} printed nothing"
        if words[1] == "evaluate":
            request.getfixturevalue("undrawn")  # from the second report on
    for name in re.findall(r"`([\w.]+\.(?:toml|safetensors|jsonl|txt|png))`", section("The run folder")):
        assert (workspace / "runs" / "radar" / name).is_file(), name
    named = set(re.findall(r"`(\w+\.(?:csv|json|nc|png|gif|html))`", section("Files in and out")))
    assert named == {path.name for path in (workspace / "scores").iterdir()}


def one_program(make):
    """The graph of a network is traced once, in whatever formats it is exported: tracing takes longest."""
    made = {}

    def program(network):
        if network.digest not in made:
            made[network.digest] = make(network)
        return made[network.digest]

    return program


def test_what_else_readme_calls_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in command_lines():
        if words[0].startswith("scripts/"):
            assert os.access(ROOT / words[0], os.X_OK), words
        else:
            assert words[0] in OTHER_PROGRAMS | {"nowcast"}, words
        if "-c" in words:
            assert (ROOT / words[words.index("-c") + 1]).is_file()
    assert set(re.findall(r"nowcast\[(\w+)\]", README)) == set(extras)


def test_the_five_minute_run_is_what_quickstart_runs():
    script = (ROOT / "scripts" / "quickstart").read_text()
    for name, value in re.findall(r"^(\w+)=(\S+)", script, re.MULTILINE):
        script = script.replace(f"${name}", value)
    ran = [shlex.split(line) for line in re.findall(r"^\.venv/bin/(nowcast .*)$", script, re.MULTILINE)]
    block = next(block for block in blocks("bash") if "configs/quickstart.toml" in block)
    assert ran == [shlex.split(line) for line in block.splitlines()]


def test_the_quickstart_is_scored_on_days_it_was_not_trained_on():
    evaluated = next(words for words in nowcast_commands() if words[1] == "evaluate" and "data/sample.nc" in words)
    start = np.datetime64(evaluated[evaluated.index("--start") + 1])
    experiment = config.read(ROOT / "configs" / "quickstart.toml")
    records = tuple(str(ROOT / path) for path in experiment.data.records)
    plan = open_archive(experiment.data.model_copy(update={"records": records}))
    assert max(np.datetime64(end.rstrip("Z")) for _, _, end in plan.spans("training")) < start


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_readme_and_has_an_example_that_parses(name):
    command = COMMANDS[name]
    assert f"nowcast {name} " in README
    words = shlex.split(command.epilog.removeprefix("Example: "))
    assert words[:2] == ["nowcast", name]
    command.make_context(name, words[2:])  # raises for an option that it does not know


def test_every_option_in_readme_exists():
    spans = [span for span in re.findall(r"`([^`\n]+)`", README) if "scripts/" not in span]  # those have options of their own
    text = re.sub(r"\btorchrun .*?-m -- ", "", " ".join([*spans, *blocks("bash")]))  # and so has torchrun
    known = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", text)) <= known | {"--help"}


def listed_files():
    """The paths of the map: a line ending in / opens a folder, indentation closes it."""
    found, folders = [], []
    for line in next(block for block in blocks("text") if "nowcast/\n" in block).splitlines():
        depth, names = (len(line) - len(line.lstrip())) // 2, re.split(r"\s{2,}", line.strip())[0]
        folders = folders[:depth]
        if names.endswith("/"):
            folders.append(names)
        else:
            found += ["".join([*folders, name]) for name in names.split(", ")]
    return found


@functools.cache
def files_of_the_project():
    """What git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]


def test_the_map_names_every_file_and_no_other():
    folders = ("nowcast/", "configs/", "scripts/", "data/")
    expected = {name for name in files_of_the_project() if name.startswith(folders)}
    assert {name for name in listed_files() if name.startswith(folders)} == expected
    for name in listed_files():
        assert list(ROOT.glob(name)), name


def test_the_reference_recipe_comments_every_key():
    resolved = config.as_dict(training_experiment.resolve(config.read(ROOT / "configs" / "radar.toml")))
    keys = commented_keys(ROOT / "configs" / "radar.toml")
    assert set(keys) == set(dotted(resolved))
    assert [key for key, comment in keys.items() if not comment] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_what_it_is_for_and_can_be_run(path):
    assert path.read_text(encoding="utf-8").startswith("# ")
    experiment = training_experiment.resolve(config.read(path))
    assert training_experiment.resolve(config.from_dict(config.as_dict(experiment), source="again")) == experiment


def test_the_exit_codes_are_those_of_the_errors():
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", section("Exit codes"), re.MULTILINE)
    codes = [int(code) for row, _ in rows for code in row.split(", ")]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NowcastError)]
    assert codes == sorted({0, 130, 143} | {kind.exit_code for kind in kinds})


REGISTRIES = {
    "MODELS": models.MODELS,
    "LOSSES": losses.LOSSES,
    "TRANSFORMS": transform.TRANSFORMS,
    "BASELINES": baselines.BASELINES,
    "SCORES": scores.SCORES,
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_entry_of_a_registry_is_in_readme(name):
    assert f"`{name}`" in README
    assert [entry for entry in REGISTRIES[name] if f"`{entry}`" not in README] == []


def test_links_in_readme_lead_somewhere():
    anchors = {
        f"#{re.sub('[^a-z0-9 -]', '', title.lower()).replace(' ', '-')}" for title in re.findall(r"^#+ (.*)$", README, re.M)
    }
    targets = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert targets
    assert [t for t in targets if t not in anchors and not (ROOT / t).exists()] == []


def test_readme_names_the_columns_of_the_scores():
    assert ", ".join(score_files.COLUMNS) in " ".join(README.split())


def constraints():
    text = (ROOT / "scripts" / "constraints.txt").read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for texts in lists for text in texts]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_the_constraints_fit_the_ranges(requirement):
    assert requirement.specifier.contains(constraints()[canonicalize_name(requirement.name)])


def test_the_constraints_pin_everything_that_is_pulled_in():
    waiting, seen = [requirement.name for requirement in requirements()], set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):  # a CUDA build of torch pins these itself
            continue
        try:
            pulled = map(Requirement, importlib.metadata.requires(name) or [])
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        seen.add(name)
        waiting += [part.name for part in pulled if part.marker is None or part.marker.evaluate({"extra": ""})]
    assert seen - set(constraints()) == set()


@pytest.mark.parametrize("name", ["install", "quickstart", "check", "test", "../.ci/run"])
def test_a_script_is_executable_and_valid_bash(name):
    path = ROOT / "scripts" / name
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail\n" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True)


def test_every_public_module_has_a_docstring():
    for name in files_of_the_project():
        if name.startswith(("nowcast/", "scripts/")) and name.endswith(".py"):
            assert ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8"))), name
