"""SASRec's own parts."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from cowbird.victims.sequential.noise import Noise
from cowbird.victims.sequential.sasrec import SASRec, causal_attention


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (3, 2, 7, 8), (2, 4, 16, 4)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_attention_on_a_cpu_equals_torchs(shape, dtype, tolerance):
    rng = torch.Generator().manual_seed(5)
    ours = [torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    upstream = torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)
    found, wanted = causal_attention(*ours), F.scaled_dot_product_attention(*theirs, is_causal=True)
    assert found.shape == shape
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    for a, b in zip(
        torch.autograd.grad(found, ours, upstream), torch.autograd.grad(wanted, theirs, upstream), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_attention_of_views_as_the_block_makes_them():
    packed = torch.randn(3, 5, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    query, key, value = packed.permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(
        causal_attention(query, key, value), F.scaled_dot_product_attention(query, key, value, is_causal=True)
    )


def test_heads_divide_hidden():
    with pytest.raises(ValidationError, match="heads"):
        SASRec(hidden=10, heads=3)


def test_order_matters():
    """Without positions attention is a bag; the same events in another order must score differently."""
    network = SASRec(hidden=8, max_length=4).make_network(9)
    network.reset(torch.Generator().manual_seed(0))
    quiet = Noise(0.0, torch.device("cpu"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20 if parameter.dim() > 1 else 1)
        one, other = network(torch.tensor([[1, 2, 3], [2, 1, 3]]), quiet)
        assert not torch.allclose(one[-1], other[-1], atol=1e-2)
        network.position.weight.zero_()
        one, other = network(torch.tensor([[1, 2, 3], [2, 1, 3]]), quiet)
        assert not torch.allclose(one[-1], other[-1], atol=1e-4), "two causal layers tell the order even so"
