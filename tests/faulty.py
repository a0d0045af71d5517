"""Samples that harm the process that reads them; a module of their own, for decoding processes import it."""

import os
import signal
import time

import cv2
import numpy as np

from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError


class Faulty(Samples):
    """``count`` gray squares of 16 x 16, as bright as their number; ``faults`` says which sample does what."""

    def __init__(self, count: int, **faults: str) -> None:
        self.classes, self.labels = ("one", "two"), np.arange(count) % 2
        self._count = count
        self._faults = {int(name[1:]): fault for name, fault in faults.items()}

    def __len__(self) -> int:
        return self._count

    def describe(self, index: int) -> str:
        return f"square {index}"

    def read(self, index: int) -> Record:
        match self._faults.get(index):
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(9)
            case "hang":
                time.sleep(1000)
            case "nap":
                time.sleep(0.001)
            case "error":
                raise DataError(f"square {index} is damaged")
        image = cv2.imencode(".png", np.full((16, 16, 3), index, np.uint8))[1].tobytes()
        return Record(f"square{index}", image, index % 2)


class Stillborn(Faulty):
    """Samples that end every process they are sent to."""

    def __setstate__(self, state: dict) -> None:
        os._exit(9)
