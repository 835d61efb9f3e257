"""model.pt: the weights of every member, with what rebuilds their networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from .device import Compute, choose_compute
from .errors import InputError
from .files import saved_bytes, write_bytes
from .networks import build_network
from .run_folder import MODEL
from .settings import Settings, make_settings


def save_model(path: Path, networks: Sequence[nn.Module], settings: Settings) -> None:
    """Write the networks' weights and settings; equal weights give equal bytes."""
    save_weights(path, [cpu_weights(network.state_dict()) for network in networks], settings)


def save_weights(
    path: Path, members: Sequence[Mapping[str, torch.Tensor]], settings: Settings
) -> None:
    """Write a model whose members' weights are known, by name, from `cpu_weights`."""
    write_bytes(path, saved_bytes({"settings": settings.as_dict(), "members": list(members)}))


def cpu_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by name, on the CPU, laid out as everybody expects them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def read_model_settings(path: Path) -> Settings:
    """The settings of a saved model; raises as `load_model`."""
    return _read(path)[0]


def load_model(path: Path, compute: Compute) -> list[nn.Sequential]:
    """The networks of a saved model, on `compute.device`, in evaluation mode.

    Raises:
        InputError: the file is missing, damaged, or no model of ours. Nothing in it is executed.
    """
    settings, members = _read(path)
    networks = []
    for weights in members:
        network = build_network(settings, torch.Generator(compute.device))
        try:
            network.load_state_dict(weights)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise _no_model(path, "its weights do not fit its settings") from error
        if not all(value.isfinite().all() for value in network.state_dict().values()):
            raise _no_model(path, "its weights are not all numbers")
        networks.append(network.eval())
    return networks


def open_model(run: Path, *, device: str = "auto") -> tuple[list[nn.Sequential], Settings, Compute]:
    """The networks of a run's folder, or of a `model.pt` itself, on the device that is chosen.

    Raises:
        InputError: as `load_model`; a device that does not work.
    """
    path = run / MODEL if run.is_dir() else run
    settings = read_model_settings(path)
    compute = choose_compute(device, settings.precision)
    return load_model(path, compute), settings, compute


def _read(path: Path) -> tuple[Settings, list[dict[str, torch.Tensor]]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the folder of a finished run")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises whatever its zip and pickle readers do; all mean the same to a user.
        raise _no_model(path, "it is damaged, or would run code when opened") from error
    if not isinstance(content, dict):
        raise _no_model(path, "its settings are missing or unknown")
    try:
        changes = dict(content["settings"])
        settings, members = make_settings(changes.pop("preset"), changes), list(content["members"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise _no_model(path, "its settings are missing or unknown") from error
    if not members:
        raise _no_model(path, "it holds no network")
    return settings, members


def _no_model(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is no model that can be used ({reason}): train it again")
