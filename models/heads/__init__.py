"""What may stand behind a backbone: a file here for each head, which registers itself."""

from importlib import import_module
from pkgutil import iter_modules

from models.heads.contract import Backbone, Head, HeadConfig, head

__all__ = ["Backbone", "Head", "HeadConfig", "head"]

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")
