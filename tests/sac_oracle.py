"""The readable autograd form of one update: what `sac_update`'s written-out passes must equal."""

import torch

from sac_kernel.agent.update import BETA1, BETA2, EPSILON


def critic_loss(nets, batch, noise, schedule):
    """Return 1/2 sum_i mean (Q_i - y)^2 and the mean Q.

    y = r + gamma (1 - terminated) [min_i Qbar_i(s', a') - alpha log pi(a'|s')], a' fresh from the policy;
    Haarnoja et al. 2018, arXiv:1812.05905, eq. 5 and 6. A time limit is no termination: it bootstraps.
    """
    with torch.no_grad():
        next_action, next_log_prob = nets.actor.sample(batch.next_obs, noise)
        next_value = nets.target.minimum(batch.next_obs, next_action)
        soft_value = next_value - nets.log_alpha.exp() * next_log_prob
        reward = batch.reward * schedule.reward_scale
        td_target = reward + schedule.gamma * (1.0 - batch.terminated) * soft_value
    q1, q2 = nets.critic(batch.obs, batch.action)
    loss = 0.5 * ((q1 - td_target).square().mean() + (q2 - td_target).square().mean())
    return loss, q1.detach().mean()


def actor_loss(nets, obs, noise):
    """Return mean alpha log pi - min_i Q_i, the gradient flowing through Q, and mean log pi; eq. 7 and 9."""
    action, log_prob = nets.actor.sample(obs, noise)
    value = nets.critic.minimum(obs, action)
    return (nets.log_alpha.exp().detach() * log_prob - value).mean(), log_prob.detach().mean()


def alpha_loss(nets, mean_log_prob, schedule):
    """Return -log(alpha) (log pi + target entropy): alpha rises while entropy is below its target; eq. 18."""
    return -nets.log_alpha * (mean_log_prob + schedule.target_entropy)


class AutogradLearner:
    """torch's Adam for critics, actor and temperature, and the update that uses them."""

    def __init__(self, nets, learning_rate):
        self.nets = nets
        self.groups = {
            "critic": list(nets.critic.parameters()),
            "actor": list(nets.actor.parameters()),
            "alpha": [nets.log_alpha],
        }
        self.adam = {
            name: torch.optim.Adam(
                group, lr=torch.tensor(learning_rate), fused=True, betas=(BETA1, BETA2), eps=EPSILON
            )
            for name, group in self.groups.items()
        }

    def update(self, batch, noise, schedule):
        """Do one update of everything in place and return its metrics, shape (5,)."""
        nets = self.nets
        loss_q, q_mean = critic_loss(nets, batch, noise[0], schedule)
        self.descend("critic", loss_q)
        loss_pi, log_prob = actor_loss(nets, batch.obs, noise[1])
        self.descend("actor", loss_pi)
        self.descend("alpha", alpha_loss(nets, log_prob, schedule))
        with torch.no_grad():
            for slow, fast, weight in (
                (nets.target, nets.critic, schedule.tau),
                (nets.average, nets.actor, schedule.average_weight),
            ):
                for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                    old.lerp_(new, weight)
        alpha = nets.log_alpha.detach().exp()
        return torch.stack((loss_q.detach(), loss_pi.detach(), alpha, -log_prob, q_mean))

    def descend(self, name, loss):
        group = self.groups[name]
        for parameter, gradient in zip(group, torch.autograd.grad(loss, group), strict=True):
            parameter.grad = gradient
        self.adam[name].step()

    def moments(self, key):
        """Return one Adam moment ('exp_avg' or 'exp_avg_sq') by parameter."""
        return {p: s[key] for adam in self.adam.values() for p, s in adam.state.items()}
