"""Commands about what runs read and leave, beside the training itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # with -m the folder of a user comes first
