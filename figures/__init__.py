"""A run folder in, pictures out."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # with -m the folder of a user comes first
