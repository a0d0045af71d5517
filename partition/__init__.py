"""Label partitions, as in parallel self-distillation (CPSD): classes in parts, each with a teacher of its own."""

from partition.parts import Partition, read_partition

__all__ = ["Partition", "read_partition"]
