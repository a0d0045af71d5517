"""What a student may be asked to match. Every file in here is imported, which registers its objectives."""

from importlib import import_module
from pkgutil import iter_modules

from objectives.contract import Objective, get, names, objective

__all__ = ["Objective", "get", "names", "objective"]

for file in iter_modules(__path__):
    import_module(f"{__name__}.{file.name}")
