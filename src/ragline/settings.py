"""Every setting, and the only reader of the environment.

A setting has one name everywhere: `chunking.max_tokens` in code and in `ragline.toml` (a key of the table
`[chunking]`), `RAGLINE_CHUNKING__MAX_TOKENS` in the environment and in `.env`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ReadingSettings(Section):
    """How files become text."""

    workers: int = Field(0, ge=0, description="Parser processes; 0 takes one for each core. More read faster and hold more memory.")
    timeout_s: Seconds = Field(30.0, description="A file that takes longer to parse is given up and reported.")
    max_memory_bytes: int = Field(
        512 * 1024**2, ge=64 * 1024**2, description="Memory one parser process may take before its file is given up and reported."
    )
    max_file_bytes: Positive = Field(256 * 1024**2, description="Larger files are reported, not read.")
    max_text_chars: Positive = Field(
        50_000_000, description="A file that gives more text than this is reported, not stored: it is likely a bomb."
    )
    hidden: bool = Field(False, description="Whether to read files and folders whose name starts with a dot when walking a folder.")


class ChunkingSettings(Section):
    """Where texts are cut."""

    max_tokens: int = Field(
        256,
        ge=16,
        le=8192,
        description=(
            "The longest chunk, in tokens of the embedding model, special tokens and heading prefix included. "
            "Longer chunks give the reader more at once; shorter ones point more exactly."
        ),
    )
    overlap_tokens: int = Field(
        0,
        ge=0,
        description="Tokens of a chunk repeated at the start of the next. More finds sentences cut apart, and costs more to embed.",
    )


class EmbeddingSettings(Section):
    """Which model turns text into vectors, and how it runs."""

    model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2", min_length=1, description="A model's name on the Hugging Face hub, or a folder with one."
    )
    precision: Literal["auto", "int8", "fp32"] = Field(
        "auto",
        description="int8: twice as fast, as good on labelled data; auto takes it where the processor has the instructions, else fp32.",
    )
    threads: int = Field(0, ge=0, description="Threads that embed while ingesting; 0 takes one for each core.")


class RetrievalSettings(Section):
    """How a question finds chunks."""

    mode: Literal["hybrid", "dense", "lexical"] = Field(
        "hybrid", description="Which legs search: meaning (dense), words (lexical) or both."
    )
    fusion: Literal["convex", "rrf"] = Field(
        "convex", description="How both legs are joined: by normalised scores (convex), or by ranks alone (rrf: reciprocal rank fusion)."
    )
    dense_weight: float = Field(
        0.5, ge=0, le=1, description="The share of the dense leg in a convex fusion; the rest is the lexical leg's."
    )
    rrf_k: Positive = Field(60, description="The constant of reciprocal rank fusion: larger flattens the ranks' differences.")
    candidates: int = Field(100, ge=1, le=10_000, description="How many chunks each leg hands to the fusion.")
    top_k: int = Field(10, ge=1, le=1000, description="How many hits a search returns unless told.")
    evidence: int = Field(8, ge=1, le=1000, description="How many hits an answer is made from.")
    max_question_chars: Positive = Field(32_768, description="Longer questions are refused.")


class IndexSettings(Section):
    """Views over the store."""

    exact_below: Positive = Field(
        10_000, description="Collections with fewer chunks are searched exactly; larger ones through compressed codes and an exact rerank."
    )
    rerank: Positive = Field(160, description="How many compressed candidates are rescored exactly: more is nearer to exact and slower.")
    language: str = Field(
        "english",
        description='Language of stop words and stemming in the lexical view (such as "english", "german"), or "none" for neither.',
    )
    wait_s: Annotated[float, Field(ge=0)] = Field(
        10.0, description="How long ingest waits for its documents to be searchable before it returns with the lag in its report."
    )
    resident_scopes: Positive = Field(64, description="How many collections' views stay in memory; the least recently used is let go.")


class StorageSettings(Section):
    """The store."""

    busy_timeout_s: Seconds = Field(30.0, description="How long a write waits for another process's write before it fails.")


class GenerationSettings(Section):
    """How chunks become an answer."""

    generator: Literal["extractive"] = Field("extractive", description="extractive quotes the sentences that answer best.")
    max_sentences: int = Field(4, ge=1, le=50, description="The most sentences an extractive answer quotes.")


class Settings(Section):
    """All settings, frozen, built at the edge and passed in."""

    data_dir: Path = Field(Path(".ragline"), description="Where the store and its views live.")
    cache_dir: Path | None = Field(None, description="Where models are kept; unset takes the platform's cache folder.")
    tenant: str = Field("default", description="Whose documents.")
    collection: str = Field("default", description="Which collection.")
    reading: ReadingSettings = ReadingSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    index: IndexSettings = IndexSettings()
    storage: StorageSettings = StorageSettings()
    generation: GenerationSettings = GenerationSettings()
