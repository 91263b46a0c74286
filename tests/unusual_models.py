"""Models whose batches are not one tensor with an example a row, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

Call = tuple[Any, ...] | dict[str, Any]


class Pooled(nn.Module):
    """Classifies graphs: nodes of all graphs in one tensor, one output for each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, edges: Tensor, graph: Tensor, graphs: int) -> Any:
        x = torch.relu(self.nodes(x))
        x = x + torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        return self.head(x.new_zeros(graphs, 16).index_add(0, graph, x))


def graphs() -> tuple[Any, ...]:
    graph = torch.arange(8).repeat_interleave(torch.tensor([5, 1, 7, 3, 4, 9, 6, 5]))
    edges = torch.stack([torch.arange(len(graph) - 1), torch.arange(1, len(graph))])
    return torch.randn(len(graph), 8), edges, graph, 8


class TimeFirst(nn.Module):
    """A transformer with the time first, on inputs and targets of unequal lengths."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
        encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.inner = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, custom_encoder=encoder)
        self.head = nn.Linear(8, 3)

    def forward(self, source: Tensor, target: Tensor, padding: Tensor | None = None) -> Any:
        x = self.inner(
            source, target, src_key_padding_mask=padding, memory_key_padding_mask=padding
        )
        return self.head(x)


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(50, 8, mode="sum")
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, offsets: Tensor, indices: Tensor) -> Any:
        return self.head(self.bag(indices, offsets))


def bags(count: int) -> tuple[Tensor, Tensor]:
    lengths = torch.randint(1, 5, (count,))
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
    return offsets, torch.randint(0, 50, (int(lengths.sum()),))


class Packed(nn.Module):
    """Runs over packed sequences; one output for each of their elements."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, sequences: PackedSequence) -> Any:
        return self.second(torch.tanh(self.first(sequences.data)))


class LastOfPacked(Packed):
    """One output for each packed sequence: the mean over its elements."""

    def forward(self, sequences: PackedSequence) -> Any:
        padded, lengths = nn.utils.rnn.pad_packed_sequence(sequences, batch_first=True)
        return self.second(torch.tanh(self.first(padded)).sum(1) / lengths[:, None])


class PackedRow(nn.Module):
    """Attention over sequences that are joined to one row, each token within its own sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(9, 8), nn.Linear(8, 24)
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 9)

    def forward(self, tokens: Tensor, sequences: Tensor) -> Tensor:
        query, key, value = self.mix(self.embed(tokens)).chunk(3, dim=-1)
        mask = sequences[:, :, None] == sequences[:, None, :]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, mask)
        out: Tensor = self.head(torch.tanh(self.inner(mixed)))
        return out


def packed_row() -> tuple[Any, ...]:
    return torch.randint(0, 9, (1, 20)), torch.tensor([[0] * 6 + [1] * 9 + [2] * 5])


def packed() -> tuple[Any, ...]:
    lengths = torch.tensor([6, 5, 3, 3, 2, 1])
    return (pack_padded_sequence(torch.randn(6, 6, 4), lengths, batch_first=True),)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.second(torch.tanh(self.first(x)))


class OfWords(Plain):
    """Makes its tensors itself, of words."""

    def forward(self, x: list[str]) -> Any:  # type: ignore[override]
        numbers = [[len(word), ord(word[0]) / 50, 1.0, 0.0] for word in x]
        return super().forward(torch.tensor(numbers, dtype=self.first.weight.dtype))


class OneNumber(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).sum(-1)


class OfWhole(Plain):
    """Returns one number for all examples, as a module does that returns its loss."""

    def forward(self, x: Tensor) -> Any:
        return nn.functional.mse_loss(super().forward(x), x[:, :3])


class Forces(nn.Module):
    """Computes a gradient in its forward pass, so it cannot run without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1, bias=False))

    def forward(self, positions: Tensor) -> Any:
        positions = positions.detach().requires_grad_()
        energy = self.energy(positions).sum()
        return -torch.autograd.grad(energy, positions, create_graph=True)[0]
