"""Two processes that share each batch compute the same as one process on the whole batch."""

import os
import socket

import pytest
import torch
from torch import distributed
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from genie.distributed.collectives import (
    BatchNorm,
    my_share,
    num_ranks,
    rows_of_all_ranks,
    share_of_ranks,
    sum_over_ranks,
)
from genie.models.pixel_lam import build_pixel_lam
from genie.training.step import make_optimizers

pytestmark = pytest.mark.slow

NUM_RANKS = 2


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_in(num_ranks: int, function, *arguments) -> None:
    """Calls `function(*arguments)` in `num_ranks` connected processes."""
    if num_ranks == 1:
        function(*arguments)
    else:
        spawn(as_rank, (num_ranks, free_port(), function, arguments), nprocs=num_ranks)


def as_rank(rank: int, num_ranks: int, port: int, function, arguments: tuple) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
    }
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=num_ranks)
    function(*arguments)
    distributed.destroy_process_group()


def normalise(path: str) -> None:
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    target = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    norm, mine = BatchNorm(3, affine=False), my_share(rows).clone().requires_grad_()
    out = norm(mine)
    (out * my_share(target)).sum().backward()
    if num_ranks() == 1 or distributed.get_rank() == 0:
        torch.save([out[:4].detach(), mine.grad[:4], norm.state_dict()], path)


def test_batch_norm_is_over_the_batch_of_all_ranks(tmp_path):
    results = []
    for count in (1, NUM_RANKS):
        run_in(count, normalise, tmp_path / str(count))
        results.append(torch.load(tmp_path / str(count)))
    torch.testing.assert_close(*results)


def draw_and_count(path: str) -> None:
    whole = torch.arange(12.0).reshape(6, 2)
    mine = my_share(whole)
    count = torch.tensor(float(len(mine) + (distributed.get_rank() if num_ranks() > 1 else 0)))
    share = share_of_ranks(count)
    total = mine.sum(0)
    sum_over_ranks(total)
    rows = rows_of_all_ranks(mine, torch.tensor([5, 0, 3]))
    if num_ranks() == 1 or distributed.get_rank() == 0:
        torch.save([rows, total, share], path)


def test_rows_sums_and_shares(tmp_path):
    for count, share in ((1, 1.0), (NUM_RANKS, 2 * 3 / 7)):
        run_in(count, draw_and_count, tmp_path / "drawn")
        rows, total, found = torch.load(tmp_path / "drawn")
        assert rows.tolist() == [[10, 11], [0, 1], [6, 7]]
        assert total.tolist() == [30, 36]
        assert found.item() == pytest.approx(share)


def train_lam(path: str, params) -> None:
    """Trains a few steps on noise, for which no two codes are equally near."""
    model = build_pixel_lam(params)
    optimizers = make_optimizers(model, params)
    model.train()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if num_ranks() > 1 else model
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        coarse = torch.randint(256, (8, params.window, 16, 16, 3), generator=generator, dtype=torch.uint8)
        frames = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
        loss, _ = wrapped(my_share(frames))
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        wrapped.zero_grad()
    if num_ranks() == 1 or distributed.get_rank() == 0:
        torch.save(model.state_dict(), path)


def test_two_ranks_move_weights_and_codebook_as_one_does(tmp_path, tiny_params):
    params = tiny_params.lam.model_copy(update={"kind": "pixels"}).of_kind()
    for count in (1, NUM_RANKS):
        run_in(count, train_lam, tmp_path / str(count), params)
    alone, shared = (torch.load(tmp_path / str(count)) for count in (1, NUM_RANKS))
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
