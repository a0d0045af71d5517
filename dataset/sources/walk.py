"""What a user's folders hold, apart from what systems and tools leave there. Every reader of folders uses it.

Links are followed, but each file is found once: a plain path goes before a link, and a link to what was found before
is passed over. What cannot be read, and a link that leads nowhere, is an error and never an empty folder.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UsageError
from utils.text import counted, printable

# Beside all names that begin with a dot. Of NAS systems, macOS, Windows and others, in small letters.
_OF_SYSTEMS = {
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot"),
    *("__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("found.000", "lost+found", "__pycache__"),
}


def is_of_a_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a system's own: never a class or an image."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


@dataclass
class Found:
    """What `look_into` found; paths below the folder, with forward slashes."""

    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)  # or a system's
    special: list[str] = field(default_factory=list)  # pipes, sockets, devices
    again: list[str] = field(default_factory=list)  # links to what was found before, or to a folder above
    outside: list[str] = field(default_factory=list)  # links out of the folder, which were followed

    def remarks(self) -> list[str]:
        """A line for each kind but files."""
        kinds = (
            (self.hidden, "hidden or system entry passed over", "hidden or system entries passed over"),
            (self.special, "pipe, socket or device passed over", "pipes, sockets or devices passed over"),
            (self.again, "link to what is listed already passed over", "links to what is listed already passed over"),
            (self.outside, "link leads out of the folder", "links lead out of the folder"),
        )
        return [
            f"{counted(len(paths), one, more)}, such as {printable(min(paths))}" for paths, one, more in kinds if paths
        ]


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Everything in ``folder``, sorted by name.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"the folder {printable(str(folder))} cannot be read: {error.strerror}") from None


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in ``folder`` and of links to folders, sorted, without those of systems.

    Raises:
        UsageError: ``folder`` cannot be read, or a link in it leads nowhere.
    """
    names = []
    for entry in entries_of(folder):
        if not is_of_a_system(entry.name):
            mode = _status(folder / entry.name).st_mode if entry.is_symlink() else 0
            if stat.S_ISDIR(mode) or entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
    return names


def look_into(folder: Path, broken: list[str] | None = None) -> Found:
    """All that lies below ``folder``. Links that lead nowhere are added to ``broken`` where it is given.

    Raises:
        UsageError: a folder cannot be read, or a link leads nowhere and ``broken`` is None.
    """
    found, links = Found(), list[str]()
    entered: set[tuple[int, int]] = set()  # folders, by device and inode

    def walk(start: str) -> list[str]:
        """The files below the folder ``start``, by plain paths; its links are put aside."""
        files: list[str] = []
        waiting = [start]
        while waiting:
            path = waiting.pop()
            identity = _identity(_status(folder / path))
            if identity in entered:
                found.again.append(path)
                continue
            entered.add(identity)
            for entry in entries_of(folder / path):
                below = f"{path}/{entry.name}" if path else entry.name
                if is_of_a_system(entry.name):
                    found.hidden.append(below)
                elif entry.is_symlink():
                    links.append(below)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(below)
                else:
                    (files if entry.is_file(follow_symlinks=False) else found.special).append(below)
        return files

    found.files = walk("")
    known = {_identity(_status(folder / path)) for path in found.files} if links else set()
    top = os.path.realpath(folder)
    links.sort()
    for link in links:  # which grows by those that lie behind links
        try:
            status, goal = _status(folder / link), os.path.realpath(folder / link)
        except UsageError:
            if broken is None:
                raise
            broken.append(link)
            continue
        shared = os.path.commonpath([top, goal])
        if stat.S_ISDIR(status.st_mode):
            if shared == goal or _identity(status) in entered:
                found.again.append(link)
                continue
            files = walk(link)
        elif stat.S_ISREG(status.st_mode):
            files = [link]
        else:
            found.special.append(link)
            continue
        if shared != top:
            found.outside.append(link)
        for path in files:
            identity = _identity(_status(folder / path))
            (found.again if identity in known else found.files).append(path)
            known.add(identity)
    return found


def _status(path: Path) -> os.stat_result:
    """Of what a path leads to."""
    try:
        return path.stat()
    except OSError as error:
        name = printable(str(path))
        if path.is_symlink():
            goal = printable(str(path.readlink()))
            raise UsageError(f"{name} is a link to {goal}: {error.strerror}; mend or delete the link") from None
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
