"""A shell offers forecasters, configs, keys of `--set` and devices, and what cannot be found is suggested."""

import pytest
from makers import command

from nowcast import cli, models
from nowcast.commands import completion
from nowcast.config import NamedSection
from nowcast.errors import UsageError
from nowcast.forecasters.baselines import BASELINES


def offered(monkeypatch, words, *, number):
    monkeypatch.setenv("_NOWCAST_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(number))
    _, out, _ = command()
    return out.split()


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("nowcast predict ext", 2, ["extrapolation"]),
        ("nowcast evaluate persistence p", 3, ["pretrained", "persistence", "pysteps"]),
        ("nowcast train arch", 2, ["archive"]),
        ("nowcast train x.toml --device cuda:", 4, ["cuda:0", "cuda:1"]),
        ("nowcast train x.toml --set training.st", 4, ["training.steps=", "training.start_from="]),
        ("nowcast train x.toml --set data.splits.va", 4, ["data.splits.validation=", "data.splits.validation_records=",
                                                         "data.splits.validation_days="]),
        ("nowcast train quickstart --set model.hidden", 4, ["model.hidden_channels="]),
    ],
)  # fmt: skip
def test_a_shell_is_told_what_can_be_meant(monkeypatch, words, number, expected):
    assert offered(monkeypatch, words, number=number) == expected


def test_the_runs_here_are_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "b" / "best.safetensors").touch()
    assert offered(monkeypatch, "nowcast predict runs/", number=2) == ["runs/b"]


def test_the_names_that_are_offered_exist():
    assert set(completion.BASELINES) == {"pretrained", *BASELINES}
    assert set(models.OTHER_NAMES.values()) <= set(models.MODELS)
    assert not set(models.OTHER_NAMES) & set(models.MODELS)
    assert cli.app.info.name == "nowcast"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pretraind", "did you mean pretrained?"),
        ("extrapolaton", "did you mean extrapolation?"),
        ("optical_flow", "did you mean extrapolation?"),
        ("mine", "did you mean runs/mine?"),
        ("runs/mien", "did you mean runs/mine?"),
        ("x", "(known: pretrained, persistence, extrapolation, "),
        ("convlstm", "(that is a type of network, which you have to train first; known: pretrained, persistence, "),
        ("encoder_forecaster", "(that is a type of network, which you have to train first; known: pretrained, persistence, "),
    ],
)
def test_a_forecaster_that_is_not_there_is_suggested(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    code, _, err = command("predict", name, "x.nc", "-o", "f.nc")
    assert (code, says in err) == (4, True), err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[trainig]\nsteps = 3\n", "unknown section [trainig]; did you mean [training]?"),
        ("[data]\n[data.split]\n", "unknown section [data.split]; did you mean [data.splits]?"),
        ("[display]\nx = 1\n", "unknown section [display]; known sections: [data], [loss], [model], [training], [transform]"),
        ("stepz = 3\n", "unknown key stepz; known keys: data, loss, model, training, transform"),
    ],
)
def test_a_misspelt_section_is_suggested(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(text)
    assert command("train", "my.toml") == (2, "", f"error: my.toml: {says}\n")


def test_a_config_is_found_by_its_name_and_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "radar").mkdir()  # of records
    code, _, err = command("train", "radar", "--data", "absent.nc", "--dry-run")
    assert (code, err.splitlines()[-1]) == (2, "error: no such file or folder: absent.nc")
    assert err.startswith("config: ")
    assert command("train", "quickstrat")[2] == "error: no such config: quickstrat; did you mean quickstart?\n"
    assert command("train", "nothing")[2].startswith("error: no such config: nothing\nknown by name: archive, ")


def test_a_model_of_another_name_is_suggested():
    with pytest.raises(UsageError, match=r"model\.name = 'convlstm' is not known; did you mean encoder_forecaster\?"):
        models.model_config(NamedSection(name="convlstm"))
