"""Compiles dataset/jpeg/src to dataset/jpeg/_codec*.so, in the checkout; pyproject.toml says what else is installed.

The compiler is that of the package ziglang, which pip fetches for the build alone: no machine needs one of its own.
Where CC is set, it is that one. `python setup.py codec` compiles again, with CC or where ziglang is installed.
"""

from __future__ import annotations

import os
import platform
import runpy
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.errors import CompileError

# Results are the same on every machine: a product and a sum are never one operation.
FLAGS = ["-std=gnu11", "-shared", "-fPIC", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-psabi"]
ZIG = [sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined"]


class Codec(Command):
    """A step of every build."""

    description = "compile the JPEG codec, in place"
    user_options: ClassVar[list[tuple[str, str, str]]] = []

    def initialize_options(self) -> None:
        """There are no options."""

    def finalize_options(self) -> None:
        """There are no options."""

    def run(self) -> None:
        """Compile under another name, so that processes that have the library open keep the old one."""
        sources = runpy.run_path(str(Path(__file__).parent / "dataset/jpeg/sources.py"))
        files = [str(path) for path in sorted(sources["SOURCES"].glob("*.c"))]
        given = shlex.split(os.environ.get("CC", ""))
        targets = {sources["LIBRARY"]: [] if given else ["-mcpu=baseline"]}
        if platform.machine() in ("x86_64", "AMD64"):
            targets[sources["FAST"]] = ["-march=x86-64-v3"] if given else ["-mcpu=x86_64_v3"]
        digest = f'-DSOURCES="{sources["digest"]()}"'
        for library, target in targets.items():
            partial = library.with_name(f"{library.name}.{os.getpid()}")
            try:
                _run([*(given or ZIG), *FLAGS, *target, digest, *files, "-o", str(partial), "-lm"])
                partial.replace(library)
            finally:
                partial.unlink(missing_ok=True)


class Build(build):
    """With the codec."""

    sub_commands: ClassVar[list[tuple[str, Any]]] = [*build.sub_commands, ("codec", None)]


def _run(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as caches:
        environment = {"ZIG_GLOBAL_CACHE_DIR": caches, "ZIG_LOCAL_CACHE_DIR": caches, **os.environ}
        try:
            done = subprocess.run(words, env=environment, check=False)
        except OSError as error:
            raise CompileError(f"{shlex.join(words)}: {error.strerror}") from None
    if done.returncode:
        raise CompileError(f"the codec cannot be compiled, for the reasons above, by {shlex.join(words)}")


setup(cmdclass={"build": Build, "codec": Codec})
