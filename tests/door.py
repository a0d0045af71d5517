"""train_with_distillation.py after statements that change it: python tests/door.py 'STATEMENTS' [its arguments]."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def enter(statements, words):
    import train_with_distillation

    sys.argv = [train_with_distillation.__file__, *words]
    exec(statements, {})
    train_with_distillation.main()


def enter_forked(outputs, statements, words):
    """The same, in a process that was forked; what it prints goes to two files."""
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    enter(statements, words)


if __name__ == "__main__":
    enter(sys.argv[1], sys.argv[2:])
