"""Decoding processes: what they deliver, and what happens when they die, hang, or their trainer does."""

import errno
import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from faulty import Faulty, Stillborn
from processes import alive, shared_memory, wait_until

from dataset.config import DataConfig
from dataset.feed.batches import BatchMaker
from dataset.feed.ring import Ring, _fault_of
from dataset.feed.targets import Labels
from dataset.feed.worker import TASK
from dataset.loader import EvalLoader, TrainLoader
from utils.errors import DataError, UsageError

CPU = torch.device("cpu")


def configure(**more):
    settings = {"batch_size": 8, "val_batch_size": 8, "num_workers": 2, "input_size": 16, "val_resize": 16}
    return DataConfig("", **{**settings, "worker_timeout": 60.0, **more})


@contextmanager
def started(samples, rows=40, workers=2, **more):
    """A ring over an evaluation's views."""
    ring = Ring(BatchMaker(samples, configure(**more), Labels(2), None), rows, workers)
    ring.start()
    try:
        yield ring
    finally:
        ring.close()


def evaluate(samples, **more):
    """Index and brightness of every sample that an evaluation sees."""
    loader = EvalLoader(samples, configure(**more), 0, 1, CPU)
    try:
        seen = [(batch["index"], batch["images"].float().mean((1, 2, 3))) for batch in loader]
    finally:
        loader.close()
    return torch.cat([index for index, _ in seen]).tolist(), torch.cat([pixels for _, pixels in seen]).tolist()


@pytest.mark.parametrize("samples", [1, 5, 100])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_every_sample_comes_once_with_its_own_pixels(samples, workers):
    index, brightness = evaluate(Faulty(samples), num_workers=workers, val_batch_size=3)
    assert index == list(range(samples))
    assert brightness == index


def test_batches_of_many_pieces_and_of_less_than_one():
    with started(Faulty(256), rows=200) as ring:
        for rows in (200, 1, 7, 200, 65, 16):
            wanted = np.random.default_rng(rows).permutation(256)[:rows]
            slot = ring.submit(wanted, 0)
            batch = ring.wait(slot)
            assert np.array_equal(batch["index"], wanted)
            assert np.array_equal(batch["images"][:, 3, 3, 0], wanted)
            ring.release(slot)


def test_slots_are_written_in_place_and_bounded():
    with started(Faulty(100)) as ring:
        first = {id(slot["images"]) for slot in ring.slots}
        slots = []
        while ring.has_room:
            slots.append(ring.submit(np.arange(40), 0))
        assert 3 <= len(slots) <= 6
        for slot in slots:
            assert np.shares_memory(ring.wait(slot)["images"], ring.slots[slot]["images"])
            ring.release(slot)
        assert {id(slot["images"]) for slot in ring.slots} == first


@pytest.mark.parametrize(("fault", "how"), [("die", "was ended by signal 9"), ("exit", "ended with exit code 9")])
def test_a_dead_process_is_named_with_its_sample(fault, how):
    with pytest.raises(DataError, match=rf"decoding process \d \(pid \d+\) {how} at square 23\."):
        evaluate(Faulty(60, _23=fault), val_batch_size=40)


def test_a_process_that_hangs_is_named_with_its_sample():
    with pytest.raises(DataError, match=r"was still at work after 3 s at square 23\."):
        evaluate(Faulty(60, _23="hang"), val_batch_size=40, worker_timeout=3.0)


@pytest.mark.parametrize("fault", ["die", "hang"])
def test_the_run_continues_without_it_where_the_config_allows_it(fault):
    samples = Faulty(200, _23=fault, _150=fault)
    with pytest.warns(RuntimeWarning, match=r"at square (23|150); another takes its place"):
        index, brightness = evaluate(samples, val_batch_size=40, num_workers=4, on_fault="skip", worker_timeout=3.0)
    assert index == [number for number in range(200) if number not in (23, 150)]
    assert brightness == index


def test_a_process_is_replaced_and_what_ended_it_is_not_tried_again():
    loader = EvalLoader(Faulty(60, _0="die", _3="die", _30="die"), configure(on_fault="skip", num_workers=1), 0, 1, CPU)
    wanted = [number for number in range(60) if number not in (0, 3, 30)]
    with pytest.warns(RuntimeWarning, match="another takes its place") as warned:
        assert torch.cat([batch["index"] for batch in loader]).tolist() == wanted
    assert len(warned) == 3
    assert torch.cat([batch["index"] for batch in loader]).tolist() == wanted  # without a word
    loader.close()


def test_a_file_that_cannot_be_read_is_what_is_wrong():
    class Gone:
        def check(self, index):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    assert os.strerror(errno.EIO) in _fault_of(Gone(), 0)


def test_damage_before_the_sample_that_ends_a_process():
    samples = Faulty(40, _3="error", _5="die")
    with pytest.warns(RuntimeWarning):
        index, brightness = evaluate(samples, val_batch_size=40, on_fault="skip", num_workers=1)
    assert index == brightness == [number for number in range(40) if number not in (3, 5)]


def test_without_any_process_left_the_run_ends():
    loader = EvalLoader(Stillborn(60), configure(on_fault="skip", val_batch_size=40), 0, 1, CPU)
    with pytest.warns(RuntimeWarning, match="continuing with 1"), pytest.raises(DataError, match="none is left"):
        list(loader)
    with pytest.raises(DataError, match="no decoding process is left"):
        list(loader)
    loader.close()


@pytest.mark.parametrize("on_fault", ["stop", "skip"])
def test_an_idle_process_that_is_killed(on_fault):
    with started(Faulty(100), on_fault=on_fault) as ring:
        ring.release(ring.submit(np.arange(40), 0))
        ring.wait(0)
        wait_until(lambda: not ring._status[:, 4].any())
        ring._workers[0].process.kill()
        ring._workers[0].process.wait()
        slots = [ring.submit(np.arange(40) + 3, 0)]
        if on_fault == "stop":
            with pytest.raises(DataError, match=r"decoding process 0 \(pid \d+\) was ended by signal 9\. Is"):
                ring.wait(slots[0])
        else:
            # the second, where the other one did all the work before it
            with pytest.warns(RuntimeWarning, match="another takes its place|continuing with 1"):
                batch = ring.wait(slots[0])
            assert np.array_equal(batch["images"][:, 0, 0, 0], np.arange(40) + 3)


def test_a_task_that_was_taken_and_never_begun_is_handed_out_again():
    with started(Faulty(100)) as ring:
        for worker in ring._workers:
            worker.process.send_signal(signal.SIGSTOP)
        slot = ring.submit(np.arange(40), 0)
        lost = TASK.unpack(os.read(ring._waiting, TASK.size))  # as one who dies on the next line
        for worker in ring._workers:
            worker.process.send_signal(signal.SIGCONT)
        batch = ring.wait(slot)
        assert lost[1:3] != (0, 40)  # the others' pieces were done
        assert np.array_equal(batch["images"][:, 0, 0, 0], np.arange(40))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_record_stops_the_run_or_is_skipped(workers):
    samples = Faulty(60, _23="error", _59="error")
    with pytest.raises(DataError, match="square 23 is damaged"):
        evaluate(samples, num_workers=workers)
    with pytest.warns(RuntimeWarning, match="skipped: square (23|59) is damaged"):
        index, brightness = evaluate(samples, num_workers=workers, on_fault="skip")
    assert index == [*range(23), *range(24, 59)]
    assert brightness == index


@pytest.mark.parametrize("workers", [0, 2])
def test_what_processes_spend_their_time_on(workers):
    samples = Faulty(100, **{f"_{number}": "nap" for number in range(100)})
    with started(samples, workers=workers, on_fault="skip", type_of_data_aug="squash") as ring:
        assert ring.spent()[1:].tolist() == [0, 0, 0]
        for _ in range(3):
            begun, before = time.perf_counter_ns(), ring.spent()
            ring.wait(slot := ring.submit(np.arange(40), 0))
            ring.release(slot)
            spent, elapsed = ring.spent() - before, time.perf_counter_ns() - begun
            assert (spent >= 0).all()
            assert spent.sum() <= elapsed * max(1, workers)
            assert spent[1] >= 40 * 1e6  # the naps
            assert spent[2] > 0
        if workers:
            wait_until(lambda: ring._status[:, 5].all())
            begun, before = time.perf_counter_ns(), ring.spent()
            time.sleep(0.05)
            spent = ring.spent() - before
            assert 2 * 50e6 <= spent[0] <= 2 * (time.perf_counter_ns() - begun)  # both are idle
            assert not spent[1:].any()
            ring._workers[0].process.kill()
            ring._workers[0].process.wait()
            with pytest.warns(RuntimeWarning, match="another takes its place|continuing with 1"):
                ring.wait(ring.submit(np.arange(40), 0))
            assert (ring.spent()[1:3] > before[1:3]).all()  # what the one that ended had spent counts


@pytest.mark.parametrize("workers", [0, 2])
def test_in_training_the_first_good_sample_takes_its_place(workers):
    config = configure(num_workers=workers, on_fault="skip")
    loader = TrainLoader(Faulty(64, _23="error", _24="die" if workers else "error"), config, 0, 0, 1, CPU)
    with pytest.warns(RuntimeWarning, match="square (23|24)"):
        batches = [{name: tensor.clone() for name, tensor in batch.named.items()} for batch in loader.epoch(0)]
    loader.close()
    index = torch.cat([batch["index"] for batch in batches])
    assert sorted(set(range(64)) - set(index.tolist())) == [23, 24]
    assert len(index) == 64
    for batch in batches:
        assert torch.equal(batch["images"][:, 0, 5, 5].long(), batch["index"])
        assert torch.equal(batch["labels"], batch["index"] % 2)
    loader = TrainLoader(Faulty(8, **{f"_{number}": "error" for number in range(8)}), config, 0, 0, 1, CPU)
    with pytest.warns(RuntimeWarning), pytest.raises(DataError, match="not one sample of a whole batch"):
        list(loader.epoch(0))
    loader.close()


SCRIPT = """
import signal, sys, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job has not
sys.path[:0] = ["tests", "tests/dataset"]
from faulty import Faulty
from test_ring import CPU, configure
from dataset.loader import EvalLoader
loader = EvalLoader(Faulty(200), configure(), 0, 1, CPU)
batches = iter(loader)
next(batches)
print(*(worker.process.pid for worker in loader._stream.ring._workers), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_trainer_that_ends_leaves_no_process_and_no_shared_memory(how):
    trainer = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert trainer.stdout is not None
    pids = trainer.stdout.readline().split()
    assert len(pids) == 2
    assert all(map(alive, pids))
    wait_until(lambda: all("memfd:limbeck-batches" in Path(f"/proc/{pid}/maps").read_text() for pid in pids))
    assert not any(map(shared_memory, [trainer.pid, *pids]))  # nothing that would need to be removed
    trainer.send_signal(how)
    trainer.wait()
    trainer.stdout.close()
    wait_until(lambda: not any(map(alive, pids)))


def test_processes_end_with_the_loader_and_start_again():
    loader = EvalLoader(Faulty(20), configure(), 0, 1, CPU)
    assert len(list(loader)) == 3
    pids = [worker.process.pid for worker in loader._stream.ring._workers]
    gc.collect()  # what other tests left
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    loader.close()
    loader.close()
    assert not any(map(alive, pids))
    next(iter(loader))
    loader.close()  # in the middle
    assert len(list(loader)) == 3
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
    pids = [worker.process.pid for worker in loader._stream.ring._workers]
    del loader
    gc.collect()
    wait_until(lambda: not any(map(alive, pids)))


def test_samples_that_processes_cannot_import_are_refused():
    class Local(Faulty):
        pass

    with pytest.raises(UsageError, match="cannot go to a decoding process"):
        evaluate(Local(8))
    script = SCRIPT.replace("loader = ", "class Own(Faulty): pass\nloader = ").replace("Faulty(200)", "Own(200)")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "UsageError: the samples cannot go to a decoding process" in done.stderr


def test_memory_of_a_process_does_not_grow():
    with started(Faulty(256), rows=64, workers=1) as ring:

        def draw(batches):
            for number in range(batches):
                slot = ring.submit(np.arange(64) + number % 190, 0)
                ring.wait(slot)
                ring.release(slot)
            rollup = Path(f"/proc/{ring._workers[0].process.pid}/smaps_rollup").read_text()
            return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous"))

        before = draw(200)
        assert before < 150_000  # kB
        assert draw(800) < before + 2_000
