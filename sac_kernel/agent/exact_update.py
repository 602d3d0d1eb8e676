"""One update of exact SAC, forward and backward written out, for P agents at once.

The update is a function of (weights and moments, batch, terms): it draws nothing, reads nothing back to the
host and has no shape that depends on the data, so CPU and GPU run the same operations, and their number does
not depend on P. Every formula is checked against autograd.

The soft maximum over positions is a product with a fixed kernel,

    sum_a exp((W_a - c |a - p|) / alpha) = (K exp(W / alpha))_p,    K_pa = exp(-c |a - p| / alpha),

and because |a - p| is a distance on a line, a pass upwards and one downwards do it for any cost of a row's own
(`soft_value`): 21 exponentials a row where the definition has 441.

Shapes: P agents, B decisions, D inputs, G positions. Activations are (P, width, B): the batch is the long,
contiguous axis, so no product and no pointwise operation runs over the odd number of positions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam; Kingma and Ba 2015, arXiv:1412.6980, with decoupled decay, Loshchilov and Hutter 2019."""

_AVERAGE_START = 10.0
_BLOCK = 64
_relu_backward = torch.ops.aten.threshold_backward


class Layer(NamedTuple):
    """Views of one layer of n networks."""

    weight: Tensor  # (n, out, in)
    bias: Tensor  # (n, out, 1)


class Layout:
    """Where each layer's weights lie in a network's vector.

    Attributes
    ----------
    widths : inputs, hidden layers, outputs
    size : length of the vector; a multiple of 64, so that every network starts on a cache line and vectorised
        loops treat a network of a population as they treat one alone
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = tuple(widths)
        shapes = list(zip(self.widths[1:], self.widths[:-1], strict=True))
        self.size = -(-sum(out * (fan_in + 1) for out, fan_in in shapes) // _BLOCK) * _BLOCK
        self._shapes = shapes

    def layers(self, flat: Tensor) -> list[Layer]:
        """Return the layers as views of n vectors, (n, size)."""
        layers, at, n = [], 0, len(flat)
        bias_at = sum(out * fan_in for out, fan_in in self._shapes)
        for out, fan_in in self._shapes:
            weight = flat[:, at : at + out * fan_in].view(n, out, fan_in)
            layers.append(Layer(weight, flat[:, bias_at : bias_at + out].unsqueeze(-1)))
            at, bias_at = at + out * fan_in, bias_at + out
        return layers

    def initial(self, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return one network's first weights, (size,): torch.nn.Linear's, but an output layer of zeros.

        With W = 0 everywhere the agent starts by holding what it holds.
        """
        generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(1, self.size)
        for layer in self.layers(flat)[:-1]:
            bound = 1.0 / math.sqrt(layer.weight.shape[-1])
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        return flat[0].to(dtype)


class Batch(NamedTuple):
    """B drawn decisions of each of P agents.

    Attributes
    ----------
    features : (2 P, B, D), of the decisions of all agents, then of their successors
    reward : (P, G, B), all of the target that the network does not say: see `exact.reward_table`
    decay : (P, B), exp(-c dx / alpha) of the successor, float64: what is left of a weight one position further;
        0 where nothing can fill
    """

    features: Tensor
    reward: Tensor
    decay: Tensor


class Terms(NamedTuple):
    """Settings of P agents, as tensors, so that a change retraces nothing.

    Attributes
    ----------
    gamma, alpha : (P, 1, 1); alpha in float64
    tau, averaging : (P, 1)
    descents : (members or None for all, learning rate, weight decay) of each group of equal settings
    """

    gamma: Tensor
    alpha: Tensor
    tau: Tensor
    averaging: Tensor
    descents: tuple[tuple[tuple[int, ...] | None, float, float], ...]


class Weights:
    """Everything that an update changes: the networks of P agents, Adam's moments and the count of updates.

    Attributes
    ----------
    online, target, average : (P, size): learnt; followed slowly for the targets; acting
    mean, square : (P, size), Adam's moments
    step : 0-d, updates done
    """

    def __init__(self, layout: Layout, initial: Tensor) -> None:
        p, device, dtype = len(initial), initial.device, initial.dtype
        self.layout = layout
        # One tensor, so that one product a layer serves both networks of all agents.
        self._both = torch.cat((initial, initial))
        self.online, self.target = self._both[:p], self._both[p:]
        self.average = initial.clone()
        self.mean, self.square, self.gradient = (torch.zeros_like(initial) for _ in range(3))
        self.step = torch.zeros((), device=device, dtype=torch.float32 if dtype != torch.float64 else dtype)
        self.both_layers, self.gradients = layout.layers(self._both), layout.layers(self.gradient)

    def vectors(self) -> dict[str, Tensor]:
        """Return what a saved training needs to go on, by name; copying into these tensors restores it."""
        names = ("online", "target", "average", "mean", "square", "step")
        return {name: getattr(self, name) for name in names}


def forward(layers: Sequence[Layer], features: Tensor) -> list[Tensor]:
    """Return the inputs of all layers and the output: (n, B, D) -> [(n, width, B), ...]."""
    seen = [features.mT]
    for i, (weight, bias) in enumerate(layers):
        seen.append(torch.baddbmm(bias, weight, seen[-1]))
        if i + 1 < len(layers):
            seen[-1].relu_()
    return seen


def soft_value(values: Tensor, decay: Tensor, alpha: Tensor) -> Tensor:
    """Return alpha log sum_a exp((W(a) - c |a - p|) / alpha) for each position p, (P, G, B), float64.

    The policy step of SAC solved exactly on the grid (Haarnoja et al. 2018, arXiv:1812.05905, eq. 10; the
    discrete form is Christodoulou 2019, arXiv:1910.07207). Weights below the row's maximum reach e^-200, so the sum
    runs in float64. Where nothing can fill (decay 0) it is W(p).

    Parameters
    ----------
    values : (P, G, B), W at each position
    decay : (P, B), exp(-c dx / alpha) with dx the distance of two positions, float64
    alpha : (P, 1, 1), float64
    """
    highest = values.amax(1, keepdim=True)
    weight = (values.double() - highest).div_(alpha).exp_()
    both = torch.stack((weight, weight.flip(1)))  # (2, P, G, B): from below, from above
    rows = both.unbind(2)
    for before, row in zip(rows[:-1], rows[1:], strict=True):
        row.addcmul_(before, decay)
    total = both[1].flip(1).add_(both[0]).sub_(weight)  # the position itself is in both passes
    soft = total.log_().mul_(alpha).add_(highest)
    # The sum is at least its own term. Said again here, because that term may underflow to 0.
    return torch.maximum(soft, values)


@torch.inference_mode()
def update(weights: Weights, batch: Batch, terms: Terms) -> Tensor:
    """Do one update of P agents in place and return the errors W - target, (P, G, B).

    target_t(a) = reward_t(a) + gamma soft_value(W_target(x_{t + stride}))(a), and the loss of each agent is
    mean over batch and positions of (W(x_t, a) - target_t(a))^2.
    """
    p = len(weights.online)
    *seen, both_values = forward(weights.both_layers, batch.features)
    soft = soft_value(both_values[p:], batch.decay, terms.alpha)
    target = torch.addcmul(batch.reward, terms.gamma, soft.to(both_values.dtype))
    error = both_values[:p] - target
    _backward(weights, [layer[:p] for layer in seen], error * (2.0 / error[0].numel()))
    _descend(weights, terms)
    weights.target.lerp_(weights.online, terms.tau)
    # Early networks are bad, so the average forgets them: the newest counts 10 / (10 + updates) at least.
    share = _AVERAGE_START / (_AVERAGE_START - 1.0 + weights.step)
    weights.average.lerp_(weights.online, torch.maximum(terms.averaging, share))
    return error


def _backward(weights: Weights, seen: list[Tensor], gradient: Tensor) -> None:
    """Write the loss's gradient for every weight, given that for the output, (P, G, B)."""
    p = len(gradient)
    for i in range(len(seen) - 1, -1, -1):
        own = weights.gradients[i]
        torch.sum(gradient, -1, keepdim=True, out=own.bias)
        torch.bmm(gradient, seen[i].mT, out=own.weight)
        if i:
            gradient = torch.bmm(weights.both_layers[i].weight[:p].mT, gradient)
            gradient = _relu_backward(gradient, seen[i], 0)


def _descend(weights: Weights, terms: Terms) -> None:
    """Do one step of AdamW: one fused operation for each group of equal learning rate and decay."""
    weights.step += 1
    vectors = (weights.online, weights.gradient, weights.mean, weights.square)
    for members, learning_rate, weight_decay in terms.descents:
        parts = [[v] if members is None else [v[m] for m in members] for v in vectors]
        torch._fused_adamw_(
            *parts, [], [weights.step] * len(parts[0]), lr=learning_rate, beta1=BETA1, beta2=BETA2,
            weight_decay=weight_decay, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip
