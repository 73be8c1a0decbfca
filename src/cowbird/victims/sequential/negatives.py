"""Losses of negatives: the sampled loss of SASRec's paper, and negatives that an attack plants.

APRec (SIGIR 2023, section 3.3) samples one negative a position and sometimes makes it a target item. With a softmax
over the whole catalogue every item is a negative everywhere, so a planted negative is one more term: BPR's
-log σ(score of the label - score of the negative) (Rendle et al. 2009), which like the softmax depends on differences
of scores alone, and which fades once the negative is well below. With the sampled loss a planted negative takes the
place of a sampled one.

Departures from APRec: its released code trains BPR on the sampled negatives; here the sampled loss is SASRec's binary
cross-entropy.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def push_away_loss(hidden: Tensor, items: Tensor, label: Tensor, negative: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of -log σ(label's score - negative's score).

    Args:
        hidden: Predictions, shape `[targets, width]`.
        items: Item embeddings, shape `[items, width]`, same dtype as `hidden`.
        label: Right item of each target, shape `[targets]`, int64.
        negative: Item to push away, shape `[targets]`, int64; any item where `weight` is 0.
        weight: Weight of each target, shape `[targets]`, float32.

    Returns:
        A float32 scalar. Gradients flow into `hidden` and `items`.
    """
    apart = F.embedding(label, items) - F.embedding(negative, items)
    margin = (hidden * apart).sum(dim=-1).float()
    return torch.sum(F.softplus(-margin) * weight)


def sampled_loss(hidden: Tensor, items: Tensor, label: Tensor, negative: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy of labels against sampled negatives (Kang and McAuley 2018, equation 6).

    Departure: a negative may be an item that the user knows.

    Args:
        hidden: Predictions, shape `[targets, width]`.
        items: Item embeddings, shape `[items, width]`, same dtype as `hidden`.
        label: Right item of each target, shape `[targets]`, int64.
        negative: Items drawn for each target, shape `[targets, negatives]`, int64.
        weight: Weight of each target, shape `[targets]`, float32.

    Returns:
        A float32 scalar. Gradients flow into `hidden` and `items`.
    """
    candidates = F.embedding(torch.cat([label[:, None], negative], dim=1), items)
    scores = torch.einsum("tw,tcw->tc", hidden, candidates).float()
    loss = F.softplus(-scores[:, 0]) + F.softplus(scores[:, 1:]).sum(dim=1)
    return torch.sum(loss * weight)
