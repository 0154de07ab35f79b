"""The other end of :mod:`.foreign`: a model from a user's checkout, in the user's Python.

Run as a script (``python worker.py MODEL CHECKOUT WEIGHTS``), perhaps by a Python that has nothing
of this project: it imports the standard library, numpy and what the checkout needs. Weights are
read with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

_LIMIT_BYTES = 1 << 26


class WrongWeights(Exception):
    """The file of weights cannot be read, or is another model's."""


def send(stream: IO[bytes], header: dict[str, Any], array: Any = None) -> None:
    """A line of JSON, and the array whose shape and type it tells. Raises OSError."""
    if array is not None:
        header = {**header, "shape": list(array.shape), "dtype": array.dtype.str}
    stream.write(json.dumps(header).encode() + b"\n")
    if array is not None:
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any]:
    """The inverse: the header, with the array in it as ``array``. Raises EOFError at the end."""
    line = stream.readline()
    if not line:
        raise EOFError("end of stream")
    header: dict[str, Any] = json.loads(line)
    if "shape" in header:
        kind = np.dtype(header["dtype"])
        size = int(np.prod(header["shape"])) * kind.itemsize
        if kind.kind not in "fi" or not 0 <= size <= _LIMIT_BYTES:
            raise EOFError(f"no array that this end takes: {header}")
        data = stream.read(size)
        if len(data) != size:
            raise EOFError("end of stream within an array")
        header["array"] = np.frombuffer(data, kind).reshape(header["shape"])
    return header


class Esc:
    """``esc`` of the checkout; weights are the folder with ``config.yaml`` and ``model.pth``."""

    def __init__(self, weights: Path) -> None:
        yaml = importlib.import_module("yaml")
        config = yaml.safe_load((weights / "config.yaml").read_text(encoding="utf-8"))
        make_model = importlib.import_module("esc.models").make_model
        self._model = make_model(config["model"], config["model_name"]).eval()
        _fill(self._model, weights / "model.pth", "model_state_dict")
        self.file = weights / "model.pth"

    def encode(self, samples: Any, codebooks: int) -> Any:
        """Streams have ``group`` codebooks each: shape (streams * group, steps)."""
        group = self._model.quantizers[0].num_vqs
        codes, _ = self._model.encode(samples[None], num_streams=codebooks // group)
        return codes[0].reshape(codebooks, -1)

    def decode(self, codes: Any) -> Any:
        group = self._model.quantizers[0].num_vqs
        streams = codes.reshape(1, -1, group, codes.shape[1])
        return self._model.decode(streams, (2, 2 * codes.shape[1]))[0]


class WavTokenizer:
    """``decoder.pretrained`` of the checkout; weights are the ``.ckpt`` with its YAML beside it."""

    def __init__(self, weights: Path) -> None:
        pretrained = importlib.import_module("decoder.pretrained")
        configs = sorted(weights.parent.glob("*.yaml"))
        if len(configs) != 1:
            raise WrongWeights(
                f"{weights.parent}: expected one .yaml, the configuration of {weights.name}, got"
                f" {len(configs)}"
            )
        self._model = pretrained.WavTokenizer.from_hparams0802(str(configs[0])).eval()
        _fill(self._model, weights, "state_dict", ("feature_extractor.", "backbone.", "head."))
        self._bandwidth = importlib.import_module("torch").tensor([0])
        self.file = weights

    def encode(self, samples: Any, codebooks: int) -> Any:  # noqa: ARG002
        _, codes = self._model.encode_infer(samples[None], bandwidth_id=self._bandwidth)
        return codes[:, 0]

    def decode(self, codes: Any) -> Any:
        features = self._model.codes_to_features(codes)
        return self._model.decode(features, bandwidth_id=self._bandwidth)[0]


MODELS: dict[str, Callable[[Path], Any]] = {"esc": Esc, "wavtokenizer": WavTokenizer}


def _fill(model: Any, file: Path, inside: str, prefixes: tuple[str, ...] = ("",)) -> None:
    torch = importlib.import_module("torch")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)[inside]
        model.load_state_dict(
            {key: value for key, value in state.items() if key.startswith(prefixes)}
        )
    except Exception as error:  # torch names no common base of what a damaged file raises
        raise WrongWeights(f"{file}: not a checkpoint of this model: {error}") from error


def main(model: str, checkout: str, weights: str) -> None:
    """Serve until the input ends. What the checkout prints goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.path[0] = checkout  # instead of this file's folder
    try:
        served = MODELS[model](Path(weights))
        torch = importlib.import_module("torch")
        torch.set_num_threads(1)
        digest = hashlib.sha256(served.file.read_bytes()).hexdigest()
    except WrongWeights as error:
        return send(answers, {"failed": "weights", "reason": str(error)})
    except Exception as error:
        reason = f"{checkout}: {type(error).__name__}: {error}"
        return send(answers, {"failed": "checkout", "reason": reason})
    library = f"{model} of the user's checkout, weights sha256 {digest}, torch {torch.__version__}"
    send(answers, {"library": library})
    with contextlib.suppress(EOFError), torch.inference_mode():
        while True:
            asked = receive(sys.stdin.buffer)
            array = torch.from_numpy(asked["array"].copy())
            if asked["op"] == "encode":
                result = served.encode(array, asked["codebooks"]).to(torch.int64)
            else:
                result = served.decode(array).to(torch.float32)
            send(answers, {}, result.contiguous().numpy())
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
