"""A tiny Llama with random weights, and a tokenizer of bytes and a few words: the language model of all tests."""

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""What the tokenizer pads with, begins with and ends with."""


def train_tokenizer(texts, vocab_size=400):
    """Return a byte-level BPE tokenizer of bytes and the words of some texts, as transformers wraps one.

    Args:
        texts: What merges are learned from; none leaves bytes.
        vocab_size: Most tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    spelled = Tokenizer(models.BPE())
    spelled.pre_tokenizer, spelled.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=1,
        show_progress=False,
    )
    spelled.train_from_iterator(texts, trainer)
    pad, start, end = CONTROL_TOKENS
    return PreTrainedTokenizerFast(tokenizer_object=spelled, bos_token=start, eos_token=end, pad_token=pad)


def save_llama(folder, tokenizer, seed=0, **config):
    """Write a Llama with random weights and its tokenizer into a folder, and return the folder.

    Args:
        folder: Where to.
        tokenizer: Its tokenizer.
        seed: Draws the weights.
        config: Fields of its configuration that differ from those of all tests.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    given = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**(given | config))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_llama(folder):
    """Write the model with a tokenizer that knows a few words of titles, and return the folder."""
    return save_llama(folder, train_tokenizer(["Red Harbor Blue Garden The Engine at Night of the Quiet Letter"]))
