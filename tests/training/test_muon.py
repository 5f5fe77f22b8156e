import pytest
import torch
from torch import nn

from genie.training.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(16, 16), (16, 144), (144, 16), (1, 5)])
def test_singular_values_become_about_one_and_directions_stay(shape, dtype):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(matrix[None].to(dtype))[0].float()
    singular = torch.linalg.svdvals(made)
    assert singular.min() > 0.3
    assert singular.max() < 1.3
    # Slow reference: the nearest orthogonal matrix.
    alignment = (made * (u @ v)).sum() / (made.norm() * (u @ v).norm())
    assert alignment > 0.97


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (16, 32)])
@pytest.mark.parametrize("rank", [3, 16], ids=["few directions", "all directions"])
def test_products_of_the_short_side_do_what_those_of_the_whole_matrix_do(shape, rank):
    """Compares with a slow reference: the polynomial of the matrix itself, in double precision."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape[0], rank, generator=generator) @ torch.randn(rank, shape[1], generator=generator)
    matrix += 1e-3 * torch.randn(shape, generator=generator)
    a, b, c = COEFFICIENTS
    x = matrix.double() / matrix.double().norm()
    for _ in range(ITERATIONS):
        x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
    assert (orthogonal(matrix[None])[0].double() - x).norm() < 1e-3 * x.norm()


def test_a_step_has_adamws_size_whatever_the_gradients():
    for shape in [(32, 8, 3, 3), (24, 24)]:
        for size in (1e-6, 1e3):
            matrix = nn.Parameter(torch.zeros(shape))
            optimizer = Muon([matrix], lr=0.1, weight_decay=0.0)
            matrix.grad = size * torch.randn(shape, generator=torch.Generator().manual_seed(0))
            optimizer.step()
            assert matrix.detach().square().mean().sqrt() == pytest.approx(0.2 * 0.1, rel=0.3)


def test_kernels_in_any_memory_order_move_alike():
    kernel = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    moved = []
    for order in (torch.contiguous_format, torch.channels_last):
        matrix = nn.Parameter(kernel.clone(memory_format=order))
        matrix.grad = grad.clone(memory_format=order)
        Muon([matrix], lr=0.1, weight_decay=0.1).step()
        moved.append(matrix.detach())
    torch.testing.assert_close(*moved)


def test_matrices_of_one_shape_move_as_each_would_alone():
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(3, 16, 40, generator=generator) * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    together, alone = ([nn.Parameter(torch.zeros(16, 40)) for _ in grads] for _ in range(2))
    optimizers = [Muon(together, lr=0.1, weight_decay=0.0), *(Muon([one], lr=0.1, weight_decay=0.0) for one in alone)]
    for matrices in (together, alone):
        for matrix, grad in zip(matrices, grads, strict=True):
            matrix.grad = grad
    for optimizer in optimizers:
        optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_it_finds_a_solution_that_is_badly_scaled():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 16, generator=generator) * torch.logspace(-1.5, 0, 16)
    target = torch.randn(16, 16, generator=generator)
    weight = nn.Parameter(torch.zeros(16, 16))
    optimizer = Muon([weight], lr=0.05, weight_decay=0.0)
    first = None
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 200)
        loss = (inputs @ (weight - target)).square().mean()
        first = first or loss.item()
        weight.grad = None
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01 * first


def test_weights_without_a_gradient_stay():
    matrix = nn.Parameter(torch.ones(3, 3))
    Muon([matrix], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(matrix, torch.ones(3, 3))
