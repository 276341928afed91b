"""The recommender as a PyTorch user would write it, from torch's own parts and rotary-embedding-torch."""

# pyright: reportMissingImports=false
import itertools
from typing import Any

import numpy as np
import torch
from benchmarks.workload import ACTION_WIDTHS, ACTIONS, CONTEXT, FEATURES, TASKS, Setting
from rotary_embedding_torch import RotaryEmbedding
from torch import Tensor, nn
from torch.nn import functional

from siren_rope_jax.batch import Batch


def mlp(*sizes: int) -> nn.Sequential:
    """Stacks linear layers with SiLU between them."""
    layers = [part for n_in, n_out in itertools.pairwise(sizes) for part in (nn.Linear(n_in, n_out), nn.SiLU())]
    return nn.Sequential(*layers[:-1])


class Attention(nn.Module):
    """Strictly causal attention: causal attention of the later queries to the earlier keys."""

    def __init__(self, setting: Setting, rotary: RotaryEmbedding):
        super().__init__()
        self.heads, self.rotary = setting.heads, rotary
        self.query, self.key, self.value, self.output = (
            nn.Linear(setting.width, setting.width, bias=False) for _ in range(4)
        )
        self.no_history = nn.Parameter(torch.zeros(setting.width))

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        def by_head(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query = self.rotary.rotate_queries_or_keys(by_head(self.query(x)))
        key = self.rotary.rotate_queries_or_keys(by_head(self.key(x)))
        attended = functional.scaled_dot_product_attention(
            query[:, :, 1:], key[:, :, :-1], by_head(self.value(value))[:, :, :-1], is_causal=True
        )
        first = self.no_history.expand(len(x), 1, -1)
        return self.output(torch.cat([first, attended.transpose(1, 2).flatten(2)], dim=1))


class Block(nn.Module):
    """Pre-norm attention whose values carry the actions, then feed-forward."""

    def __init__(self, setting: Setting, rotary: RotaryEmbedding):
        super().__init__()
        self.attention = Attention(setting, rotary)
        self.feed_forward = mlp(setting.width, 4 * setting.width, setting.width)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(setting.width), nn.LayerNorm(setting.width)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), self.attention_norm(x + actions))
        return x + self.feed_forward(self.feed_forward_norm(x))


class TorchRecommender(nn.Module):
    """The layers of `GenerativeRecommender` with ordinal RoPE."""

    def __init__(self, setting: Setting):
        super().__init__()
        width = setting.width
        rotary = RotaryEmbedding(width // setting.heads)
        self.token, self.token_norm = nn.Linear(FEATURES, width), nn.LayerNorm(width)
        self.actions = mlp(ACTIONS, *ACTION_WIDTHS, width)
        self.blocks = nn.ModuleList(Block(setting, rotary) for _ in range(setting.layers))
        self.action_attention = Attention(setting, rotary)
        self.head = mlp(2 * width + CONTEXT, *setting.head_widths, TASKS)

    def forward(self, dense: Tensor, actions: Tensor, context: Tensor) -> Tensor:
        x = self.token_norm(functional.relu(self.token(dense)))
        actions = functional.relu(self.actions(actions))
        for block in self.blocks:
            x = block(x, actions)
        return self.head(torch.cat([x, self.action_attention(x, actions), context], dim=-1))


class TorchModel:
    """Training with Adam and inference on one batch; each training call goes one step further."""

    def __init__(self, setting: Setting, batch: Batch, *, compiled: bool = False):
        torch.manual_seed(0)
        model = TorchRecommender(setting)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        self.model: Any = torch.compile(model) if compiled else model
        self.inputs = [
            torch.from_numpy(np.asarray(x)) for x in (batch.events.dense, batch.events.actions, batch.events.context)
        ]
        labels = torch.from_numpy(np.array(batch.labels))
        self.labels, self.observed = torch.nan_to_num(labels), (~torch.isnan(labels)).float()

    def train(self) -> None:
        """Trains one step; padding counts nothing."""
        self.optimizer.zero_grad()
        logits = self.model(*self.inputs)
        losses = functional.binary_cross_entropy_with_logits(logits, self.labels, self.observed, reduction="sum")
        (losses / self.observed.sum()).backward()
        self.optimizer.step()

    def predict(self) -> Tensor:
        """Scores the batch."""
        with torch.inference_mode():
            return torch.sigmoid(self.model(*self.inputs))
