"""On a GPU: the update equals the processor's, the ring lives there, agents come and go, the graph is the update.

What decides which of them runs is tested without one, with a capture that records calls instead of kernels.
"""

import logging

import numpy as np
import pytest
import torch

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.networks import Networks
from sac_kernel.agent.replay import Batch, ReplayBuffer
from sac_kernel.agent.sac import SACAgent
from sac_kernel.agent.update import SACUpdate, Schedule
from tests.support import told

CPU = torch.device("cpu")


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip(f"no CUDA device here (torch {torch.__version__})")
    return torch.device("cuda")


def transitions(n=512, seed=0, state_dim=4):
    g = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, n, state_dim, generator=g)
    action, reward = 2 * torch.rand(n, 1, generator=g) - 1, torch.randn(n, generator=g)
    return Batch(obs, action, reward, (reward > 1.5).float(), next_obs)


def on(device, values):
    return type(values)(*(v.to(device) for v in values))


def learner_on(device, seed=0):
    torch.manual_seed(seed)
    nets = Networks(4, 1, (16, 16), 0.1).to(device)
    return nets, SACUpdate(nets, 1e-3)


def inputs(k, device, n=64):
    noise = torch.randn(2, n, 1, generator=torch.Generator().manual_seed(1000 + k)).to(device)
    values = (0.9, 0.005, -1.0 - 0.01 * k, 1.0, 0.1)
    return on(device, transitions(n, k)), noise, Schedule(*(torch.tensor(v, device=device) for v in values))


def small_agent(device, **fields):
    agent = SACAgent(SACConfig(state_dim=4, batch_size=64, buffer_capacity=512, **fields), device=str(device))
    agent.buffer.add(transitions())
    return agent


# -- with a GPU ----------------------------------------------------------------------------------


@pytest.mark.gpu
def test_updates_on_cuda_equal_those_on_the_processor(cuda):
    (ours, first), (theirs, second) = learner_on(CPU), learner_on(cuda)
    for k in range(5):
        a, b = first.update(*inputs(k, CPU)), second.update(*inputs(k, cuda))
        torch.testing.assert_close(a, b.cpu(), rtol=1e-3, atol=1e-4)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other.cpu(), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_the_ring_lives_on_cuda_and_gives_rows_that_were_stored(cuda):
    ring, rows = ReplayBuffer(512, 4, 1, cuda), transitions()
    ring.add(rows)
    batch = ring.sample(64, torch.Generator(cuda).manual_seed(0))
    assert {v.device.type for v in batch} == {"cuda"}
    stored = {tuple(row) for row in rows.obs.tolist()}
    assert all(tuple(row) in stored for row in batch.obs.tolist())
    again = ReplayBuffer(512, 4, 1, CPU)
    again.restore(ring.state())
    assert torch.equal(again.state()["rows"]["next_obs"], rows.next_obs)


@pytest.mark.gpu
def test_an_agent_trained_on_cuda_acts_alike_on_the_processor(cuda, tmp_path):
    agent = small_agent(cuda)
    for _ in range(20):
        agent.update()
    agent.save(tmp_path / "agent.pt")
    loaded = SACAgent.from_checkpoint(tmp_path / "agent.pt", device="cpu")
    states = transitions(32, 7).obs.numpy()
    there, here = (a.select_action(states, evaluate=True) for a in (agent, loaded))
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_an_agent_on_cuda_goes_on_bit_for_bit(cuda):
    first, second = small_agent(cuda), small_agent(cuda)
    for _ in range(10):
        first.update()
    second.restore(first.training_state())
    for agent in (first, second):
        for _ in range(10):
            agent.update()
    pairs = zip(first.nets.parameters(), second.nets.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# -- memory --------------------------------------------------------------------------------------


def short_of_memory(agent, monkeypatch, most):
    """Let the agent's update run out of memory above `most` transitions."""
    update = agent.learner.update

    def limited(batch, noise, schedule):
        if len(batch.reward) > most:
            raise torch.cuda.OutOfMemoryError
        return update(batch, noise, schedule)

    monkeypatch.setattr(agent.learner, "update", limited)


def test_out_of_memory_halves_the_batch_goes_on_and_says_so(monkeypatch, caplog):
    agent = small_agent("cpu")
    short_of_memory(agent, monkeypatch, 20)
    with caplog.at_level(logging.WARNING, "sac_kernel.agent.sac"):
        agent.update()
        agent.update()
    assert (agent.updates, agent.batch_size) == (2, 16)
    assert ["32 transitions" in caplog.messages[0], "16 transitions" in caplog.messages[1]] == [True, True]
    assert len(caplog.records) == 2
    assert told(caplog.messages[1], "memory", "update 1")
    again = small_agent("cpu")
    again.restore(agent.training_state())
    assert again.batch_size == 16


def test_memory_too_short_for_one_transition_is_an_error(monkeypatch):
    agent = small_agent("cpu")
    short_of_memory(agent, monkeypatch, 0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        agent.update()
