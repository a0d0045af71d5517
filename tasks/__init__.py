"""What networks learn: a task defines its targets, and the scores of a network on them.

Importing this package registers every task. A decoding process may import it for a task's targets: torch is imported
only where a network's outputs are read.
"""

from tasks import single_label
from tasks.contract import Metrics, Task, get, task

__all__ = ["Metrics", "Task", "get", "single_label", "task"]
