"""The files for schedulers: what they start, and what they do with its exit code."""

import os
import stat
import subprocess

import pytest
from conftest import ROOT

SLURM = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "12"}
SKY = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}


def stub(folder, name, script):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def under_slurm(folder, code, **more):
    """Runs deploy/slurm.sbatch with stubs of Slurm's commands, two ranks of which end with ``code``."""
    stub(folder, "scontrol", f'[ "$1" = show ] && echo -e "a1\\na2" || echo "$@" >> {folder}/requeued')
    tasks = "for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank"
    stub(folder, "srun", f'shift; {tasks} "$@" || code=$?; done; exit ${{code:-0}}')
    names = "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $SRUN_CPUS_PER_TASK"
    stub(folder, "python", f'echo "{names}: $*" >> {folder}/ranks; exit {code}')
    path = f"{folder}:{os.environ['PATH']}"
    env = {**os.environ, **SLURM, "PATH": path, "PYTHON": str(folder / "python"), **more}
    words = ["--cfg", "my config.py", "method=wsld"]
    done = subprocess.run(["bash", "deploy/slurm.sbatch", *words], cwd=ROOT, env=env, timeout=60)
    return done.returncode, (folder / "requeued").exists()


def test_slurm_starts_the_ranks(tmp_path):
    assert under_slurm(tmp_path, 0) == (0, False)
    wanted = "train_with_distillation.py --cfg my config.py method=wsld"
    lines = [f"{rank} {rank} 2 a1 23456 12: {wanted}" for rank in (0, 1)]
    assert (tmp_path / "ranks").read_text().splitlines() == lines


@pytest.mark.parametrize("code", [75, 5, 137])
def test_slurm_queues_a_job_again_that_can_go_on(tmp_path, code):
    assert under_slurm(tmp_path, code) == (code, True)


@pytest.mark.parametrize("code", [2, 3, 4])
def test_slurm_does_not_repeat_a_mistake(tmp_path, code):
    assert under_slurm(tmp_path, code) == (code, False)


def test_slurm_gives_up_on_ranks_that_are_killed_again_and_again(tmp_path):
    assert under_slurm(tmp_path, 137, SLURM_RESTART_COUNT="10") == (137, False)
    assert under_slurm(tmp_path, 75, SLURM_RESTART_COUNT="10") == (75, True)


@pytest.mark.parametrize("node", [0, 1])
def test_skypilot_starts_an_agent_a_node(tmp_path, node):
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((ROOT / "deploy" / "sky.yaml").read_text())
    stub(tmp_path / ".venv" / "bin", "torchrun", 'echo "$@"')
    env = {**os.environ, **SKY, "SKYPILOT_NODE_RANK": str(node), "SKYPILOT_TASK_ID": "job", **task["envs"]}
    done = subprocess.run(
        ["bash", "-c", task["run"]], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert "--nnodes=2 --nproc-per-node=8 --max-restarts=3" in done.stdout
    assert f"--rdzv-id=job --rdzv-endpoint=10.0.0.1:29500 --rdzv-conf=is_host={int(node == 0)}" in done.stdout
    assert (
        "train_with_distillation.py --cfg configs/imagenet.py method=wsld data.data_path=/limbeck/lmdb" in done.stdout
    )


def test_kubeflow_starts_torchrun():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((ROOT / "deploy" / "trainjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["torchrun", "/limbeck/train_with_distillation.py"]
    assert (ROOT / trainer["args"][1].removeprefix("/limbeck/")).exists()
