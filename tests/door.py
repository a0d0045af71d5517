"""The door with something done to it on the way: python tests/door.py 'PYTHON STATEMENTS' [words of the door]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    import train_with_distillation

    statements = sys.argv.pop(1)
    exec(statements)
    train_with_distillation.main()
