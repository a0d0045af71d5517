"""Machines that lack what most have: a home, a checkout that can be written, locks, space for files of one's own."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from dataset_helpers import image_tree

from dataset import cifar2lmdb, img2lmdb, inspect_lmdb, mk_img_list
from dataset.loader import DataConfig, open_split
from utils import files
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError
from utils.files import expanded, lock, make_folder, write_atomically

READ_ONLY = 'mount --bind -o ro "$1" "$1" 2>/dev/null && mount -o remount,bind,ro "$1" || exit 77; shift; exec "$@"'


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare command, and so no checkout that is read-only")
def test_a_checkout_that_cannot_be_written_runs(tmp_path):
    shutil.copytree(ROOT / "dataset", tmp_path / "checkout/dataset", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "utils", tmp_path / "checkout/utils")
    home = tmp_path / "checkout/home"
    home.mkdir()
    script = "from dataset.jpeg.resize import filter_weights as f; print(f(4, 2).first.tolist())"
    words = ["unshare", "-rm", "sh", "-c", READ_ONLY, "sh", str(tmp_path / "checkout"), sys.executable, "-c", script]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        words, cwd=tmp_path / "checkout", env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this system lets no user mount a folder read-only")
    assert (done.returncode, done.stdout) == (0, "[0, 1]\n"), done.stderr


def test_paths_of_a_home_without_one(monkeypatch, tmp_path):
    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(UsageError, match=r"data\.cache_path: ~/x leads to a home folder that is not known"):
        expanded("~/x", "data.cache_path")
    with pytest.raises(UsageError, match=r"data\.data_path: "):
        open_split(DataConfig("~/data"), "train", "lmdb")
    with pytest.raises(UsageError, match=r"data\.cache_path: "):
        open_split(DataConfig("memory://data", cache_path="~/cache"), "train", "lmdb")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_without_locks_it_continues_with_one_line(monkeypatch, capsys, tmp_path, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setitem(os.environ, files._SAID, "")
    monkeypatch.delitem(os.environ, files._SAID)
    for _ in range(3):
        with lock(tmp_path / "lock", "held"):
            pass
    line = f"warning: no file locks on {tmp_path} ({os.strerror(number)}): see to it that nothing else writes there\n"
    assert capsys.readouterr().err == line
    assert files._SAID in os.environ  # so that processes it starts do not say it again


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.EBADF, errno.EIO])
def test_a_sync_that_the_file_system_does_not_know(monkeypatch, tmp_path, number):
    def fsync(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:  # the disk knows, and failed
        with pytest.raises(DataError, match="cannot be written: Input/output error"):
            write_atomically(tmp_path / "file", b"text")
    else:
        write_atomically(tmp_path / "file", b"text")
        assert (tmp_path / "file").read_bytes() == b"text"


@pytest.fixture(params=[errno.EACCES, errno.EROFS])
def nothing_can_be_made(request, monkeypatch):
    """No new file anywhere: root itself may write to folders of others, so this cannot be had by their modes."""

    def refuse(*_, **__):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    return os.strerror(request.param)


def test_every_tool_names_the_option_of_an_output_that_cannot_be_written(tmp_path, monkeypatch, nothing_can_be_made):
    image_tree(tmp_path / "images")
    image_tree(tmp_path / "images", split="val")
    output, images = ("--output_path", str(tmp_path / "out")), ("--image_path", str(tmp_path / "images"))
    (tmp_path / "train_list.txt").write_text("class0/000.JPEG 0\n")
    tools = {
        mk_img_list: (*images, *output),
        img2lmdb: (*images, *output, "--list_path", str(tmp_path), "--split", "train"),
        cifar2lmdb: (*images, *output),
        inspect_lmdb: (str(tmp_path), "--sheet", str(tmp_path / "out/sheet.png")),
    }
    (tmp_path / "out").mkdir()
    (tmp_path / "00000.lmdb").touch()
    for tool, words in tools.items():
        monkeypatch.setattr(sys, "argv", [tool.__name__, *words])
        option = "--sheet" if tool is inspect_lmdb else "--output_path"
        with pytest.raises(
            UsageError, match=rf"{option}: the folder .*out.* cannot be written to: {nothing_can_be_made}"
        ):
            tool.main.__wrapped__()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "/x/lists"), OSError("odd")])
def test_a_tool_ends_in_one_line_whatever_the_system_refuses(capsys, error):
    @exit_with_its_code
    def tool():
        raise error

    with pytest.raises(SystemExit, match="2"):
        tool()
    assert capsys.readouterr().err in (
        "UsageError: /x/lists: Permission denied\n",
        "UsageError: input or output: odd\n",
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", [(), ("/x/lists",)])
def test_a_full_disk_is_one_kind_of_error_wherever_it_shows(capsys, number, name):
    def write():
        raise OSError(number, os.strerror(number), *name)

    def wrapped():
        try:
            write()
        except OSError as error:
            raise UsageError(f"--output: {error.strerror}") from None

    for tool in (write, wrapped):
        with pytest.raises(SystemExit, match="3"):
            exit_with_its_code(tool)()
        said = capsys.readouterr().err
        assert said.startswith("DataError: ")
        assert said.endswith(f"{os.strerror(number)}; free some space and run the same command again\n")


def test_a_closed_pipe_ends_a_tool_silently_and_not_as_if_its_work_were_done():
    script = "from utils.console import exit_with_its_code as e; e(lambda: print('line\\n' * 10**6))()"
    done = subprocess.run(
        ["sh", "-c", f'{{ "{sys.executable}" -c "$0"; echo $? >&2; }} | head -1', script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("line\n", "141\n")  # as a shell calls an end by SIGPIPE


def test_a_file_of_somebody_elses_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(UsageError, match=r"lock cannot be opened: Is a directory"), lock(tmp_path / "lock"):
        pass
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match=r"taken cannot be written: Is a directory"):
        write_atomically(tmp_path / "taken", b"text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "taken"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--output_path: "):
        make_folder(tmp_path / "file/below", "--output_path")
