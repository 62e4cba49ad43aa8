"""The fused cross entropy equals torch's, value and gradients."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from recbole_dpr.model import losses
from recbole_dpr.model.losses import catalogue_cross_entropy, score_cross_entropy


@pytest.mark.parametrize("rows", [7, 64, 4096])
def test_equals_torch(monkeypatch, rows):
    monkeypatch.setattr(losses, "ROWS", rows)
    torch.manual_seed(0)
    users = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    items = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(30, (50,))
    expected = cross_entropy(users @ items.T, targets)
    wanted = torch.autograd.grad(3 * expected, (users, items))
    loss = catalogue_cross_entropy(users, items, targets)
    found = torch.autograd.grad(3 * loss, (users, items))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rows", [7, 64])
def test_what_is_excluded_does_not_compete_but_the_target_does(monkeypatch, rows):
    monkeypatch.setattr(losses, "ROWS", rows)
    torch.manual_seed(0)
    users = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    items = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    targets, excluded = torch.randint(1, 30, (50,)), torch.randint(30, (50, 6))
    excluded[::5, 0] = targets[::5]  # taken before, and again
    scores = users @ items.T
    hidden = torch.zeros_like(scores, dtype=torch.bool).scatter(1, excluded, True)
    hidden[:, 0] = True  # padding
    hidden[torch.arange(50), targets] = False
    expected = cross_entropy(scores.masked_fill(hidden, -torch.inf), targets)
    wanted = torch.autograd.grad(expected, (users, items))
    for loss in (
        catalogue_cross_entropy(users, items, targets, excluded),
        score_cross_entropy(users @ items.T, targets, excluded),
    ):
        assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
        for found, gradient in zip(torch.autograd.grad(loss, (users, items)), wanted, strict=True):
            torch.testing.assert_close(found, gradient)


def test_frozen_items_take_no_gradient_and_change_none():
    torch.manual_seed(0)
    users, items = torch.randn(9, 4, requires_grad=True), torch.randn(5, 4)
    targets = torch.randint(5, (9,))
    wanted = torch.autograd.grad(cross_entropy(users @ items.T, targets), users)
    catalogue_cross_entropy(users, items, targets).backward()
    torch.testing.assert_close(users.grad, wanted[0])
    assert items.grad is None


def test_large_scores_do_not_overflow():
    users = torch.tensor([[1000.0, 0.0]])
    items = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert catalogue_cross_entropy(users, items, torch.tensor([0])).item() == 0.0
    assert catalogue_cross_entropy(users, items, torch.tensor([1])).item() == 2000.0


def test_no_target_is_a_loss_of_zero_with_gradients():
    users, items = torch.zeros(0, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    loss = catalogue_cross_entropy(users, items, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and not items.grad.any()


def test_halves_are_summed_in_full_precision():
    torch.manual_seed(0)
    users, items, targets = torch.randn(50, 8), torch.randn(3000, 8), torch.randint(3000, (50,))
    wanted = cross_entropy(users @ items.T, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = catalogue_cross_entropy(users, items, targets)
        of_halves = catalogue_cross_entropy(users.bfloat16(), items, targets)
    assert loss.dtype == of_halves.dtype == torch.float32
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(of_halves, wanted, atol=0.02, rtol=0)
