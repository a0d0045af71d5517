"""What a student may be asked to match. Importing this package registers every objective."""

from objectives import labels, logits
from objectives.contract import Objective, get, objective

__all__ = ["Objective", "get", "labels", "logits", "objective"]
