"""Content of files is data only: it is never executed, names no output file, and opens no connection."""

import ast
import os
import signal
import socket
import sys

import netCDF4
import numpy as np
import pytest
import tomli_w
from makers import ROOT, command, rain, tiny_experiment, tiny_run, write_record
from makers.stored import edit

from nowcast import config
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")

PACKAGE = ROOT / "nowcast"
MODULES = sorted(PACKAGE.rglob("*.py"))
PICKLES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg", "yaml"}
NETWORK = {"socket", "ssl", "http", "urllib", "urllib3", "requests", "ftplib", "smtplib", "xmlrpc", "asyncio", "fsspec"}
RUN = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile", "torch.load", "torch.hub.load"}

OUTSIDE = {
    "runtime/compiled.py": {"subprocess", "ctypes"},  # runs the C compiler, by a list of words, and loads what it made
    "convert/formats/grib/messages.py": {"ctypes"},  # tells ecCodes, by its own library, to print nothing
    "runtime/libraries.py": {"ctypes"},  # tells the C library to keep freed memory
}


def calls(tree):
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not set(imported(tree)) & (PICKLES | NETWORK)
    for name, call in calls(tree):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in RUN, name
        assert not name.startswith(("os.exec", "os.spawn")), name
        assert "allow_pickle" not in keywords, name
        assert "shell" not in keywords, name
    outside = set(imported(tree)) & {"subprocess", "ctypes"}
    assert outside <= OUTSIDE.get(str(path.relative_to(PACKAGE)), set())


def test_the_c_compiler_is_called_by_a_list_of_words():
    tree = ast.parse((PACKAGE / "runtime" / "compiled.py").read_text(encoding="utf-8"))
    lists = {
        ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }
    runs = [call for name, call in calls(tree) if name.startswith("subprocess.")]
    assert runs
    for call in runs:
        assert isinstance(call.args[0], ast.List) or ast.unparse(call.args[0]) in lists


@pytest.fixture
def in_time():
    """What waits for a pipe's other end fails the test."""

    def fail(*_):
        raise AssertionError("still waiting after 20 s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def special(folder, kind):
    path = folder / "special.nc"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "socket", "device"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = special(tmp_path, kind)
    good = write_record(tmp_path / "good.nc", rain(frames=20, shape=(16, 16)))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(config.as_dict(tiny_experiment([path]))))
    output = ("--output", tmp_path / "out.nc")
    for words in (
        ("inspect", path),
        ("predict", "persistence", path, *output),
        ("evaluate", "persistence", "--observations", path),
        ("train", recipe, "--dry-run"),
        ("evaluate", path, "--observations", good),
    ):
        code, out, err = command(*words)
        assert (code, out) == (2, ""), words
        assert f"{path} is no regular file.\nExpected a NetCDF file" in err, words


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("role", ["config", "checkpoint"])
def test_a_config_or_checkpoint_is_a_regular_file_as_well(tmp_path, role):
    os.mkfifo(tmp_path / "pipe")
    good = write_record(tmp_path / "good.nc", rain(frames=20, shape=(16, 16)))
    words = (
        ("train", tmp_path / "pipe", "--dry-run")
        if role == "config"
        else ("predict", tmp_path / "pipe", good, "--output", "f.nc")
    )
    code, _, err = command(*words)
    expected = {"config": (2, "pipe is no regular file.\nExpected a TOML file."), "checkpoint": (4, "no such checkpoint")}
    assert code == expected[role][0]
    assert expected[role][1] in err


ODD_NAMES = ["a:b.nc", "http:a.nc", "file:a.nc", "s3:a.nc", "a.nc#mode=bytes", "[log]a.nc", "a b.nc", "é雨.nc", "a%20b.nc",
             "a?b=c.nc", "~a.nc", "$HOME.nc", "a;true.nc", "'a'.nc", '"a".nc', "*.nc", "{a,b}.nc"]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_is_opened_whatever_its_name_looks_like(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "plain.nc", rain(frames=20, shape=(16, 16))).rename(tmp_path / name)
    (record,) = open_records([name])
    assert len(record.read([0, 19])) == 2
    code, _, err = command("predict", "persistence", name, "--output", f"out-{name}")
    assert code == 0, err
    assert (tmp_path / f"out-{name}").is_file()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_name_that_the_library_would_change_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    write_record(tmp_path / "a" / "b.nc", rain(frames=2))
    write_record(tmp_path / "plain.nc", rain(frames=2)).rename(tmp_path / "a\\b.nc")
    code, _, err = command("inspect", "a\\b.nc")
    assert code == 3
    assert err == "error: a\\b.nc has a backslash in its name, which the NetCDF library takes for a folder.\nRename it.\n"


@pytest.mark.parametrize(
    "address", ["http://host/a.nc", "https://host/a.nc#mode=bytes", "s3://bucket/a.nc", "file:///etc/passwd", "dods://host/a"]
)
def test_an_address_is_no_file(address):
    code, out, err = command("inspect", address)
    assert (code, out) == (2, "")
    assert err == f"error: {address} is a URL.\nExpected a file on this machine: download it first.\n"


@pytest.mark.slow
def test_nothing_touches_the_network(tmp_path, monkeypatch, undrawn):
    def forbidden(*_):
        raise AssertionError("a connection is opened")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, forbidden)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, forbidden)
    opened = []
    armed = [True]
    sys.addaudithook(
        lambda event, _: opened.append(event) if armed[0] and event in {"socket.connect", "urllib.Request"} else None
    )
    record = write_record(tmp_path / "a.nc", rain(frames=30, shape=(16, 16)))
    run = tiny_run(tmp_path / "run", [record])
    for words in (
        ("inspect", record),
        ("predict", run, record, "--output", tmp_path / "forecast.nc"),
        ("evaluate", run, "--observations", record, "--every", "30", "--output", tmp_path / "scores"),
    ):
        code, _, err = command(*words)
        assert code == 0, err
    armed[0] = False
    assert not opened


def hostile(path):
    """A record whose every text would lead elsewhere if it were a path, a program or a page."""
    evil = "../../evil <script>alert(1)</script> $(touch evil) `touch evil`"
    write_record(path, rain(frames=30, shape=(16, 16)), variable="evil <script> ..", long_name=evil)
    with edit(path) as file:
        file.setncatts(dict.fromkeys(("title", "institution", "source", "history", "comment", "Conventions"), evil))
        file["crs"].comment = evil
        file.renameVariable("crs", "crs <b> ..")
        file["evil <script> .."].grid_mapping = "crs <b> .."
        file["x"].long_name = evil
    return path


@pytest.mark.slow
def test_no_name_of_an_output_comes_from_what_is_in_a_file(tmp_path, monkeypatch, undrawn):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    record = hostile(work / "a.nc")
    run = tiny_run(work / "run", [record])
    for words in (
        ("inspect", record),
        ("predict", run, record, "--reference-time", "2020-06-01T01:00", "--output", "forecast.nc"),
        ("predict", run, record, "--output", "forecasts/"),
        ("evaluate", run, "forecast.nc", "--observations", record, "--output", "scores"),
    ):
        code, _, err = command(*words)
        assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"work", "cache"}
    assert {path.name for path in work.iterdir()} == {"a.nc", "run", "forecast.nc", "forecasts", "scores"}
    assert [path.name for path in (work / "forecasts").iterdir()] == ["20200601T022500Z.nc"]
    for folder in ("run", "scores"):
        assert not [path for path in (work / folder).rglob("*") if "evil" in path.name or "script" in path.name]
    with netCDF4.Dataset(work / "forecast.nc") as file:
        assert np.isfinite(file["precip_intensity"][0].filled(np.nan)).any()
