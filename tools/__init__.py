"""Commands about what runs read and leave, beside the training itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # with -m the folder of a user comes first

if sys.argv[0] == "-m":  # Python imports this for a command, whose own imports take seconds
    from utils.starting import begin

    begin()
