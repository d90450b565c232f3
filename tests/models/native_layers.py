"""One layer by the native kernels, forward and backward: what tests and the bench call by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.models.native_engine import NORMS, Kernel, address
from simulator.native.loader import library


def layer(
    kernel: Kernel,
    norm: str,
    product: Tensor,
    bias: Tensor,
    gain: Tensor | None,
    out: Tensor | None = None,
    moments: Tensor | None = None,
) -> Tensor:
    """A layer behind its matrix product [B, H] -> its output [B, H]; bias and gain [H].

    Norm `after`: product + bias -> activation -> layer norm -> gain. `before`: product -> layer norm -> gain -> bias ->
    activation. `none`: product + bias -> activation, no gain. `out` may be the product itself, which is then
    overwritten. `moments` [2, B] receives mean and 1 / standard deviation of each row, for `layer_backward`.
    """
    out = torch.empty_like(product) if out is None else out
    library().layer_forward(*_layer(kernel, norm, product, bias, gain, moments), out.data_ptr())
    return out


def layer_backward(
    kernel: Kernel,
    norm: str,
    product: Tensor,
    bias: Tensor,
    gain: Tensor | None,
    moments: Tensor | None,
    grad: Tensor,
    bias_grad: Tensor,
    gain_grad: Tensor | None,
) -> None:
    """Turn the gradient of `layer`'s output [B, H] into its product's, in place; fill bias_grad and gain_grad."""
    grads = grad.data_ptr(), bias_grad.data_ptr(), address(gain_grad)
    library().layer_backward(*_layer(kernel, norm, product, bias, gain, moments), *grads)


def _layer(
    kernel: Kernel, norm: str, product: Tensor, bias: Tensor, gain: Tensor | None, moments: Tensor | None
) -> tuple[int | None, ...]:
    """Arguments that both passes of a layer share."""
    mean, scale = (None, None) if moments is None else (moments[0].data_ptr(), moments[1].data_ptr())
    tensors = product.data_ptr(), bias.data_ptr(), address(gain), mean, scale
    return kernel.kind, NORMS[norm], kernel.address, *tensors, *product.shape
