"""Hostile files end no process: the short forms of `benchmarks/fuzz.py` and `benchmarks/fuzz_codec.py`."""

import re
import subprocess

import numpy as np
import pytest
from conftest import call

from benchmarks import fuzz, fuzz_codec
from dataset.jpeg.header import BadImage
from utils.errors import UsageError


def test_hostile_files_end_no_process(tmp_path):
    done = call("-m", "benchmarks.fuzz", "--files", "1000", "--work", str(tmp_path))
    assert "1000 files: 0 faults" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_fault_is_counted_and_its_file_kept(tmp_path, monkeypatch, capsys):
    def fails(_data, _random):
        raise IndexError("beyond")

    def refuses(_data, _random):
        raise BadImage("damaged")

    monkeypatch.setattr(fuzz, "_read_whole", fails)
    monkeypatch.setattr(fuzz, "_read_windows", refuses)
    monkeypatch.setattr(fuzz, "_show", refuses)
    monkeypatch.setattr(fuzz, "_rewrite", refuses)
    fuzz.run_piece(0, range(5, 7), tmp_path)
    assert capsys.readouterr().out.splitlines() == [f"file {n}, fails: IndexError: beyond" for n in (5, 6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5.bin", "6.bin"]


@pytest.mark.parametrize("number", range(3))
def test_a_file_depends_on_its_number_alone(number):
    one, other = (fuzz.mutated(np.random.default_rng([0, number]), fuzz.sources()) for _ in range(2))
    assert one == other


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The codec with sanitizers."""
    folder = tmp_path_factory.mktemp("codec")
    (folder / "probe.c").write_text("int main(void) { return 0; }")
    try:
        words = fuzz_codec.compiler()
    except UsageError as error:
        pytest.skip(str(error))
    probe = [*words, fuzz_codec.SANITIZERS, str(folder / "probe.c"), "-o", str(folder / "probe")]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip(f"{words[0]} has no sanitizers")
    return fuzz_codec.build(folder)


def test_the_codec_is_safe_on_mutated_files(program, tmp_path):
    words = [str(program), str(fuzz_codec.write_seeds(tmp_path)), "0"]
    assert fuzz_codec.run_piece(words, 0, 10_000, tmp_path) == []


def test_a_harmful_mutation_is_named_and_kept(tmp_path):
    program, work = tmp_path / "program", tmp_path / "work"
    program.write_text("""#!/bin/sh
[ "$5" ] && { echo "file $3" > "$5"; exit; }
[ "$3" -gt 7 ] && exit
printf 'mutation 6\\nmutation 7\\ncodec.c:1: overflow\\nmore' >&2
exit 1
""")
    program.chmod(0o755)
    work.mkdir()
    assert fuzz_codec.run_piece([str(program), "seeds", "0"], 5, 10, work) == ["mutation 7: codec.c:1: overflow"]
    assert (work / "7.jpg").read_text() == "file 7\n"
    assert (work / "7.txt").read_text() == "codec.c:1: overflow\nmore"


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CC", "/no/cc -g")
    with pytest.raises(UsageError, match=re.escape("no C compiler is called /no/cc")):
        fuzz_codec.compiler()
