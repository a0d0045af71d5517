"""A run on two machines, as far as one can be two: network namespaces, an agent of torchrun in each, gloo between them.

    make demo    # packs the digits
    python -m benchmarks.two_nodes [--scenarios plain slow rank cut node head] [--cfg configs/digits.py] [key=value ...]

plain   nothing happens; the logs are compared with those of two ranks of one machine
slow    each frame takes 20 ms, and one in a hundred is lost
rank    the second machine's rank is killed: torchrun starts both again
cut     the cable is out for ten seconds, more than the ranks wait for each other: likewise
node    the second machine is gone for good: with --nnodes=1:2 the first goes on alone
head    the first is gone, which the agents meet at: the job ends, and the same command goes on with the other alone

Every step writes down its samples. A line a scenario says what was lost, how many steps were taken again, and how long
it took until the run was further than before. It needs Linux, `unshare` and `ip`; nothing outside of the namespaces
changes. The cable is this process, for not every kernel has netem.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from benchmarks import consumption
from benchmarks.common import show
from benchmarks.exactly_once import descendants
from benchmarks.restarts import learned, place
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError

NAMESPACES, INSIDE = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"), "LIMBECK_INSIDE"
ADDRESSES, PORT = ("10.77.0.1", "10.77.0.2"), 29_500
FAULT_AT = 43  # steps
CUT = 10.0  # seconds
TAP, TUNSETIFF, NET = 0x1002, 0x400454CA, 0x40000000  # IFF_TAP | IFF_NO_PI, the ioctl that names a device, CLONE_NEWNET


@exit_with_its_code
def main() -> None:
    """Run the scenarios in namespaces of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=[*SCENARIOS], help="default: all")
    parser.add_argument("--cfg", type=Path, default=Path("configs/digits.py"), help="config of the runs")
    parser.add_argument("--work", type=Path, default=Path("runs/two_nodes"), help="folder of the runs, emptied first")
    options, overrides = parser.parse_known_args()
    if INSIDE not in os.environ:
        enter_namespaces()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    words = ["--cfg", str(options.cfg), f"train_params.output_path={options.work}", "train_params.print_freq=1"]
    words += ["train_params.checkpoint_steps=5", "train_params.timeout_minutes=0.1", "data.batch_size=48", "epochs=6"]
    words += overrides
    cable = Cable()
    cable.start()
    whole = Run(options.work, "one_machine", words)
    whole.start_on_one_machine()
    whole.wait()
    for name in options.scenarios:
        cable.mend()
        run = Run(options.work, name, words)
        fault = SCENARIOS[name](run, cable)
        show("two_nodes", {"scenario": name, **run.compared(whole, fault)})


def enter_namespaces() -> None:
    """Become the same command in namespaces of its own; it does not return.

    Raises:
        UsageError: that is not to be had here.
    """
    if missing := [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]:
        raise UsageError(f"{missing[0]} is missing: it is in the package util-linux or iproute2")
    flags = [*NAMESPACES, *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    if subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode:
        raise UsageError("network namespaces may not be made here: run it as root, on a machine and not in a container")
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", *flags, sys.executable, "-m", "benchmarks.two_nodes", *sys.argv[1:]])


class Cable(threading.Thread):
    """Two network namespaces, node0 and node1, and what is between their network cards: delay, loss, nothing at all."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        _call("ip", "link", "set", "lo", "up")
        _call("mount", "-t", "tmpfs", "tmpfs", "/run")  # here alone: `ip` makes /run/netns
        self._ends = [self._end(node) for node in range(2)]
        self._draws = random.Random(0)
        self.mend()

    def mend(self) -> None:
        """From now on each frame arrives at once."""
        self.delay, self.loss, self.is_out = 0.0, 0.0, False

    def run(self) -> None:
        """Carry frames, for ever."""
        on_the_way: deque[tuple[float, int, bytes]] = deque()  # when and at which end a frame arrives
        while True:
            patience = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
            for end in select.select(self._ends, [], [], patience)[0]:
                frame = os.read(end, 1 << 16)
                if not self.is_out and self._draws.random() >= self.loss:
                    on_the_way.append((time.monotonic() + self.delay, self._ends[end == self._ends[0]], frame))
            while on_the_way and on_the_way[0][0] <= time.monotonic():
                _, end, frame = on_the_way.popleft()
                os.write(end, frame)

    def _end(self, node: int) -> int:
        """The plug of a network card of a new namespace."""
        name = f"node{node}"
        _call("ip", "netns", "add", name)
        here, there = Path("/proc/self/ns/net"), Path("/run/netns", name)
        with here.open() as back, there.open() as namespace:
            _enter(namespace.fileno())
            end = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", b"eth0", TAP))
            _enter(back.fileno())
        _call("ip", "-n", name, "address", "add", f"{ADDRESSES[node]}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _call("ip", "-n", name, "link", "set", device, "up")
        return end


class Run:
    """A training run of two ranks.

    Args:
        work: the folder of the runs.
        name: of this one.
        words: of the command line.
    """

    def __init__(self, work: Path, name: str, words: list[str]) -> None:
        self.folder, self._log, self._output = work / name, work / f"{name}_taken", work / f"{name}.log"
        script = ["-m", "benchmarks.consumption", str(self._log), "train_with_distillation.py"]
        self._command = [*script, *words, f"name={name}"]
        self._agents: dict[int, subprocess.Popen[bytes]] = {}

    def start_on_one_machine(self) -> None:
        """Two ranks, and no network between them."""
        self._start(0, [], ["--standalone", "--nproc-per-node=2"])

    def start(self, *nodes: int, nnodes: str = "2") -> None:
        """An agent on each of the ``nodes``, which meet at the first; ``nnodes`` as torchrun has it."""
        for node in nodes:
            meeting = [f"--nnodes={nnodes}", "--nproc-per-node=1", "--rdzv-backend=c10d"]
            meeting += [f"--rdzv-id={self.folder.name}", f"--rdzv-endpoint={ADDRESSES[nodes[0]]}:{PORT}"]
            meeting += [f"--local-addr={ADDRESSES[node]}"]
            is_host = f"is_host={int(node == nodes[0])},last_call_timeout=5"
            prefix = ["ip", "netns", "exec", f"node{node}"]
            self._start(node, prefix, [*meeting, f"--rdzv-conf={is_host}", "--max-restarts=3"])

    def wait(self) -> None:
        """Until it ended well.

        Raises:
            DataError: it did not.
        """
        if any(agent.wait() for agent in self._agents.values()):
            raise DataError(f"{self.folder.name} did not end well: {self._output}* have what its nodes printed")

    def wait_for_step(self, step: int) -> float:
        """Until it has taken ``step``; the time.

        Raises:
            DataError: it ended before.
        """
        while not any(one.step >= step for one in consumption.read(self._log)):
            if any(agent.poll() is not None for agent in self._agents.values()):
                raise DataError(f"{self.folder.name} ended before step {step}: {self._output}* have what it printed")
            time.sleep(0.05)
        return time.monotonic()

    def kill_rank(self, node: int) -> None:
        """SIGKILL to the rank of a node."""
        for one in descendants(self._agents[node].pid):
            if place(one) >= 0:
                os.kill(one, signal.SIGKILL)
                return

    def kill_node(self, node: int) -> None:
        """SIGKILL to all processes of a node."""
        agent = self._agents.pop(node)
        for one in [agent.pid, *descendants(agent.pid)]:
            os.kill(one, signal.SIGKILL)
        agent.wait()

    def end(self, node: int) -> None:
        """What a scheduler does with what is left of a job."""
        agent = self._agents.pop(node)
        agent.terminate()
        agent.wait()

    def compared(self, whole: Run, fault: float | None) -> dict[str, object]:
        """How it differs from the ``whole`` run, and how long after the ``fault`` it was further than before."""
        taken, should = consumption.read(self._log), consumption.read(whole._log)
        row: dict[str, object] = {**consumption.compare(taken, should)._asdict()}
        if fault is not None:
            before = max(one.step for one in taken if one.at < fault)
            row["seconds_until_further"] = round(next(one.at for one in taken if one.step > before) - fault, 1)
        else:
            row["steps_per_second"] = round((taken[-1].step - taken[0].step) / (taken[-1].at - taken[0].at), 2)
        if {one.world for one in taken} == {2}:
            row["logs_equal"] = learned(self.folder) == learned(whole.folder)
        return row

    def _start(self, node: int, prefix: list[str], options: list[str]) -> None:
        command = [*prefix, sys.executable, "-m", "torch.distributed.run", *options, *self._command]
        card = {"GLOO_SOCKET_IFNAME": "eth0" if prefix else "lo", "OMP_NUM_THREADS": "1"}
        with self._output.with_suffix(f".log{node}").open("a") as log:
            self._agents[node] = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **card})


def plain(run: Run, _cable: Cable) -> None:
    """Nothing happens."""
    run.start(0, 1)
    run.wait()


def slow(run: Run, cable: Cable) -> None:
    """Delay and loss from the start."""
    cable.delay, cable.loss = 0.02, 0.01
    run.start(0, 1)
    run.wait()


def rank(run: Run, _cable: Cable) -> float:
    """The rank of node 1 is killed."""
    run.start(0, 1)
    fault = run.wait_for_step(FAULT_AT)
    run.kill_rank(1)
    run.wait()
    return fault


def cut(run: Run, cable: Cable) -> float:
    """The cable is out for a while."""
    run.start(0, 1)
    fault = run.wait_for_step(FAULT_AT)
    cable.is_out = True
    time.sleep(CUT)
    cable.mend()
    run.wait()
    return fault


def node(run: Run, _cable: Cable) -> float:
    """Node 1 is gone; node 0 goes on alone."""
    run.start(0, 1, nnodes="1:2")
    fault = run.wait_for_step(FAULT_AT)
    run.kill_node(1)
    run.wait()
    return fault


def head(run: Run, _cable: Cable) -> float:
    """Node 0 is gone, where the agents meet; the job is ended and started again on node 1 alone."""
    run.start(0, 1)
    fault = run.wait_for_step(FAULT_AT)
    run.kill_node(0)
    run.end(1)
    run.start(1, nnodes="1")
    run.wait()
    return fault


SCENARIOS: dict[str, Callable[[Run, Cable], float | None]] = {
    "plain": plain,
    "slow": slow,
    "rank": rank,
    "cut": cut,
    "node": node,
    "head": head,
}


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, NET):
        raise OSError(ctypes.get_errno(), "setns")


def _call(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
