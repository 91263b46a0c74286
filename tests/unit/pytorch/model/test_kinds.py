"""Kinds, shapes and fans of the parameters of real models and of single layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks.char_gpt import CharGPT, CharGPTConfig
from benchmarks.image_models import ConvNet, ResMLP
from benchmarks.transfer.lora import with_adapters
from fslr.advisor.v1 import layout_pb2
from fslr.torch.model.kinds import describe
from fslr.training.parameter_words import Description
from tests.models import Tied


def described(model: nn.Module) -> dict[str, Description]:
    """Return what is known of each parameter by its name."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, describe(model, parameters), strict=True))


def kinds(model: nn.Module) -> dict[str, str]:
    """Return the kinds of all parameters but vectors, by their names with * for numbers."""
    found: dict[str, set[str]] = {}
    for name, description in described(model).items():
        kind = layout_pb2.GroupKind.Name(description.kind).removeprefix("GROUP_KIND_").lower()
        if kind != "vector":
            role = re.sub(r"(?<=\.)\d+(?=\.)", "*", name).removesuffix(".weight")
            found.setdefault(role, set()).add(kind)
    assert all(len(of_role) == 1 for of_role in found.values()), "blocks of one role differ"
    return {role: of_role.pop() for role, of_role in found.items()}


def fans(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: (d.fan_in, d.fan_out) for name, d in described(model).items()}


def char_gpt() -> CharGPT:
    return CharGPT(CharGPTConfig(vocabulary=20, width=32, blocks=2))


def test_a_language_model_has_embeddings_hidden_matrices_and_a_readout() -> None:
    assert kinds(char_gpt()) == {
        "characters": "embedding",
        "positions": "embedding",
        "blocks.*.attention.qkv": "hidden",
        "blocks.*.attention.out": "hidden",
        "blocks.*.up": "hidden",
        "blocks.*.down": "hidden",
        "head": "readout",
    }


def test_adapters_have_an_a_and_a_b() -> None:
    found = kinds(with_adapters(char_gpt(), 4))
    assert found["blocks.*.up.a"] == found["blocks.*.attention.qkv.a"] == "adapter_a"
    assert found["blocks.*.up.b"] == found["blocks.*.attention.qkv.b"] == "adapter_b"
    assert found["blocks.*.up.frozen"] == "hidden"
    assert found["head"] == "readout"


def test_an_image_model_has_an_input_matrix() -> None:
    assert kinds(ResMLP(pixels=16, width=8, blocks=2, classes=3)) == {
        "embed": "input",
        "blocks.*.*": "hidden",
        "head": "readout",
    }
    convolutional = kinds(ConvNet())
    assert convolutional.pop("stem") == "input"
    assert convolutional.pop("head") == "readout"
    assert set(convolutional.values()) == {"convolution"}


def test_the_first_and_last_layer_of_a_sequence_are_input_and_readout() -> None:
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    assert kinds(nn.Sequential(*layers)) == {"0": "input", "2": "hidden", "4": "readout"}
    assert kinds(nn.Sequential(nn.Linear(4, 3))) == {"0": "readout"}


def test_a_tied_table_is_an_embedding_whichever_module_comes_first() -> None:
    model = Tied()
    assert described(model)["embed.weight"] == Description(
        (11, 6), 11, 6, layout_pb2.GROUP_KIND_EMBEDDING
    )

    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 11, bias=False)
            self.embed = nn.Embedding(11, 6)
            self.embed.weight = self.head.weight
            self.project = nn.Linear(6, 6)

    assert kinds(HeadFirst()) == {"head": "embedding", "project": "hidden"}
    assert fans(HeadFirst())["head.weight"] == (11, 6)


class Raw(nn.Module):
    """Parameters that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 9, 4))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.mix = nn.Parameter(torch.zeros(6, 4))
        self.scale = nn.Parameter(torch.zeros(()))
        self.heads = nn.Parameter(torch.zeros(2, 3, 4))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.many = nn.Parameter(torch.zeros((2,) * 9))
        self.proposals = nn.Parameter(torch.zeros(6, 4))  # contains pos, but not as a word


def test_raw_parameters_are_matrices_tables_or_vectors() -> None:
    hidden, table = layout_pb2.GROUP_KIND_HIDDEN, layout_pb2.GROUP_KIND_EMBEDDING
    vector = layout_pb2.GROUP_KIND_VECTOR
    assert described(Raw()) == {
        "pos_embed": Description((1, 9, 4), 9, 4, table),
        "cls_token": Description((1, 1, 4), 1, 4, vector),
        "mix": Description((6, 4), 4, 6, layout_pb2.GROUP_KIND_INPUT),
        "scale": Description((), 1, 1, vector),
        "heads": Description((2, 3, 4), 0, 0, hidden),
        "empty": Description(),
        "many": Description(),
        "proposals": Description((6, 4), 4, 6, hidden),
    }


class Experts(nn.Module):
    """The up projections of two experts in one tensor, as in Transformers."""

    def __init__(self, *, is_transposed: bool | None) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(2, 4, 6))
        self.up_bias = nn.Parameter(torch.zeros(2, 6))
        if is_transposed is not None:
            self.is_transposed = is_transposed


@pytest.mark.parametrize(
    ("is_transposed", "expected"), [(None, (4, 6)), (True, (4, 6)), (False, (6, 4))]
)
def test_stacked_experts_have_the_fans_of_one_expert(
    is_transposed: bool | None, expected: tuple[int, int]
) -> None:
    model = nn.ModuleDict({"experts": Experts(is_transposed=is_transposed)})
    assert kinds(model) == {"experts.up": "expert"}
    assert fans(model) == {"experts.up": expected, "experts.up_bias": (1, 6)}
    assert kinds(Experts(is_transposed=None)) == {"up": "expert"}  # known by its class


def test_a_gate_is_a_router_only_beside_experts() -> None:
    def block(name: str) -> nn.Module:
        return nn.ModuleDict({
            "first": nn.Linear(4, 4),
            "gate": nn.Linear(4, 3),
            name: nn.ModuleList(nn.Linear(4, 4) for _ in range(2)),
            "shared_expert": nn.Linear(4, 4),
            "last": nn.Linear(4, 4),
        })

    assert kinds(block("experts")) == {
        "first": "input",
        "gate": "router",
        "experts.*": "expert",
        "shared_expert": "hidden",
        "last": "readout",
    }
    assert kinds(block("layers"))["gate"] == "hidden"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(4, 6), {"weight": (4, 6), "bias": (1, 6)}),
        (nn.Linear(1, 6, bias=False), {"weight": (1, 6)}),
        (nn.Bilinear(4, 5, 6, bias=False), {"weight": (20, 6)}),
        (nn.Embedding(9, 4), {"weight": (9, 4)}),
        (nn.EmbeddingBag(9, 4), {"weight": (9, 4)}),
        (nn.Conv1d(4, 6, 3, bias=False), {"weight": (12, 18)}),
        (nn.Conv2d(4, 6, 3, groups=2, stride=2, bias=False), {"weight": (18, 27)}),
        (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), {"weight": (18, 27)}),
        (nn.ConvTranspose1d(4, 6, 3, bias=False), {"weight": (12, 18)}),
        (nn.LayerNorm((3, 4)), {"weight": (1, 12), "bias": (1, 4)}),
        (
            nn.GRU(4, 5, bias=False, bidirectional=True),
            {
                "weight_ih_l0": (4, 15),
                "weight_hh_l0": (5, 15),
                "weight_ih_l0_reverse": (4, 15),
                "weight_hh_l0_reverse": (5, 15),
            },
        ),
        (
            nn.LSTM(4, 5, bias=False, proj_size=2),
            {"weight_ih_l0": (4, 20), "weight_hh_l0": (2, 20), "weight_hr_l0": (5, 2)},
        ),
        (
            nn.MultiheadAttention(4, 2, bias=False, add_bias_kv=True),
            {
                "in_proj_weight": (4, 12),
                "bias_k": (1, 4),
                "bias_v": (1, 4),
                "out_proj.weight": (4, 4),
            },
        ),
        (
            parametrizations.weight_norm(nn.Linear(4, 6, bias=False)),
            {
                "parametrizations.weight.original0": (1, 6),
                "parametrizations.weight.original1": (4, 6),
            },
        ),
        (
            parametrizations.spectral_norm(nn.Conv1d(4, 6, 3, bias=False)),
            {"parametrizations.weight.original": (12, 18)},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_fans_count_the_inputs_and_outputs_of_a_layer(
    layer: nn.Module, expected: Mapping[str, tuple[int, int]]
) -> None:
    assert fans(layer) == expected


def test_the_fans_of_a_linear_layer_match_a_count_on_its_graph() -> None:
    """The fan-in of an output is the number of inputs with a gradient; the other way round too."""
    for layer, inputs in (
        (nn.Linear(4, 6), torch.randn(1, 4)),
        (nn.Conv2d(4, 6, 3, groups=2), torch.randn(1, 4, 7, 7)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), torch.randn(1, 4, 7, 7)),
    ):
        inputs.requires_grad_()
        outputs: Tensor = layer(inputs)
        middle = tuple(size // 2 for size in outputs.shape)
        (gradient,) = torch.autograd.grad(outputs[middle], inputs)
        fan_in, fan_out = fans(layer)["weight"]
        assert gradient.count_nonzero() == fan_in
        jacobian = torch.autograd.functional.jacobian(layer, inputs.detach())
        center = (..., 0, *(size // 2 for size in inputs.shape[1:]))
        assert jacobian[center].count_nonzero() == fan_out


class _Compiled(nn.Module):
    """Holds a module as ``torch.compile`` does; compiling takes seconds to import."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def test_compiled_parts_do_not_change_kinds() -> None:
    model = char_gpt()
    expected = describe(model, list(model.parameters()))
    model.head = _Compiled(model.head)  # type: ignore[assignment]
    model.blocks[0] = _Compiled(model.blocks[0])
    assert describe(model, list(model.parameters())) == expected


def test_a_model_whose_code_fails_is_described() -> None:
    class Failing(Tied):
        def get_output_embeddings(self) -> nn.Module:
            raise NotImplementedError

    assert kinds(Failing()) == {"embed": "embedding"}


HuggingFace = tuple[str, str, dict[str, Any], dict[str, str]]
_WIDTHS = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
_DECODER = {**_WIDTHS, "num_hidden_layers": 2, "num_key_value_heads": 2, "vocab_size": 64}
_QUERY_KEY_VALUE = ("query", "key", "value")
_ATTENTION = dict.fromkeys(
    [f"model.layers.*.self_attn.{part}_proj" for part in ("q", "k", "v", "o")], "hidden"
)
MODELS: list[HuggingFace] = [
    (
        "GPT2",
        "LMHeadModel",
        {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 64},
        {
            "transformer.wte": "embedding",
            "transformer.wpe": "embedding",
            "transformer.h.*.attn.c_attn": "hidden",
            "transformer.h.*.attn.c_proj": "hidden",
            "transformer.h.*.mlp.c_fc": "hidden",
            "transformer.h.*.mlp.c_proj": "hidden",
        },
    ),
    (
        "Llama",
        "ForCausalLM",
        _DECODER,
        {
            "model.embed_tokens": "embedding",
            **_ATTENTION,
            "model.layers.*.mlp.gate_proj": "hidden",
            "model.layers.*.mlp.up_proj": "hidden",
            "model.layers.*.mlp.down_proj": "hidden",
            "lm_head": "readout",
        },
    ),
    (
        "Mixtral",
        "ForCausalLM",
        {**_DECODER, "num_local_experts": 4},
        {
            "model.embed_tokens": "embedding",
            **_ATTENTION,
            "model.layers.*.mlp.gate": "router",
            "model.layers.*.mlp.experts.gate_up_proj": "expert",
            "model.layers.*.mlp.experts.down_proj": "expert",
            "lm_head": "readout",
        },
    ),
    (
        "ViT",
        "ForImageClassification",
        {**_WIDTHS, "num_hidden_layers": 2},
        {
            "vit.embeddings.position_embeddings": "embedding",
            "vit.embeddings.patch_embeddings.projection": "input",
            **dict.fromkeys([f"vit.layers.*.attention.{p}_proj" for p in "qkvo"], "hidden"),
            "vit.layers.*.mlp.fc1": "hidden",
            "vit.layers.*.mlp.fc2": "hidden",
            "classifier": "readout",
        },
    ),
    (
        "ResNet",
        "ForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]},
        {
            "resnet.embedder.embedder.convolution": "input",
            "resnet.encoder.stages.*.layers.*.shortcut.convolution": "convolution",
            "resnet.encoder.stages.*.layers.*.layer.*.convolution": "convolution",
            "classifier.*": "readout",
        },
    ),
    (
        "Bert",
        "ForMaskedLM",
        {**_WIDTHS, "num_hidden_layers": 2, "vocab_size": 64},
        {
            "bert.embeddings.word_embeddings": "embedding",
            "bert.embeddings.position_embeddings": "embedding",
            "bert.embeddings.token_type_embeddings": "embedding",
            **dict.fromkeys(
                [
                    *(f"bert.encoder.layer.*.attention.self.{p}" for p in _QUERY_KEY_VALUE),
                    "bert.encoder.layer.*.attention.output.dense",
                    "bert.encoder.layer.*.intermediate.dense",
                    "bert.encoder.layer.*.output.dense",
                    "cls.predictions.transform.dense",
                ],
                "hidden",
            ),
        },
    ),
]


def hugging_face(name: str, suffix: str, options: Mapping[str, Any]) -> nn.Module:
    hf = pytest.importorskip("transformers", reason="the models are those of Transformers")
    config = getattr(hf, f"{name}Config")(**options)
    with torch.device("meta"):
        model: nn.Module = getattr(hf, f"{name}{suffix}")(config)
        return model


@pytest.mark.parametrize(
    ("name", "suffix", "options", "expected"), MODELS, ids=[model[0] for model in MODELS]
)
def test_kinds_of_hugging_face_models(
    name: str, suffix: str, options: Mapping[str, Any], expected: Mapping[str, str]
) -> None:
    assert kinds(hugging_face(name, suffix, options)) == expected


def test_fans_of_hugging_face_s_own_layers() -> None:
    gpt = fans(hugging_face("GPT2", "LMHeadModel", MODELS[0][2]))
    assert gpt["transformer.h.1.attn.c_attn.weight"] == (32, 96)  # its Conv1D has (in, out)
    mixtral = fans(hugging_face("Mixtral", "ForCausalLM", {**_DECODER, "num_local_experts": 4}))
    assert mixtral["model.layers.0.mlp.experts.gate_up_proj"] == (32, 128)
    assert mixtral["model.layers.0.mlp.experts.down_proj"] == (64, 32)
    assert mixtral["model.layers.0.mlp.gate.weight"] == (32, 4)
    gpt_oss = fans(
        hugging_face("GptOss", "ForCausalLM", {**_DECODER, "num_local_experts": 4, "head_dim": 16})
    )
    assert gpt_oss["model.layers.0.mlp.experts.gate_up_proj"] == (32, 128)
    assert gpt_oss["model.layers.0.mlp.experts.gate_up_proj_bias"] == (1, 128)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses deprecated names of Transformers
def test_adapters_of_peft() -> None:
    peft = pytest.importorskip("peft", reason="the adapters are those of PEFT")
    options = MODELS[0][2]
    hf = pytest.importorskip("transformers", reason="the model is one of Transformers")
    model = hf.GPT2LMHeadModel(hf.GPT2Config(**options))
    config = peft.LoraConfig(r=4, target_modules=["c_attn", "wte"], fan_in_fan_out=True)
    adapted = peft.get_peft_model(model, config)
    found, counted = kinds(adapted), fans(adapted)
    prefix = "base_model.model.transformer"
    assert found[f"{prefix}.h.*.attn.c_attn.lora_A.default"] == "adapter_a"
    assert found[f"{prefix}.h.*.attn.c_attn.lora_B.default"] == "adapter_b"
    assert found[f"{prefix}.wte.lora_embedding_A.default"] == "adapter_a"
    assert found[f"{prefix}.wte.lora_embedding_B.default"] == "adapter_b"
    assert counted[f"{prefix}.h.0.attn.c_attn.lora_A.default.weight"] == (32, 4)
    assert counted[f"{prefix}.h.0.attn.c_attn.lora_B.default.weight"] == (4, 96)
    assert counted[f"{prefix}.wte.lora_embedding_A.default"] == (64, 4)


@pytest.mark.parametrize(
    ("a", "b"),
    [("lora_A", "lora_B"), ("lora_a", "lora_b"), ("lora_down", "lora_up")],
)
def test_adapters_are_known_by_the_names_of_other_libraries(a: str, b: str) -> None:
    layer = nn.Linear(4, 4)
    layer.add_module(a, nn.Linear(4, 2, bias=False))
    layer.add_module(b, nn.Linear(2, 4, bias=False))
    assert kinds(nn.ModuleDict({"q": layer})) == {
        "q": "readout",
        f"q.{a}": "adapter_a",
        f"q.{b}": "adapter_b",
    }
