"""Stand-ins for packages that a runtime imports but that its voice loader does not need.

The scripts beside this file run the loader of one runtime, from its own source, in a process of
their own: `python load_X.py CHECKOUT OUT NAME RESULT` writes what it loaded for the voice NAME of
the exported OUT to RESULT.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Absent(ModuleType):
    """A module whose every name is an empty class."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def stand_in(*packages: str) -> None:
    """Whatever is imported from `packages` becomes an empty class."""
    sys.meta_path.insert(0, _Finder(packages))


def give(module: str, **names: Any) -> None:
    """Names of a stand-in that must do something."""
    importlib.import_module(module)
    for name, value in names.items():
        setattr(sys.modules[module], name, value)


def load(name: str, path: Path) -> Any:
    """The module in the file `path`, as `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def logger(*_: Any) -> logging.Logger:
    """For `init_logger(__name__)`."""
    return logging.getLogger("runtime")
