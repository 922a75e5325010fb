"""`train --resume RUN` goes on with the run's own config; another config, or a forgotten --set, is refused by key."""

from pathlib import Path

import pytest
from makers import command

from nowcast import config
from nowcast.commands.arguments import name_run
from nowcast.config.toml import SET_BY_HAND, read_comments

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("train --resume runs/a", "train --resume --output runs/a"),
        ("train --resume runs/a --set training.steps=4", "train --resume --output runs/a --set training.steps=4"),
        ("train --resume a.toml", "train --resume a.toml"),
        ("train a.toml --output b --resume", "train a.toml --output b --resume"),
        ("train --output b --resume -q", "train --output b --resume -q"),
        ("predict --resume a", "predict --resume a"),
    ],
)
def test_the_word_after_resume_is_the_run(argv, expected):
    assert name_run(argv.split()) == expected.split()


def commented(inputs):
    """Write the tiny config with comments as my.toml; return its text."""
    text = (inputs / "tiny.toml").read_text()
    text = text.replace("steps = 6", "steps = 6 # as long as a test may take").replace("[model]", "# the smallest\n[model]")
    text = "# Mine.\n\n" + text.replace("learning_rate = 0.01", "# tried: 0.1\nlearning_rate = 0.01 # it converges")
    Path("my.toml").write_text(text)
    return text


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_config_and_keeps_its_comments(inputs):
    assert "# tried: 0.1" in commented(inputs)
    train = ("train", "my.toml", "-o", "run", "-q")
    assert command(*train, "--set", "training.steps=2")[0] == 0
    kept = Path("run/config.toml").read_text()
    assert kept.startswith("# Mine.\n")
    assert "# the smallest\n[model]" in kept
    assert "# tried: 0.1\nlearning_rate = 0.01" in kept
    comments = read_comments(kept)
    assert comments == {"training.steps": SET_BY_HAND, "training.learning_rate": "it converges"}

    code, out, err = command("train", "--resume", "run", "-q")
    assert (code, out) == (0, "run is already trained to its last step, 2: nothing to resume\n"), err
    code, _, err = command(*train, "--resume")
    assert code == 4
    assert err == (
        "error: my.toml is not the config of run: training.steps = 6 (before: 2).\n"
        "Leave it out: nowcast train --resume run uses the run's own config.\n"
    )
    code, _, err = command("train", "--resume", "run", "--set", "model.hidden_channels=[8]")
    assert code == 4
    assert "model.hidden_channels = [8] (before: [4])" in err
    assert Path("run/config.toml").read_text() == kept

    code, out, err = command("train", "--resume", "run", "--set", "training.steps=3", "-q")
    assert (code, "of 3)" in out) == (0, True), err
    assert config.read("run/config.toml").training.steps == 3
    assert read_comments(Path("run/config.toml").read_text()) == comments


def test_a_run_that_is_not_there_cannot_go_on():
    assert command("train", "--resume", "absent") == (4, "", "error: absent holds no config.toml to resume with\n")
