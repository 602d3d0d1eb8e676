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
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam; Kingma and Ba 2015, arXiv:1412.6980, with decoupled decay, Loshchilov and Hutter 2019."""

_BLOCK = 64
_relu_backward = torch.ops.aten.threshold_backward.grad_input


class Layout:
    """Where each layer's weights lie in a network's vector.

    A layer is one matrix, (out, in + 1), whose last column is the bias: its input ends with a row of ones.

    Attributes
    ----------
    widths : inputs, hidden layers, outputs
    size : length of the vector; a multiple of 64, so that every network starts on a cache line and vectorised
        loops treat a network of a population as they treat one alone
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = tuple(widths)
        self._shapes = [(out, fan_in + 1) for out, fan_in in pairwise(reversed(self.widths))][::-1]
        self.size = -(-sum(math.prod(shape) for shape in self._shapes) // _BLOCK) * _BLOCK

    def layers(self, flat: Tensor) -> list[Tensor]:
        """Return the layers, (n, out, in + 1) each, as views of n vectors, (n, size)."""
        layers, at = [], 0
        for shape in self._shapes:
            layers.append(flat[:, at : at + math.prod(shape)].view(len(flat), *shape))
            at += math.prod(shape)
        return layers

    def initial(self, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return one network's first weights, (size,): torch.nn.Linear's, but an output layer of zeros.

        With W = 0 everywhere the agent starts by holding what it holds.
        """
        generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(1, self.size)
        for layer in self.layers(flat)[:-1]:
            bound = 1.0 / math.sqrt(layer.shape[-1] - 1)
            layer.uniform_(-bound, bound, generator=generator)
        return flat[0].to(dtype)


class Batch(NamedTuple):
    """B drawn decisions of each of P agents.

    Attributes
    ----------
    features : (2 P, B, D + 1), of the decisions of all agents, then of their successors; the last column is ones
    reward : (P, G, B), all of the target that the network does not say: see `exact.reward_table`
    decay : (P, B), exp(-c dx / alpha) of the successor, float64: what is left of a weight one position further;
        0 where nothing can fill
    share : (P, 1), of the newest network in the average that acts
    """

    features: Tensor
    reward: Tensor
    decay: Tensor
    share: Tensor


class Terms(NamedTuple):
    """Settings of P agents, as tensors, so that a change retraces nothing.

    Attributes
    ----------
    gamma, alpha : (P, 1, 1)
    tau : (P, 1)
    descents : (members or None for all, learning rate, weight decay) of each group of equal settings
    """

    gamma: Tensor
    alpha: Tensor
    tau: Tensor
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
        p = len(initial)
        # One tensor, so that one product a layer serves both networks of all agents.
        both = torch.cat((initial, initial))
        self.online, self.target, self.average = both[:p], both[p:], initial.clone()
        self.mean, self.square, self.gradient = (torch.zeros_like(initial) for _ in range(3))
        self.step = torch.zeros((), device=initial.device)
        self.layers, self.gradients = layout.layers(both), layout.layers(self.gradient)
        # What the gradient goes back through: the online weights without their biases, transposed.
        self.backwards = [layer[:p, :, :-1].mT for layer in self.layers]

    def vectors(self) -> dict[str, Tensor]:
        """Return what a saved training needs to go on, by name; copying into these tensors restores it."""
        names = ("online", "target", "average", "mean", "square", "step")
        return {name: getattr(self, name) for name in names}


class Workspace:
    """Memory that every update writes anew, and the views of it that are used: making them costs more than filling.

    Attributes
    ----------
    seen : inputs of all layers but the first, (2 P, width + 1, B) each, the last row ones
    weight : (P, G, B), float64
    both : (2, P, G, B), float64: sums from below, sums from above
    pairs : views (2, P, B) of `both`, each a row of the first part beside its mirror image in the second
    """

    def __init__(self, widths: Sequence[int], agents: int, batch: int, like: Tensor) -> None:
        self.seen = [like.new_ones((2 * agents, width + 1, batch)) for width in widths[1:-1]]
        self.hidden = [seen[:, :-1] for seen in self.seen]
        positions = widths[-1]
        self.weight = torch.zeros((agents, positions, batch), device=like.device, dtype=torch.float64)
        self.both = torch.stack((self.weight, self.weight))
        size, row = positions * batch, batch
        self.pairs = [
            self.both.as_strided(
                (2, agents, batch), (agents * size + (positions - 1 - 2 * p) * row, size, 1), p * row
            )
            for p in range(positions)
        ]


def soft_value(values: Tensor, decay: Tensor, alpha: Tensor, space: Workspace) -> Tensor:
    """Return alpha log sum_a exp((W(a) - c |a - p|) / alpha) for each position p, (P, G, B).

    The policy step of SAC solved exactly on the grid (Haarnoja et al. 2018, arXiv:1812.05905, eq. 10; the
    discrete form is Christodoulou 2019, arXiv:1910.07207). Weights below the row's maximum reach e^-200, so the sum
    runs in float64. Where nothing can fill (decay 0) it is W(p).

    Parameters
    ----------
    values : (P, G, B), W at each position
    decay : (P, B), exp(-c dx / alpha) with dx the distance of two positions, float64
    alpha : (P, 1, 1)
    """
    highest = values.amax(1, keepdim=True)
    weight = space.weight.copy_((values - highest).div_(alpha)).exp_()
    space.both.copy_(weight)
    for before, pair in pairwise(space.pairs):
        pair.addcmul_(before, decay)
    # The position itself is in both sums.
    total = weight.neg_().add_(space.both[0]).add_(space.both[1])
    soft = total.log_().to(values.dtype).mul_(alpha).add_(highest)
    # The sum is at least its own term. Said again here, because that term may underflow to 0.
    return torch.maximum(soft, values, out=soft)


@torch.inference_mode()
def update(weights: Weights, batch: Batch, terms: Terms, space: Workspace) -> Tensor:
    """Do one update of P agents in place and return the errors W - target, (P, G, B).

    target_t(a) = reward_t(a) + gamma soft_value(W_target(x_{t + stride}))(a), and the loss of each agent is
    mean over batch and positions of (W(x_t, a) - target_t(a))^2.
    """
    p = len(weights.online)
    seen = batch.features.mT
    for layer, hidden, following in zip(weights.layers, space.hidden, space.seen, strict=False):
        torch.bmm(layer, seen, out=hidden).relu_()
        seen = following
    values = torch.bmm(weights.layers[-1], seen)
    target = soft_value(values[p:], batch.decay, terms.alpha, space).mul_(terms.gamma).add_(batch.reward)
    error = values[:p] - target
    _backward(weights, batch.features[:p], space, error * (2.0 / error[0].numel()))
    _descend(weights, terms)
    weights.target.lerp_(weights.online, terms.tau)
    weights.average.lerp_(weights.online, batch.share)
    return error


def values_of(layout: Layout, flat: Tensor, features: Tensor) -> Tensor:
    """Return W of one network, (n, G), for features (n, D)."""
    x = features.mT
    for i, layer in enumerate(layout.layers(flat.unsqueeze(0))):
        x = torch.addmm(layer[0, :, -1:], layer[0, :, :-1], x.relu() if i else x)
    return x.mT


def _backward(weights: Weights, features: Tensor, space: Workspace, gradient: Tensor) -> None:
    """Write the loss's gradient for every weight, given that for the output, (P, G, B)."""
    p = len(gradient)
    for i in range(len(space.seen), 0, -1):
        torch.bmm(gradient, space.seen[i - 1][:p].mT, out=weights.gradients[i])
        gradient = torch.bmm(weights.backwards[i], gradient)
        gradient = _relu_backward(gradient, space.hidden[i - 1][:p], 0, grad_input=gradient)
    torch.bmm(gradient, features, out=weights.gradients[0])


def _descend(weights: Weights, terms: Terms) -> None:
    """Do one step of AdamW: one fused operation for each group of equal learning rate and decay."""
    weights.step += 1
    vectors = (weights.online, weights.gradient, weights.mean, weights.square)
    for members, learning_rate, weight_decay in terms.descents:
        own, gradient, mean, square = ([v] if members is None else [v[m] for m in members] for v in vectors)
        torch._fused_adamw_(
            own, gradient, mean, square, [], [weights.step] * len(own), lr=learning_rate, beta1=BETA1, beta2=BETA2,
            weight_decay=weight_decay, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip
