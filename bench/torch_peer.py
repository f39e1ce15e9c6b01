"""PyTorch on one thread, where it is installed: `nn.LSTMCell` for a step, `nn.LSTM` along a sequence and in training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.problem import Float32, Problem

torch.set_num_threads(1)


def step(problem: Problem) -> Callable[[], Any]:
    """One step of all streams; h and c go in and come out."""
    cell = torch.nn.LSTMCell(problem.x.shape[1], problem.h.shape[1])
    cell.load_state_dict(_weights(problem, ""))
    x, h, c = (torch.from_numpy(of) for of in (problem.x, problem.h, problem.c))

    def call() -> Any:
        with torch.inference_mode():
            return cell(x, (h, c))

    return call


def step_on_gpu(problem: Problem, times: int) -> Callable[[], None]:
    """So many steps of all streams on the GPU, in float32 without TF32, and the wait for them."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cell = torch.nn.LSTMCell(problem.x.shape[1], problem.h.shape[1]).cuda()
    cell.load_state_dict(_weights(problem, ""))
    x, h, c = (torch.from_numpy(of).cuda() for of in (problem.x, problem.h, problem.c))

    def call() -> None:
        nonlocal h, c
        with torch.inference_mode():
            for _ in range(times):
                h, c = cell(x, (h, c))
        torch.cuda.synchronize()

    return call


def sequence(problem: Problem, x: Float32) -> Callable[[], Float32]:
    """The only stream through x (T, I); h after each step (T, H)."""
    layer = torch.nn.LSTM(x.shape[1], problem.h.shape[1])
    layer.load_state_dict(_weights(problem, "_l0"))
    given, h, c = (torch.from_numpy(of) for of in (x[:, None].copy(), problem.h, problem.c))

    def call() -> Float32:
        with torch.inference_mode():
            out: Float32 = layer(given, (h[None], c[None]))[0][:, 0].numpy()
        return out

    return call


def _weights(problem: Problem, end: str) -> dict[str, Any]:
    arrays = (problem.W_ih, problem.W_hh, problem.bias, np.zeros_like(problem.bias))
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return {f"{name}{end}": torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


def training(problem: Problem, x: Float32, target: Float32) -> Callable[[], float]:
    """An update of a layer with a readout that begins at 0, on one window (T, B, I); returns its mean squared error."""
    layer = torch.nn.LSTM(x.shape[2], problem.h.shape[1])
    layer.load_state_dict(_weights(problem, "_l0"))
    readout = torch.nn.Linear(problem.h.shape[1], x.shape[2])
    torch.nn.init.zeros_(readout.weight)
    torch.nn.init.zeros_(readout.bias)
    parameters = [*layer.parameters(), *readout.parameters()]
    adam = torch.optim.Adam(parameters, 1e-3)
    given, wished = torch.from_numpy(x), torch.from_numpy(target)

    def call() -> float:
        adam.zero_grad()
        loss = torch.nn.functional.mse_loss(readout(layer(given)[0]), wished)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        return float(loss.detach())

    return call
