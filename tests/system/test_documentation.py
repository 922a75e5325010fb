"""The pages (README.md files and measurements), configs and scripts are true: commands run, links resolve, names exist.

The nowcast commands in the pages' ```bash blocks run in order in one folder that has tiny records, and shortened configs under
the same names.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import typer
from makers import ROOT, rain, write_record
from makers.configs import commented_keys, dotted
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from nowcast import cli, config, errors, models, scores
from nowcast.dataset.archive import open_archive
from nowcast.evaluation import score_files
from nowcast.forecasters import baselines
from nowcast.models import losses, transform
from nowcast.training import experiment as training_experiment

# the pages whose commands run, in this order: later pages use what README.md's commands make
RUN = (
    "README.md",
    "configs/README.md",
    "data/README.md",
    "nowcast/forecasters/README.md",
    "nowcast/scores/README.md",
    "scripts/README.md",
)
LINES = {  # at most
    "README.md": 150,
    "nowcast/README.md": 120,
    "configs/README.md": 150,
    "data/README.md": 120,
    "nowcast/scores/README.md": 120,
    "nowcast/forecasters/README.md": 120,
    "nowcast/convert/README.md": 60,
    "nowcast/models/engine/README.md": 30,
    "tests/README.md": 80,
}
COMMANDS = typer.main.get_command(cli.app).commands
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
OTHER_PROGRAMS = {"python", "python3", "source", "pip", "torchrun"}


@functools.cache
def files_of_the_project():
    """Return the paths that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]


@functools.cache
def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def pages():
    return [name for name in files_of_the_project() if name.endswith(".md")]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def section(page, title):
    """Return the text below a heading, down to the next one."""
    return re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", text_of(page), re.MULTILINE | re.DOTALL)[1]


def command_lines(page):
    """Return every line of the ```bash blocks as a list of words."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ").replace("&&", "\n")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def nowcast_commands(page):
    return [words for words in command_lines(page) if words[0] == "nowcast"]


def prose(page):
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def code(page):
    """Return each piece of code on a page: `spans`, the lines of blocks but for Python's, and indented lines."""
    text = text_of(page)
    fenced = re.findall(r"^```(?!python)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    plain = prose(page)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", plain)]
    return spans + [line for block in fenced for line in block.splitlines()] + re.findall(r"^    (\S.*)$", plain, re.MULTILINE)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "configs").mkdir()
    named = {word for page in RUN for words in nowcast_commands(page) for word in words if (ROOT / word).is_file()}
    for name in (name for name in named if name.endswith(".toml")):
        (folder / name).write_text(shortened(ROOT / name))
    write_events(folder / "data" / "sample.nc", ["2010-08-26T00", "2010-08-26T02", "2010-08-26T04", "2010-08-26T06"])
    write_events(folder / "data" / "synthetic.nc", ["2021-06-20T08", "2021-06-22T16", "2021-06-25T03", "2021-06-27T18"])
    write_events(folder / "radar" / "2015" / "rain.nc", [f"2015-05-{day}T15" for day in (15, 16, 17, 18)])
    write_events(folder / "radar" / "2016" / "rain.nc", ["2016-09-28T15"], frames=24)
    write_events(folder / "radar" / "2017" / "rain.nc", ["2017-09-28T15"], frames=10)
    return folder


def shortened(path):
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    tree["data"] |= {"crop": min(tree["data"]["crop"], 32), "input_frames": 2, "lead_frames": 2}
    if tree["model"]["name"] == "encoder_forecaster":  # an export takes a second for every few operations, and for padding
        tree["model"] |= {"hidden_channels": [8], "kernel_sizes": [3], "patch": 1}
        tree["data"] |= {"input_frames": 1, "lead_frames": 1}
    tree["training"] |= {"steps": 2, "batch_size": 1, "validate_every": 1, "validation_cases": 1, "precision": "float32"}
    return tomli_w.dumps(tree)


def write_events(path, starts, *, frames=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.arange(frames) * np.timedelta64(300, "s")
    times = np.concatenate([np.datetime64(f"{start}:00:00") + steps for start in starts])
    write_record(path, np.concatenate([rain(frames=frames, shape=(40, 44), seed=n) for n in range(len(starts))]), times=times)


@pytest.mark.slow
def test_the_commands_of_the_pages_run(workspace, monkeypatch, capsys, undrawn):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("NOWCAST_CACHE", str(workspace / "cache"))
    for page in RUN:
        for words in nowcast_commands(page):
            with pytest.raises(SystemExit) as end:
                cli.main(words[1:])
            out, err = capsys.readouterr()
            assert not end.value.code, f"{page}: {shlex.join(words)}: exit {end.value.code}\n{err}"
            assert out.strip(), f"{page}: {shlex.join(words)} printed nothing"
            if words[1] == "plan":
                planned = workspace / words[words.index("--output") + 1]
                planned.write_text(shortened(planned))
    for name in re.findall(r"`([\w.]+\.(?:toml|safetensors|jsonl|txt|png))`", section("configs/README.md", "The run folder")):
        assert (workspace / "runs" / "radar" / name).is_file(), name
    named = set(re.findall(r"`(\w+\.(?:csv|json|nc|png|gif|html))`", section("nowcast/scores/README.md", "What is written")))
    assert named == {path.name for path in (workspace / "scores").iterdir()}


@pytest.mark.parametrize("page", pages())
def test_bash_blocks_call_nothing_unknown(page):
    for words in command_lines(page):
        if words[0].startswith("scripts/"):
            assert os.access(ROOT / words[0], os.X_OK), words
        else:
            assert words[0] in OTHER_PROGRAMS | {"nowcast"}, words
        if "-c" in words:
            assert (ROOT / words[words.index("-c") + 1]).is_file()
    if page not in RUN:
        assert nowcast_commands(page) == [], "add the page to RUN"


@pytest.mark.parametrize("page", LINES)
def test_a_page_is_short(page):
    assert len(text_of(page).splitlines()) <= LINES[page]


def slug(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", pages())
def test_links_resolve(page):
    text = prose(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if anchor:
            assert anchor in {slug(title) for title in re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.M)}, (
                target
            )


@pytest.mark.parametrize("page", pages())
def test_files_named_exist(page):
    """Paths with a folder and the ending of a source file, from the project's folder or from the page's."""
    for span in code(page):
        for path in re.findall(r"(?<![\w/$*.-])(?!runs/)[\w.-]+/[\w./-]*\.(?:py|c|toml|slurm|md|html)\b", span):
            assert any((folder / path).exists() for folder in (ROOT, (ROOT / page).parent, ROOT / "nowcast")), path


def options_of(script):
    return set(re.findall(r"[\"'](--[a-z][a-z-]*)[\"']", (ROOT / script).read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", pages())
def test_options_named_exist(page):
    ours = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts} | {"--help"}
    folder = Path(page).parent
    beside = {option for path in (ROOT / folder).glob("*.py") for option in options_of(path)}
    for text in code(page):
        scripts = [name for name in re.findall(r"scripts/[\w/.-]+", text) if name.endswith(".py") and (ROOT / name).is_file()]
        if scripts:
            known = options_of(scripts[0]) | {"--help"}
        elif re.match(r"pip|\.venv/bin/pip|pytest", text):
            continue
        else:
            text, known = re.sub(r"\btorchrun .*?-m (?:-- )?", "", text), ours | beside
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", text)) <= known | {"--max-restarts"}, text


def config_keys():
    """Return the dotted keys of the config, those of every model, transform and loss among them."""
    sections = {"data": [config.Data], "data.splits": [config.Splits], "training": [config.Training]}
    sections |= {"model": [entry[0] for entry in models.MODELS.values()]}
    sections |= {"transform": list(transform.TRANSFORMS.values()), "loss": list(losses.LOSSES.values())}
    return {f"{name}.{key}" for name, kinds in sections.items() for kind in kinds for key in kind.model_fields}


@pytest.mark.parametrize("page", pages())
def test_config_keys_named_exist(page):
    known = config_keys()
    for text in code(page):
        for key in re.findall(r"(?<![\w./])((?:data\.splits|data|transform|model|loss|training)\.[a-z_]+)\b(?!/)", text):
            if key != "data.splits" and key.rpartition(".")[2] not in ("py", "png", "toml", "nc"):
                assert key in known, text


def test_the_tables_of_config_keys_are_generated():
    spec = importlib.util.spec_from_file_location("config_keys", ROOT / "scripts" / "config_keys.py")
    config_keys_script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config_keys_script)
    page = text_of("configs/README.md")
    assert config_keys_script.renewed(page) == page, "run scripts/config_keys.py"


def test_every_config_and_script_is_on_its_page():
    for path in CONFIGS:
        assert path.stem in text_of("configs/README.md"), path.name
    named = "".join(text_of(page) for page in pages() if page.startswith("scripts/"))
    for name in files_of_the_project():
        if name.startswith("scripts/") and not name.endswith(".md"):
            assert Path(name).name in named, name


def test_no_page_or_message_installs_the_package_of_somebody_else():
    """The name `nowcast` belongs to another project on PyPI: only a warning may say `pip install nowcast`."""
    allowed = {"README.md": ["Do not run `pip install nowcast`"]}
    for name in files_of_the_project():
        if name.endswith((".py", ".md", ".toml", ".slurm")) and not name.startswith("tests/"):
            text = text_of(name)
            for sentence in allowed.get(name, []):
                text = text.replace(sentence, "", 1)
            assert not re.search(r"pip install[^\n`]*\bnowcast\b(?!-)", text), name
            assert "nowcast[" not in text, name


def test_the_five_minute_run_is_what_quickstart_runs():
    script = (ROOT / "scripts" / "quickstart").read_text()
    for name, value in re.findall(r"^(\w+)=(\S+)", script, re.MULTILINE):
        script = script.replace(f"${name}", value)
    ran = [shlex.split(line) for line in re.findall(r"^\.venv/bin/(nowcast .*)$", script, re.MULTILINE)]
    block = next(block for block in blocks("README.md", "bash") if "configs/quickstart.toml" in block)
    assert ran == [shlex.split(line) for line in block.splitlines()]


def test_the_quickstart_is_scored_on_frames_that_training_has_not_seen():
    evaluated = next(words for words in nowcast_commands("README.md") if words[1] == "evaluate" and "data/sample.nc" in words)
    start = np.datetime64(evaluated[evaluated.index("--start") + 1])
    experiment = config.read(ROOT / "configs" / "quickstart.toml")
    records = tuple(str(ROOT / path) for path in experiment.data.records)
    plan = open_archive(experiment.data.model_copy(update={"records": records}))
    ends = [np.datetime64(end.rstrip("Z")) for split in ("training", "validation") for _, _, end in plan.spans(split)]
    past = (experiment.data.input_frames - 1) * np.timedelta64(5, "m")
    assert len(ends) == 2
    assert max(ends) < start - past


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_readme_and_has_an_example_that_parses(name):
    command = COMMANDS[name]
    assert f"nowcast {name} " in text_of("README.md")
    words = shlex.split(command.epilog.removeprefix("Example: "))
    assert words[:2] == ["nowcast", name]
    command.make_context(name, words[2:])  # raises for an option that it does not know


def modules_on_the_map():
    """Return the modules and folders of the map: indentation opens a folder, the line below lists its modules."""
    found, folders = set(), []
    (tree,) = (block for block in blocks("nowcast/README.md", "text") if block.startswith("nowcast/\n"))
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
            found.add("".join(folders))
        elif name.endswith(".py"):
            found.add("".join([*folders, name]))
        else:
            found |= {"".join([*folders, f"{module}.py"]) for module in line.split()}
    return found


def test_the_map_names_every_folder_and_module_of_the_package():
    files = [name for name in files_of_the_project() if name.startswith("nowcast/")]
    modules = {name for name in files if name.endswith(".py")}
    inner = {name for name in modules if name.endswith("/__init__.py") and name != "nowcast/__init__.py"}
    folders = {"".join(f"{part}/" for part in Path(name).parts[:-1]) for name in files}
    assert modules_on_the_map() == (modules - inner) | folders


def test_the_layers_on_the_map_are_those_that_are_tested():
    tested = re.search(
        r'^LAYERS = """\n(.*?)^"""', (ROOT / "tests/system/test_layers.py").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    rows = re.findall(r"^\| \d+ \| (.*) \|$", section("nowcast/README.md", "Layers"), re.MULTILINE)
    assert " ".join(" ".join(re.findall(r"`(\w+)`", row)) for row in rows) == " ".join(tested.split()).removesuffix(" __main__")


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
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", section("nowcast/forecasters/README.md", "Exit codes"), re.MULTILINE)
    codes = [int(code) for row, _ in rows for code in row.split(", ")]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NowcastError)]
    assert codes == sorted({0, 130, 143} | {kind.exit_code for kind in kinds})


REGISTRIES = {
    "configs/README.md": [*models.MODELS, *losses.LOSSES, *transform.TRANSFORMS],
    "nowcast/forecasters/README.md": [*baselines.BASELINES],
    "nowcast/scores/README.md": [*scores.SCORES, *score_files.COLUMNS],
}


@pytest.mark.parametrize("page", REGISTRIES)
def test_every_entry_of_a_registry_is_on_its_page(page):
    assert [entry for entry in REGISTRIES[page] if not re.search(rf"\b{entry}\b", text_of(page))] == []


def constraints(file="constraints.txt"):
    text = (ROOT / "scripts" / file).read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for texts in lists for text in texts]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_the_constraints_fit_the_ranges(requirement):
    assert requirement.specifier.contains(constraints()[canonicalize_name(requirement.name)])


def test_the_lowest_versions_are_those_that_are_asked_for():
    lowest = constraints("constraints_lowest.txt")
    asked = {canonicalize_name(each.name): each.specifier for each in requirements()}
    assert len(lowest) > 20
    for name, version in lowest.items():
        (bound,) = asked[name]
        assert (bound.operator, Version(bound.version)) == (">=", Version(version)), name


def test_the_constraints_pin_everything_that_is_pulled_in():
    waiting, seen = [requirement.name for requirement in requirements()], set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):  # a CUDA build of torch pins these itself
            continue
        try:
            pulled = map(Requirement, importlib.metadata.requires(name) or [])
            if importlib.metadata.version(name) != constraints().get(name, importlib.metadata.version(name)):
                continue  # another version than that of the constraints may pull in others
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
