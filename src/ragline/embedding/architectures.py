"""The families of encoders that the graph builder serves, by how they differ from BERT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a family differs from BERT.

    Attributes:
        keys: What its configuration calls BERT's settings, where it calls them otherwise.
        renamed: Parts of BERT's names of weights and what stands there instead, applied in order.
        segments: How many kinds of text it has a vector for: 2 tell apart the texts of a pair, 1 is common to all tokens.
        counts_from_padding: Whether a text's first position is the one after the padding token's number.
        head: How a cross-encoder scores the first token's vector: layer names and the function between them.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()
    segments: int = 0
    counts_from_padding: bool = False
    head: tuple[str, str, str] = ("classifier.dense", "Tanh", "classifier.out_proj")

    def weight(self, name: str) -> str:
        """This family's name of a weight, from BERT's."""
        for ours, theirs in self.renamed:
            name = name.replace(ours, theirs)
        return name


_ROBERTA = Architecture(segments=1, counts_from_padding=True)

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(segments=2, head=("pooler.dense", "Tanh", "classifier")),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Architecture(
        keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "hidden_act": "activation",
        },
        renamed=(
            ("encoder.layer.", "transformer.layer."),
            ("attention.self.query", "attention.q_lin"),
            ("attention.self.key", "attention.k_lin"),
            ("attention.self.value", "attention.v_lin"),
            ("attention.output.dense", "attention.out_lin"),
            ("attention.output.LayerNorm", "sa_layer_norm"),
            ("intermediate.dense", "ffn.lin1"),
            (".output.dense", ".ffn.lin2"),
            (".output.LayerNorm", ".output_layer_norm"),
        ),
        head=("pre_classifier", "Relu", "classifier"),
    ),
    "mpnet": Architecture(
        renamed=(
            ("attention.self.query", "attention.attn.q"),
            ("attention.self.key", "attention.attn.k"),
            ("attention.self.value", "attention.attn.v"),
            ("attention.output.dense", "attention.attn.o"),
            ("attention.output.LayerNorm", "attention.LayerNorm"),
        ),
        counts_from_padding=True,
    ),
}
"""By the `model_type` of config.json."""
