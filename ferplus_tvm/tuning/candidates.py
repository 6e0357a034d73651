"""Candidates on a device: kernels of one layer, or whole networks, checked and timed.

Every call is timed by TVM's own evaluator on the device.  A kernel's comes after all operands but
the first have left the caches, as the rest of the network would have them do; a network's after a
pause.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.tuning.device_session import DeviceSession
from ferplus_tvm.tuning.task import LayerTask

_FLUSH = "cache_flush_cpu_non_first_arg"
_LAUNCHES = 20
_PAUSE = 20  # milliseconds between the calls of a network, as between the images of a camera


class KernelCandidates:
    """The candidates of one layer.

    All but the weights are the same arrays for all of them.  Where those happen to lie can make a
    tenth of a kernel's time, as its stores and loads conflict in the caches; see `move`.
    """

    def __init__(self, session: DeviceSession, task: LayerTask) -> None:
        self.session = session
        self.task = task
        self.expected = task.expected()
        self.tensors: dict[Hashable, Any] = {}
        self.operands: dict[Hashable, list[list[Hashable]]] = {}
        self.candidates: list[tuple[Any, list[list[Hashable]]]] = []
        self._blanks: dict[Hashable, Any] = {}
        self._random = random.Random(0)
        self._pads: list[Any] = []

    def admit(self, path: Path, config: Config) -> str | None:
        """Take in a candidate, or return why it is not one: its answer is wrong."""
        layout = self.task.layout(config)
        if layout not in self.operands:
            self.operands[layout] = self._send(self.task.operands(config), layout)
        module, operands = self.session.load(path), self.operands[layout]
        for arguments in operands:  # what an earlier candidate has written there is no answer
            self.tensors[arguments[-1]].copyfrom(self._blank(arguments[-1]))
        for at, arguments in enumerate(operands):
            module[f"kernel{at}"](*(self.tensors[name] for name in arguments))
        answer = self.tensors[operands[-1][-1]].numpy()
        # What is not a number compares as false.
        allowed = self.task.backend.tolerance * float(np.abs(self.expected).max())
        off = float(np.abs(answer - self.expected).max())
        if not off <= allowed:
            return f"its answer is off by {off:.1e}"
        self.candidates.append((module, operands))
        return None

    def time(self, candidate: int, repeat: int) -> list[float]:
        """Return the seconds of ``repeat`` calls of a candidate, by its number."""
        module, operands = self.candidates[candidate]
        total = np.zeros(repeat)
        for at, arguments in enumerate(operands):
            # A GPU's caches hold most weights from one call to the next, and its clock, which
            # counts launches too, is too coarse for one of them.
            number, preparation = (_LAUNCHES, "") if self.session.on_gpu else (1, _FLUSH)
            evaluator = module.time_evaluator(
                f"kernel{at}",
                self.session.device,
                number=number,
                repeat=repeat,
                f_preproc=preparation,
            )
            total += evaluator(*(self.tensors[name] for name in arguments)).results
        return [float(seconds) for seconds in total]

    def move(self) -> None:
        """Have every array lie elsewhere, in an order and at distances that are random."""
        names = list(self.tensors)
        self._random.shuffle(names)
        moved = {}
        pads = []
        for name in names:
            pads.append(self.session.empty((16 * self._random.randrange(1, 256),), "float32"))
            moved[name] = self.session.copy(self.tensors[name])
        self.tensors, self._pads = moved, pads

    def _blank(self, name: Hashable) -> Any:
        """Return an array of the device that is not a number anywhere, of a tensor's shape."""
        shape = tuple(int(extent) for extent in self.tensors[name].shape)
        key = (shape, str(self.tensors[name].dtype))
        if key not in self._blanks:
            self._blanks[key] = self.session.tensor(np.full(shape, np.nan, key[1]))
        return self._blanks[key]

    def _send(self, calls: list[list[NDArray[Any]]], layout: Hashable) -> list[list[Hashable]]:
        """Send the operands of a layout, but for those that are there, and return their names."""
        sent = []
        for at, arrays in enumerate(calls):
            # Kernels take a map, weights where they have some, a bias, and the map to write.
            given = ["weight", "bias"][4 - len(arrays) :] if len(arrays) > 2 else []
            names = [f"map{at}", *given, f"map{at + 1}"]
            keys: list[Hashable] = []
            for name, array in zip(names, arrays, strict=True):
                # Candidates share what they read alike, and of a GPU nothing.
                apart = layout if name == "weight" or self.session.on_gpu else None
                key = (name, array.shape, apart)
                if key not in self.tensors:
                    self.tensors[key] = self.session.tensor(array)
                keys.append(key)
            sent.append(keys)
        return sent


class NetworkCandidates:
    """Whole networks of one batch size, with the same weights in different layouts."""

    def __init__(self, session: DeviceSession, shape: tuple[int, ...]) -> None:
        self.session = session
        faces = np.random.default_rng(0).integers(0, 256, shape)
        self.faces = session.tensor(faces.astype(np.float32))
        self.weights: dict[str, Any] = {}
        self.calls: list[tuple[Any, list[Any]]] = []

    def admit(self, path: Path, function: str, weights: dict[str, Path]) -> NDArray[np.float32]:
        """Take in a network, and return its scores for the faces that all of them get."""
        from tvm import relax

        machine = relax.VirtualMachine(self.session.load(path), self.session.device)
        for name, file in weights.items():
            if name not in self.weights:
                self.weights[name] = self.session.tensor(np.load(file))
        arguments = [self.faces, *(self.weights[name] for name in weights)]
        machine.set_input(function, *arguments)
        machine.invoke_stateful(function)
        scores: NDArray[np.float32] = machine.get_outputs(function).numpy()
        machine.save_function(function, "timed", *arguments)
        self.calls.append((machine, arguments))
        return scores

    def time(self, candidate: int, repeat: int) -> list[float]:
        """Return the seconds of ``repeat`` calls of a candidate, by its number."""
        machine, _ = self.calls[candidate]
        evaluator = machine.time_evaluator(
            "timed", self.session.device, number=1, repeat=repeat + 1, cooldown_interval_ms=_PAUSE
        )
        # The pauses come after the calls.
        return [float(seconds) for seconds in evaluator().results[1:]]
