"""Compiled models are one graph, without breaks: each would cost a GPU its fused kernels."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_model_is_compiled_once_as_one_graph(job, accelerator, fresh_compiler):
    _, _, build, dataset = job
    graphs = CompileCounter()
    model = torch.compile(build().train(), backend=graphs)
    for step in range(3):
        loss, _ = model(dataset[step])
        loss.backward()
    assert graphs.frame_count == 1
