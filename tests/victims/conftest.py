"""Small synthetic data and small victims."""

import pytest

from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.plugins import find_plugin


@pytest.fixture(scope="session")
def parts():
    """Few users, for tests of mechanics."""
    data = Synthetic(users=30, items=24, events_per_user=8, categories=4).load()
    return Split(cold_fraction=0.2).apply(data, 0)


@pytest.fixture(scope="session")
def learnable():
    """Enough users to learn which item follows which."""
    data = Synthetic(users=300, items=64, events_per_user=12, noise=0.1).load()
    return Split(cold_fraction=0.2).apply(data, 0)


@pytest.fixture(scope="session")
def tiny():
    """Return a function that makes a victim whose fit takes milliseconds."""

    def make(name, **fields):
        given = {
            "hidden": 8,
            "max_length": 4,
            "epochs": 4,
            "batch_size": 10,
            "learning_rate": 1e-2,
            "precision": "float32",
            "patience": None,
        }
        return find_plugin("victim", name)(**(given | fields))

    return make


@pytest.fixture(scope="session")
def learned(learnable):
    """Return a function that fits a victim on `learnable` once a session."""
    known = {}

    def fit(name):
        if name not in known:
            spec = find_plugin("victim", name)(
                hidden=32, max_length=10, epochs=9, batch_size=32, learning_rate=8e-3, dropout=0.1, precision="float32"
            )
            known[name] = spec.fit(learnable.pretrain.training(), learnable.pretrain.validation(), 0)
        return known[name]

    return fit


@pytest.fixture(scope="session")
def bytes_and_words():
    """Return a byte-level BPE tokenizer of bytes and the words of TALLRec's prompt, as transformers wraps one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from cowbird.victims.language.tallrec import format_prompt

    spelled = Tokenizer(models.BPE())
    spelled.pre_tokenizer, spelled.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    spelled.train_from_iterator([format_prompt(["Red Harbor"], ["Blue Garden"], "The Engine"), "Yes. No."], trainer)
    pad, start, end = control
    return PreTrainedTokenizerFast(tokenizer_object=spelled, bos_token=start, eos_token=end, pad_token=pad)


@pytest.fixture(scope="session")
def llamas(tmp_path_factory, bytes_and_words, read_once):
    """Return a function that gives the folder of a tiny Llama with random weights, one a seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = {}

    def make(seed=0):
        if seed not in made:
            made[seed] = tmp_path_factory.mktemp("llama")
            config = LlamaConfig(
                vocab_size=len(bytes_and_words),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=1024,
                tie_word_embeddings=True,
                initializer_range=0.2,
                bos_token_id=bytes_and_words.bos_token_id,
                eos_token_id=bytes_and_words.eos_token_id,
            )
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                LlamaForCausalLM(config).save_pretrained(made[seed])
            bytes_and_words.save_pretrained(made[seed])
        return made[seed]

    return make


@pytest.fixture(scope="session")
def llama(llamas):
    """Return the folder of a tiny Llama, which `Llm(name=...)` loads."""
    return llamas()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Nothing is written to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COWBIRD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
