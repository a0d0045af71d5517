"""What a test's packing processes do; a module of its own, for they import it."""

import os
import signal
import time

from dataset.store.pool import advance
from utils.errors import DataError


def work(job: str) -> str:
    """The text of the job in capitals, or what it asks for."""
    match job:
        case "kill":
            advance(0, "b/bomb.PNG")
            os.kill(os.getpid(), signal.SIGKILL)
        case "refuse":
            raise DataError("refused")
        case "fail":
            raise KeyError("bug")
        case "hang":
            advance(1, "a/slow.JPEG")
            time.sleep(1000)
    advance(len(job))
    return job.upper()
