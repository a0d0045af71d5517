"""What networks are taught: a task says what a target is and how it is scored.

Importing this package registers every task. A decoding process may import it for a task's targets: torch is imported
only where a network's outputs are looked at.
"""

from tasks import single_label
from tasks.contract import Metrics, Task, get, task

__all__ = ["Metrics", "Task", "get", "single_label", "task"]
