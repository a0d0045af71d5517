"""train_with_distillation.py after statements that change it: python tests/door.py 'STATEMENTS' [its arguments]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    import train_with_distillation

    statements = sys.argv.pop(1)
    exec(statements)
    train_with_distillation.main()
