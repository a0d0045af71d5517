"""What `sys.exit()` does in a program of the user's: it never looks as if all were done."""

import sys

import pytest

from objectives import contract
from utils.errors import Stopped, UsageError
from utils.imports import never_exiting

CONFIG = """
import sys
from dataclasses import replace
from configs.digits import cfg as digits
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from objectives import objective
from training.phases import Phase

@objective(reads="logits")
def of_a_test(student, labels):
    sys.exit(0)  # objective

def cfg(how: str = "config"):
    if how == "function":
        sys.exit(0)  # function
    recipe = digits()
    if how == "objective":
        terms = {"of_a_test": Term("of_a_test")}
        return replace(recipe, phases={"training": replace(recipe.phases["training"], terms=terms)})
    return replace(recipe, student=NetworkConfig(f"{how}_of_a_test:Net", options={"how": how}))
"""
NETWORK = """
import sys
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, how):
        super().__init__()
        self.fc, self.how, self.times = nn.Linear(3, num_classes), how, 0
        if how == "init":
            exit("as a shell does")  # init
    def forward(self, images):
        if self.how == "forward":
            raise SystemExit  # forward
        self.times += self.training
        if self.how == "later" and self.times > 4:
            sys.exit(0)  # later
        return self.fc(images.mean((2, 3)))
"""
EXITS = {  # by file
    "config": ("ending.py", "import sys\nsys.exit(0)  # config\n"),
    "function": ("ending.py", CONFIG),
    "objective": ("ending.py", CONFIG),
    "module": ("module_of_a_test.py", "import argparse\nargparse.ArgumentParser().parse_args(['-x'])  # module\n"),
    "init": ("init_of_a_test.py", NETWORK),
    "forward": ("forward_of_a_test.py", NETWORK),
    "later": ("later_of_a_test.py", NETWORK),
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))
    monkeypatch.setattr("sys.path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_of_a_test")]:
        del sys.modules[name]


@pytest.mark.parametrize("how", EXITS)
def test_wherever_it_stands_it_is_an_error_of_that_line(how, mine, digits, run):
    file, text = EXITS[how]
    (mine / "ending.py").write_text(CONFIG)
    (mine / file).write_text(text)
    settings = [f"how={how}", f"data.data_path={digits / 'lmdb'}", "data.num_workers=0", "data.batch_size=20"]
    output = f"train_params.output_path={mine / 'runs'}"
    code, _, printed = run("--cfg", mine / "ending.py", *settings, output, "epochs=2")
    line = next(number for number, one in enumerate((mine / file).read_text().split("\n"), 1) if f"# {how}" in one)
    assert code == 2
    assert f"{mine / file}, line {line}, ends the program (SystemExit" in printed


def test_a_signal_that_comes_meanwhile_still_ends_the_command():
    with pytest.raises(SystemExit), never_exiting():
        raise SystemExit(Stopped.exit_code)
    with (
        pytest.raises(UsageError, match=r"test_exits.py, line \d+, ends the program \(SystemExit: 0\)"),
        never_exiting(),
    ):
        sys.exit(0)
