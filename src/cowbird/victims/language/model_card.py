"""The README of a saved model: what it is, what it may hold, and how anybody loads it without Cowbird."""

from cowbird.text import escape_html
from cowbird.victims.language.assets import EMBEDDED_MODELS
from cowbird.victims.language.base_record import BaseRecord
from cowbird.victims.language.llm import Llm

_CARD = """\
---
{metadata}
---

# {kind}, tuned by Cowbird

{purpose}

| | |
| --- | --- |
| base model | `{base}` |
| SHA-256 of the base's weights | `{sha256}` |
| layers | {layers} |
| license of the base | {license} |

Whoever passes this model on is bound by the license of its base.

## Load it with peft

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("BASE")
{cut}model = PeftModel.from_pretrained(base, "FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```

`BASE` is the folder of the base model, and `FOLDER` is this folder. {asset}The hash is of the weights rounded to
bfloat16: `cowbird.victims.language.base_record.hash_base(base)` computes it.{warning}
"""
_CUT = """\
base.base_model.layers = base.base_model.layers[:{layers}]
base.config.num_hidden_layers = {layers}
"""
_ASSET = """\
The base is an asset of Cowbird: `cowbird assets {name}` fetches it, and
`cowbird.victims.language.llm.locate_model("{name}")` gives its folder. """
_WARNING = """

The base was cut to its first {layers} layers before it was tuned. On the whole base the adapter gives other answers;
peft then warns of missing keys."""
_WHOLE = """\
---
tags: [cowbird, research-artifact]
---

# {kind}, tuned by Cowbird

{purpose}

All weights were tuned, from `{base}`. transformers loads this folder as it is. Whoever passes it on is bound by the
license of its base.
"""


def write_card(kind: str, purpose: str, record: BaseRecord, llm: Llm) -> str:
    """Return the README of a saved model, as Markdown.

    Args:
        kind: What it is, such as `TALLRec`.
        purpose: What it is for, as Markdown.
        record: What it was tuned from.
        llm: What of that was tuned.
    """
    shown = escape_html(record.name).replace("`", "'")
    if llm.tuning == "full":
        return _WHOLE.format(kind=kind, purpose=purpose, base=shown)
    metadata = ["library_name: peft", "tags: [cowbird, lora, research-artifact]"]
    metadata += [] if record.license == "unknown" else [f"license: {record.license}"]
    return _CARD.format(
        metadata="\n".join(metadata),
        kind=kind,
        purpose=purpose,
        base=shown,
        sha256=record.sha256,
        layers=f"the first {record.layers}" if record.cut else record.layers,
        license=record.license if record.license != "unknown" else "unknown; see the base model",
        cut=_CUT.format(layers=record.layers) if record.cut else "",
        asset=_ASSET.format(name=record.name) if llm.name in EMBEDDED_MODELS else "",
        warning=_WARNING.format(layers=record.layers) if record.cut else "",
    )
