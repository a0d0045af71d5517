"""What networks are trained for: a task says what a target is and how it is scored.

Every file in here is imported, which registers its task. A decoding process may import this package for a task's
targets: torch is imported only where a network's outputs are read.
"""

from importlib import import_module
from pkgutil import iter_modules

from evaluation.contract import Metrics
from tasks.contract import Task, get, task

__all__ = ["Metrics", "Task", "get", "task"]

for file in iter_modules(__path__):
    import_module(f"{__name__}.{file.name}")
