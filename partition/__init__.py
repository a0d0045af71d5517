"""Label partitions, as in parallel self-distillation (CPSD): classes in parts, each with a teacher of its own."""

import sys

if sys.argv[0] == "-m":  # Python imports this for the command, whose own imports take seconds
    from utils.starting import begin

    begin()

from partition.parts import Partition, read_partition

__all__ = ["Partition", "read_partition"]
