"""The main job on real data, on a CPU, in minutes."""

import sys

if sys.argv[0] == "-m":  # Python imports this for a command, whose own imports take seconds
    from utils.starting import begin

    begin()
