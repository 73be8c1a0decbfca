"""A Llama model that reads and does not learn, without the transformers library.

Importing transformers and building a model with it takes several seconds of a processor, longer than reading many
titles. A model of the plain Llama kind (SmolLM2 is one) is a few products and a softmax a layer, so it is run from here
where nothing is trained: the same operations in the same order as transformers', so the same numbers to the last bit
(`tests/victims/test_plain_llama.py`). A folder with anything else in its configuration is left to transformers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cowbird.files import read_plain_text
from cowbird.storage import read_tensors
from cowbird.victims.language.tokenizer_check import make_control_tokens_special

PLAIN_SETTINGS: Mapping[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "tie_word_embeddings": True,
}
"""What a configuration says of a model that is run here."""
IGNORED_SETTINGS = frozenset(
    {
        "_model_name_or_path", "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "initializer_range",
        "max_position_embeddings", "pad_token_id", "transformers_version", "unk_token_id", "use_cache",
    }
)  # fmt: skip
"""What it may say beside that and the sizes: nothing of it changes what reading gives."""
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
_PLAIN_TOKENIZER = "TokenizersBackend"
"""The class of a tokenizer that is its tokenizer.json and nothing more."""
_TOKENIZER_SETTINGS = frozenset(
    {
        "backend", "bos_token", "eos_token", "is_local", "local_files_only", "model_max_length", "pad_token",
        "tokenizer_class", "unk_token",
    }
)  # fmt: skip


class LlamaSizes(NamedTuple):
    """The sizes of a Llama model."""

    words: int
    """Tokens of the vocabulary."""
    hidden: int
    """Width of a token's state."""
    inner: int
    """Width of the feed-forward part."""
    layers: int
    """Layers."""
    heads: int
    """Heads that ask."""
    shared_heads: int
    """Heads that are asked."""
    width: int
    """Width of a head."""
    epsilon: float
    """Added to the mean square where states are normalized."""
    base: float
    """Base of the rotations."""


class Weight(nn.Module):
    """Numbers that a model has learned; torch's own modules would draw some first, and import a compiler to do so."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape), requires_grad=False)


class Projection(Weight):
    """Multiplies states by a matrix.

    Args:
        inputs: Width of the states.
        outputs: Width of what comes of them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs, inputs)

    def forward(self, states: Tensor) -> Tensor:
        """Return the products."""
        return F.linear(states, self.weight)


class RootMeanSquareNorm(Weight):
    """Divides states by their root mean square, in float32."""

    def __init__(self, hidden: int, epsilon: float) -> None:
        super().__init__(hidden)
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        """Return normalized states, in their own number format."""
        exact = states.to(torch.float32, copy=True)
        exact.mul_(torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.epsilon))
        return exact.to(states.dtype).mul_(self.weight)


class LlamaAttention(nn.Module):
    """Lets the tokens of a document see each other."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.width = sizes.width
        wide, shared = sizes.heads * sizes.width, sizes.shared_heads * sizes.width
        self.q_proj = Projection(sizes.hidden, wide)
        self.k_proj = Projection(sizes.hidden, shared)
        self.v_proj = Projection(sizes.hidden, shared)
        self.o_proj = Projection(wide, sizes.hidden)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor, documents: Any) -> Tensor:
        """Return what is added to states; see `attention.Borders`."""
        shape = (*states.shape[:-1], -1, self.width)
        query, key, value = (
            part(states).view(shape).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = ((part * cosine).add_(_turn_half(part).mul_(sine)) for part in (query, key))
        mixed: Tensor = documents.attend(query, key, value, self.width**-0.5)
        return self.o_proj(mixed.reshape(*states.shape[:-1], -1).contiguous())


class LlamaFeedForward(nn.Module):
    """Works on each token's state by itself."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.gate_proj = Projection(sizes.hidden, sizes.inner)
        self.up_proj = Projection(sizes.hidden, sizes.inner)
        self.down_proj = Projection(sizes.inner, sizes.hidden)

    def forward(self, states: Tensor) -> Tensor:
        """Return what is added to states."""
        return self.down_proj(F.silu(self.gate_proj(states), inplace=True).mul_(self.up_proj(states)))


class LlamaLayer(nn.Module):
    """One layer."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.self_attn, self.mlp = LlamaAttention(sizes), LlamaFeedForward(sizes)
        self.input_layernorm = RootMeanSquareNorm(sizes.hidden, sizes.epsilon)
        self.post_attention_layernorm = RootMeanSquareNorm(sizes.hidden, sizes.epsilon)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor, documents: Any) -> Tensor:
        """Return the states behind the layer, in the place of those before it."""
        states.add_(self.self_attn(self.input_layernorm(states), cosine, sine, documents))
        return states.add_(self.mlp(self.post_attention_layernorm(states)))


class HiddenStates(NamedTuple):
    """What a model without its head gives."""

    last_hidden_state: Tensor
    """Shape `[1, tokens, hidden]`."""


class LlamaBackbone(nn.Module):
    """The layers between the tokens and the head."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = Weight(sizes.words, sizes.hidden)
        self.layers = nn.ModuleList([LlamaLayer(sizes) for _ in range(sizes.layers)])
        self.norm = RootMeanSquareNorm(sizes.hidden, sizes.epsilon)

    def forward(self, input_ids: Tensor, position_ids: Tensor, documents: Any, use_cache: bool = False) -> HiddenStates:
        """Run packed documents through the layers; see `packing.compute_hidden_states`.

        Args:
            input_ids: Tokens, shape `[1, tokens]`.
            position_ids: Their positions, shape `[1, tokens]`.
            documents: What sees what (`attention.Documents`).
            use_cache: As transformers' models have it; nothing is kept.
        """
        states = F.embedding(input_ids, self.embed_tokens.weight)
        place = torch.arange(0, self.sizes.width, 2, dtype=torch.float)
        turns = position_ids[..., None].float() * (1.0 / (self.sizes.base ** (place / self.sizes.width)))
        angle = torch.cat((turns, turns), dim=-1)
        cosine, sine = (part.to(states.dtype).unsqueeze(1) for part in (angle.cos(), angle.sin()))
        for layer in self.layers:
            states = layer(states, cosine, sine, documents)
        return HiddenStates(self.norm(states))


class PlainLlama(nn.Module):
    """A Llama model; its parameters go by the names that transformers gives them."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.model = LlamaBackbone(sizes)

    @property
    def base_model(self) -> LlamaBackbone:
        """The model without its head."""
        return self.model

    def get_output_embeddings(self) -> nn.Module:
        """Return the head, which is the table of words."""
        return self.model.embed_tokens


class PlainTokenizer:
    """A tokenizer that takes control tokens in texts as plain text, without the transformers library.

    Args:
        path: Its tokenizer.json.
        eos_token: The token that ends a text.

    Raises:
        ValueError: If it has no such token.
    """

    def __init__(self, path: Path, eos_token: str) -> None:
        from tokenizers import Tokenizer  # noqa: PLC0415

        self.backend_tokenizer: Any = Tokenizer.from_file(str(path))
        found: int | None = self.backend_tokenizer.token_to_id(eos_token)
        if found is None:
            raise ValueError("its tokenizer has no end-of-sequence token")
        self.eos_token_id = found
        self.backend_tokenizer.encode_special_tokens = True
        make_control_tokens_special(self.backend_tokenizer)

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """Return the tokens of a text, as transformers' tokenizers do."""
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def get_vocab(self) -> dict[str, int]:
        """Return the number of each token, as transformers' tokenizers do."""
        return self.backend_tokenizer.get_vocab()


def load_plain_llama(folder: Path, dtype: torch.dtype) -> tuple[PlainLlama, PlainTokenizer] | None:
    """Load a model for reading on a CPU.

    Args:
        folder: A folder that `model_folder.check_model_folder` lets pass.
        dtype: Number format of the weights.

    Returns:
        The model and its tokenizer; `None` if the folder holds a model of another kind, or another tokenizer.

    Raises:
        UserError: If its weights can't be read.
        ValueError: If weights are missing or more than finite numbers.
    """
    sizes, weights = read_sizes(_read_object(folder / "config.json")), folder / "model.safetensors"
    told = _read_object(folder / "tokenizer_config.json")
    plain = told.get("tokenizer_class") == _PLAIN_TOKENIZER and set(told) <= _TOKENIZER_SETTINGS
    if sizes is None or not plain or not weights.exists():
        return None
    held = read_tensors(weights)[0]
    with torch.device("meta"):
        model = PlainLlama(sizes)
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    if shapes != {name: weight.shape for name, weight in held.items()}:
        return None
    for name, weight in held.items():
        low, high = weight.aminmax()
        if not bool(low.isfinite() & high.isfinite()):
            raise ValueError(f"{name} holds a number that is not finite")
    model.load_state_dict({name: weight.to(dtype) for name, weight in held.items()}, assign=True)
    return model.eval(), PlainTokenizer(folder / "tokenizer.json", str(told.get("eos_token")))


def read_sizes(config: Mapping[str, Any]) -> LlamaSizes | None:
    """Return the sizes that a configuration tells of; `None` if it is not one of a plain Llama model."""
    settings = {*PLAIN_SETTINGS, *_SIZES, *IGNORED_SETTINGS, "rms_norm_eps", "rope_parameters"}
    if not set(config) <= settings or any(config.get(name) != value for name, value in PLAIN_SETTINGS.items()):
        return None
    turning = _as_object(config.get("rope_parameters"))
    counts = [config.get(name) for name in _SIZES]
    numbers: list[Any] = [config.get("rms_norm_eps"), turning.get("rope_theta")]
    if set(turning) != {"rope_theta", "rope_type"} or turning["rope_type"] != "default":
        return None
    if not all(type(count) is int and count > 0 for count in counts):
        return None
    if not all(type(number) in (int, float) and number > 0 for number in numbers):
        return None
    return LlamaSizes(*cast("list[int]", counts), *numbers)


def _read_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing if it is not there, or holds no object."""
    try:
        return _as_object(json.loads(read_plain_text(path)))
    except FileNotFoundError:
        return {}


def _as_object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _turn_half(states: Tensor) -> Tensor:
    half = states.shape[-1] // 2
    return torch.cat((-states[..., half:], states[..., :half]), dim=-1)
