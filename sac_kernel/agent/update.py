"""One gradient update of Soft Actor-Critic, its forward and backward passes written out.

The update is a function of (weights and moments, batch, noise, schedule tensors): no random draw, no host
read and no data-dependent shape inside, so the CPU and a GPU always run the same list of operations.
At these widths a processor spends most of an autograd update on starting operations. There are few here: the
twins are stacked, all weights of a stack are one vector for Adam and for averages, both policy passes are
one, and the actor's loss gives the critics no weight gradient. Tests check every formula against autograd.

Shapes: n stacked networks, B batch, S observation width, A action width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from sac_kernel.agent.networks import LOG_STD_MAX, LOG_STD_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sac_kernel.agent.networks import Networks
    from sac_kernel.agent.replay import Batch

UPDATE_METRICS = ("critic_loss", "actor_loss", "alpha", "entropy", "q_mean")
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam, Kingma and Ba 2015, arXiv:1412.6980."""

_HALF_RANGE = 0.5 * (LOG_STD_MAX - LOG_STD_MIN)
_LOG_DENSITY = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)
_relu_backward = torch.ops.aten.threshold_backward.grad_input


class Schedule(NamedTuple):
    """What may change during training, as 0-d tensors: a change retraces nothing."""

    gamma: Tensor
    tau: Tensor
    target_entropy: Tensor
    reward_scale: Tensor
    average_weight: Tensor


class _Layer(NamedTuple):
    """Views of one layer of n networks."""

    weight: Tensor  # (n, out, in)
    transposed: Tensor  # (n, in, out)
    bias: Tensor  # (n, 1, out)


class _Stack:
    """n ReLU networks of one shape whose parameters become views of one vector, `flat`; `extra` ends it."""

    def __init__(self, nets: Sequence[nn.Module], *extra: nn.Parameter) -> None:
        linear = [[m for m in net.modules() if isinstance(m, nn.Linear)] for net in nets]
        by_layer = list(zip(*linear, strict=True))  # per layer, that layer of every network
        self._shapes = [(len(nets), *layer[0].weight.shape) for layer in by_layer]
        self.size = sum(p.numel() for layer in by_layer for m in layer for p in m.parameters())
        like = by_layer[0][0].weight.detach()
        self.flat = like.new_empty(self.size + sum(p.numel() for p in extra))
        self.layers = self.views(self.flat)
        parts = [
            (parameter, view)
            for layer, stacked in zip(by_layer, self.layers, strict=True)
            for m, weight, bias in zip(layer, stacked.weight, stacked.bias, strict=True)
            for parameter, view in ((m.weight, weight), (m.bias, bias[0]))
        ]
        ends = self.flat[self.size :].split_with_sizes([p.numel() for p in extra])
        parts += [(p, end.view(p.shape)) for p, end in zip(extra, ends, strict=True)]
        for parameter, view in parts:
            view.copy_(parameter.detach())
            parameter.data = view

    def views(self, flat: Tensor) -> list[_Layer]:
        """Return the layers as views of a vector laid out as `flat`."""
        layers, weight_at = [], 0
        bias_at = sum(map(math.prod, self._shapes))  # biases last: weights then lie on whole cache lines
        for i, (n, out, width) in enumerate(self._shapes):
            weight = flat[weight_at : weight_at + n * out * width]
            # The first layer is kept transposed: its products with an odd number of inputs are twice as fast.
            stored = weight.view(n, out, width) if i else weight.view(n, width, out).mT
            layers.append(_Layer(stored, stored.mT, flat[bias_at : bias_at + n * out].view(n, 1, out)))
            weight_at, bias_at = weight_at + n * out * width, bias_at + n * out
        return layers

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the inputs of all layers and the output, (n, B, in) -> [(n, B, width), ...]."""
        inputs = [x]
        for _, transposed, bias in self.layers:
            inputs.append(torch.baddbmm(bias, inputs[-1], transposed))
            if len(inputs) <= len(self.layers):
                inputs[-1].relu_()
        return inputs


class _TrainedStack(_Stack):
    """A stack with its gradient and Adam's moments."""

    def __init__(self, nets: Sequence[nn.Module], *extra: nn.Parameter) -> None:
        super().__init__(nets, *extra)
        self.gradient, self.mean, self.square = (torch.zeros_like(self.flat) for _ in range(3))
        self.gradients = self.views(self.gradient)

    def backward(self, inputs: list[Tensor], gradient: Tensor) -> None:
        """Write the gradients of all layers, given that of the output, (n, B, out)."""
        for i in range(len(self.layers) - 1, -1, -1):
            own = self.gradients[i]
            torch.sum(gradient, 1, keepdim=True, out=own.bias)
            if i:
                torch.bmm(gradient.mT, inputs[i], out=own.weight)
                gradient = self._through(i, inputs, gradient)
            else:  # as it is stored
                torch.bmm(inputs[i].mT, gradient, out=own.transposed)

    def input_gradient(self, inputs: list[Tensor], gradient: Tensor, first: int) -> Tensor:
        """Return the gradient of the inputs from column `first` on, summed over the stack, (B, in - first)."""
        for i in range(len(self.layers) - 1, 0, -1):
            gradient = self._through(i, inputs, gradient)
        return torch.bmm(gradient, self.layers[0].weight[:, :, first:]).sum(0)

    def descend(self, step: Tensor, learning_rate: Tensor) -> None:
        """Do one step of Adam; the first `step` is 1."""
        torch._fused_adam_(
            [self.flat], [self.gradient], [self.mean], [self.square], [], [step],
            lr=learning_rate, beta1=BETA1, beta2=BETA2, weight_decay=0.0, eps=EPSILON,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def _through(self, i: int, inputs: list[Tensor], gradient: Tensor) -> Tensor:
        # With one output the product is an outer product; a broadcast is cheaper.
        weight = self.layers[i].weight
        gradient = gradient * weight if weight.shape[1] == 1 else torch.bmm(gradient, weight)
        return _relu_backward(gradient, inputs[i], 0, grad_input=gradient)


class _Sample(NamedTuple):
    """What the forward and backward passes of a sampled action share, (B, A) each."""

    action: Tensor  # tanh u, u = mean + spread
    spread: Tensor  # sigma x noise
    squashed: Tensor  # tanh of the raw output; log sigma is linear in it


def _sample(head: Tensor, noise: Tensor) -> tuple[_Sample, Tensor]:
    """Return actions and log pi, (B,), for the actor's output (B, 2A): `Actor.sample`."""
    mean, raw = head.chunk(2, dim=-1)
    squashed = raw.tanh()
    log_std = torch.add(squashed * _HALF_RANGE, LOG_STD_MIN + _HALF_RANGE)
    spread = log_std.exp() * noise
    pre_tanh = mean + spread
    # log N(u) - log(1 - tanh(u)^2), exact for any u: networks.squashed_log_prob.
    terms = F.softplus(-2.0 * pre_tanh).add_(pre_tanh).mul_(2.0).sub_(log_std)
    log_prob = terms.addcmul_(noise, noise, value=-0.5).sub_(_LOG_DENSITY).sum(-1)
    return _Sample(pre_tanh.tanh(), spread, squashed), log_prob


def _policy_gradient(sample: _Sample, alpha: Tensor, slope: Tensor) -> Tensor:
    """Return the gradient of sum alpha log pi - Q for the actor's output, (B, 2A), given dQ/da, `slope`.

    At fixed noise d log pi / du = 2 tanh u, and d log pi / d log sigma = -1 besides its effect through u.
    """
    action, spread, squashed = sample
    to_mean = (2.0 * alpha * action).sub_(slope.addcmul(slope * action, action, value=-1.0))
    to_raw = to_mean.mul(spread).sub_(alpha)
    to_raw.addcmul_(to_raw * squashed, squashed, value=-1.0).mul_(_HALF_RANGE)
    return torch.cat((to_mean, to_raw), dim=-1)


class SACUpdate:
    """The gradient update and all it changes: the networks' weights and Adam's moments.

    Parameters
    ----------
    nets : the networks; their parameters become views of this object's vectors, so both share every change
    learning_rate : of Adam, for actor, critics and temperature
    """

    def __init__(self, nets: Networks, learning_rate: float) -> None:
        self._critic = _TrainedStack([nets.critic.q1, nets.critic.q2])
        self._actor = _TrainedStack([nets.actor], nets.log_alpha)
        self._target = _Stack([nets.target.q1, nets.target.q2])
        self._average = _Stack([nets.average])
        self._log_alpha, self._alpha_gradient = nets.log_alpha.data, self._actor.gradient[-1]
        device = self._log_alpha.device
        self._step = torch.zeros((), device=device)
        self._learning_rate = torch.tensor(learning_rate, device=device)
        self._half = torch.tensor(0.5, device=device, dtype=self._log_alpha.dtype)

    @torch.inference_mode()  # 8 % faster than no_grad
    def update(self, batch: Batch, noise: Tensor, schedule: Schedule) -> Tensor:
        """Do one update of everything in place and return `UPDATE_METRICS`, shape (5,).

        The order is: critics on the old policy's target, actor on the new critics, temperature, then target
        critics and average actor. Haarnoja et al. 2018, arXiv:1812.05905, eq. 5 to 9 and 18.

        Parameters
        ----------
        batch : B transitions; a time limit bootstraps, because it is not a termination
        noise : standard normal draws, (2, B, A), for the next actions and the actions
        schedule : discount, Polyak weights, target entropy, reward factor
        """
        critic, actor = self._critic, self._actor
        size, state_dim = batch.obs.shape
        alpha = self._log_alpha.exp()

        # The policy at s' and s in one pass: its weights change only after both uses.
        states = torch.cat((batch.next_obs, batch.obs))
        *policy, head = actor.forward(states.unsqueeze(0))
        sample, log_prob = _sample(head[0], noise.flatten(0, 1))
        chosen = torch.cat((states, sample.action), dim=-1).expand(2, -1, -1)

        # Critics: 1/2 sum_i mean (Q_i - y)^2, y = r + gamma (1 - terminated) (min Qbar - alpha log pi).
        soft_value = self._target.forward(chosen[:, :size])[-1].squeeze(-1).amin(0)
        soft_value.sub_(alpha * log_prob[:size])
        discount = (1.0 - batch.terminated).mul_(schedule.gamma)
        target = torch.addcmul(batch.reward * schedule.reward_scale, discount, soft_value)
        taken = torch.cat((batch.obs, batch.action), dim=-1).expand(2, -1, -1)
        *inputs, value = critic.forward(taken)
        error = value - target.unsqueeze(-1)
        critic.backward([*inputs, value], error / size)
        self._step += 1  # if memory runs out, it does so above, before anything has changed
        critic.descend(self._step, self._learning_rate)

        # Actor: mean alpha log pi - min Q.
        *inputs, new_value = critic.forward(chosen[:, size:])
        value_gap = new_value.flip(0).sub_(new_value)
        smaller = torch.heaviside(value_gap, self._half)  # 1 for the minimum, 1/2 each where they are equal
        slope = critic.input_gradient([*inputs, new_value], smaller, state_dim)
        gradient = _policy_gradient(_Sample(*(part[size:] for part in sample)), alpha, slope)
        actor.backward([layer[:, size:] for layer in policy], gradient.div_(size).unsqueeze(0))

        # Temperature: -log(alpha) (log pi + target entropy); its Adam is the actor's.
        own_log_prob = log_prob[size:].mean()
        torch.add(own_log_prob, schedule.target_entropy, out=self._alpha_gradient).neg_()
        actor.descend(self._step, self._learning_rate)

        self._target.flat.lerp_(critic.flat, schedule.tau)
        self._average.flat.lerp_(actor.flat[:-1], schedule.average_weight)
        error = error.flatten()
        return torch.stack((
            torch.dot(error, error) * (0.5 / size),
            alpha * own_log_prob - new_value.amin(0).mean(),
            self._log_alpha.exp(),
            -own_log_prob,
            value[0].mean(),
        ))  # fmt: skip

    def vectors(self) -> list[Tensor]:
        """Return everything that an update changes."""
        stacks = (self._critic, self._actor, self._target, self._average)
        return [*(stack.flat for stack in stacks), *self.state().values()]

    def state(self) -> dict[str, Tensor]:
        """Return Adam's moments and step; the weights are the networks'."""
        return {
            "step": self._step,
            "critic_mean": self._critic.mean,
            "critic_square": self._critic.square,
            "actor_mean": self._actor.mean,
            "actor_square": self._actor.square,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        for name, value in self.state().items():
            value.copy_(state[name])
