"""Waiting for processes of a test's own, on a machine that may be busy with others."""

import time
from pathlib import Path


def alive(pid: int | str) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds: float = 240) -> None:
    """Return once ``condition`` holds; so long only where it never will."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def shared_memory(pid: int | str) -> set[str]:
    """What the process has open or mapped in /dev/shm, that has a name there."""
    names = {line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.add(str(descriptor.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return {name for name in names if name.startswith("/dev/shm/") and not name.endswith("(deleted)")}
