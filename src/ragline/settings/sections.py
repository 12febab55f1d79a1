"""Every setting: its name, its type, its default and what it trades."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ragline.settings.jobs import JobsSettings
from ragline.settings.kinds import Address, File, Folder, Number, Positive, Seconds, Secret, Threads, Whole
from ragline.settings.limits import LimitsSettings
from ragline.settings.monitoring import MonitoringSettings
from ragline.settings.profiles import ProfileName, profile_values
from ragline.settings.section import Section
from ragline.settings.serving import ServerSettings


class ReadingSettings(Section):
    """How files become text."""

    workers: Threads = Field(0, description="Parser processes; 0 takes one for each core. More read faster and hold more memory.")
    timeout_s: Seconds = Field(30.0, description="A file that takes longer to parse is given up and reported.")
    max_memory_bytes: Whole = Field(
        512 * 1024**2, ge=64 * 1024**2, description="Memory one parser process may take before its file is given up and reported."
    )
    max_file_bytes: Positive = Field(256 * 1024**2, description="Larger files are reported, not read.")
    max_text_chars: Positive = Field(
        50_000_000, description="A file that gives more text than this is reported, not stored: it is likely a bomb."
    )
    hidden: bool = Field(
        False, description="Whether to read files and folders whose name starts with a dot when walking a folder or an archive."
    )
    ocr_language: str = Field(
        "eng",
        pattern=r"^\w+(\+\w+)*$",
        description="What the text in images and scans is written in, as tesseract calls its language data: eng, deu, or several: eng+fra.",
    )
    ocr_data_dir: Folder | None = Field(
        None,
        description=(
            "The folder with tesseract's language data; unset takes TESSDATA_PREFIX, else the usual places. "
            "Without data, images and scans are reported."
        ),
    )


class WebSettings(Section):
    """How pages are fetched from the web."""

    timeout_s: Seconds = Field(20.0, description="A page that takes longer, redirects included, is given up and reported.")
    max_bytes: Positive = Field(
        64 * 1024**2, description="Larger pages, packed or unpacked, are given up while they are loaded, and reported."
    )
    max_redirects: Whole = Field(5, ge=0, le=20, description="How many redirects in a row are followed; each address is checked anew.")
    private_addresses: bool = Field(
        False,
        description=(
            "Whether addresses of private networks, of this machine and of cloud metadata services may be fetched. "
            "Only for people who choose every URL themselves."
        ),
    )
    depth: Whole = Field(
        0,
        ge=0,
        le=100,
        description="How many links deep a site is followed from a page given, below that page's folder; 0 reads the page alone.",
    )
    sitemap: bool = Field(False, description="Whether the pages below a page's folder that its site's sitemap names are read too.")
    max_pages: Positive = Field(1000, description="The most pages of one site that are read while following links or a sitemap.")
    parallel: Whole = Field(4, ge=1, le=64, description="Pages fetched at once. More is faster, and heavier on the site.")
    robots: bool = Field(
        True,
        description="Whether robots.txt, and pages that ask not to be indexed or followed, are obeyed while following links or a sitemap.",
    )


class PoolSettings(Section):
    """Connections to each outside service: language model, embedding server, rerank server."""

    min_size: Whole = Field(5, ge=0, le=1000, description="How many stay open while idle.")
    max_size: Whole = Field(20, ge=1, le=1000, description="How many there are at most; further requests wait for one.")


class ChunkingSettings(Section):
    """Where texts are cut."""

    max_tokens: Whole = Field(
        256,
        ge=16,
        le=8192,
        description=(
            "The longest chunk, in tokens of the embedding model, special tokens and heading prefix included. "
            "Longer chunks give the reader more at once; shorter ones point more exactly."
        ),
    )
    overlap_tokens: Whole = Field(
        0,
        ge=0,
        description="Tokens of a chunk repeated at the start of the next. More finds sentences cut apart, and costs more to embed.",
    )


class EmbeddingSettings(Section):
    """Which model turns text into vectors, and how it runs."""

    model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2", min_length=1, description="A model's name on the Hugging Face hub, or a folder with one."
    )
    runtime: Literal["onnx", "sentence-transformers", "openai"] = Field(
        "onnx",
        description=(
            "onnx: BERT encoders on this machine's processor, without torch. sentence-transformers: any of its models, on a "
            "graphics card where there is one (extra). openai: a server with OpenAI's /v1/embeddings (extra)."
        ),
    )
    precision: Literal["auto", "int8", "fp32", "fp16"] = Field(
        "auto",
        description=(
            "int8 (onnx): up to twice as fast, as good on labelled data; auto takes it where the processor can, else fp32. "
            "fp16: for sentence-transformers on a graphics card, where auto takes it."
        ),
    )
    threads: Threads = Field(0, description="Threads that embed while ingesting; 0 takes one for each core.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where sentence-transformers computes; auto takes cuda, else mps, else cpu."
    )
    dimension: Whole = Field(
        0,
        ge=0,
        le=65_536,
        description=(
            "Keep so many leading numbers of each vector, for models trained for it (Matryoshka): smaller and faster, a little worse. "
            "0 keeps all."
        ),
    )
    question_prefix: str | None = Field(None, description="Put before questions; unset takes what the model declares.")
    passage_prefix: str | None = Field(None, description="Put before passages; unset takes what the model declares.")
    base_url: Address | None = Field(
        None, description="The embedding server, such as http://localhost:8080/v1; unset takes OPENAI_BASE_URL, else OpenAI's own."
    )
    api_key: Secret | None = Field(
        None,
        description=(
            "The embedding server's key. Unset takes OPENAI_API_KEY, but only towards OPENAI_BASE_URL or OpenAI's own: "
            "a settings file that names another server does not get it."
        ),
    )
    tokenizer: str | None = Field(
        None,
        description=(
            "For a server: a folder or a model on the hub whose tokenizer.json counts tokens as the server does; "
            "unset estimates, on the long side."
        ),
    )
    max_tokens: Whole = Field(512, ge=16, le=131_072, description="For a server: the longest text it takes, in tokens.")
    batch_texts: Whole = Field(
        64, ge=1, le=2048, description="The most texts in one request to a server, or in one batch on a graphics card."
    )
    batch_wait_s: Number = Field(
        0.01,
        ge=0,
        le=60,
        description="How long a text waits for others to join it in a batch, at most, while another is under way: else it goes at once.",
    )
    batch_tokens: Whole = Field(
        16_384,
        ge=16,
        le=1_000_000,
        description="The most tokens in one request or batch: larger is faster until the model is busy all the time.",
    )
    parallel_requests: Whole = Field(4, ge=1, le=256, description="Requests to a server at once while ingesting.")
    timeout_s: Seconds = Field(30.0, description="How long one request to a server may take.")
    retry_s: Seconds = Field(
        60.0,
        description=(
            "How long requests that failed are tried again while ingesting, waits included, before it is an error. "
            "A question is tried three times at most, within timeout_s."
        ),
    )


class RetrievalSettings(Section):
    """How a question finds chunks."""

    mode: Literal["hybrid", "dense", "lexical"] = Field(
        "hybrid", description="Which legs search: meaning (dense), words (lexical) or both."
    )
    fusion: Literal["convex", "rrf"] = Field(
        "convex", description="How both legs are joined: by normalised scores (convex), or by ranks alone (rrf: reciprocal rank fusion)."
    )
    dense_weight: Number = Field(
        0.5, ge=0, le=1, description="The share of the dense leg in a convex fusion; the rest is the lexical leg's."
    )
    rrf_k: Positive = Field(60, description="The constant of reciprocal rank fusion: larger flattens the ranks' differences.")
    candidates: Whole = Field(100, ge=1, le=10_000, description="How many chunks each leg hands to the fusion.")
    top_k: Whole = Field(10, ge=1, le=1000, description="How many hits a search returns unless told.")
    evidence: Whole = Field(8, ge=1, le=1000, description="How many hits an answer is made from.")
    max_question_chars: Positive = Field(32_768, description="Longer questions are refused.")
    mmr_lambda: Number | None = Field(
        None,
        ge=0,
        le=1,
        description="Maximal marginal relevance: 1 is relevance alone, less avoids hits that say the same; 0.8 is a start. Unset is off.",
    )
    max_concurrent: Whole = Field(
        50,
        ge=1,
        le=10_000,
        description="How many questions of one `ask_many` or `search_many` are under way at once; the rest wait for their turn.",
    )
    neighbours: Whole = Field(
        0,
        ge=0,
        le=20,
        description="How many chunks on either side of a hit an answer is made from as well: more context, more tokens.",
    )


class RerankSettings(Section):
    """A second, closer look at the best hits."""

    reranker: Literal["none", "onnx", "sentence-transformers", "endpoint"] = Field(
        "none",
        description=(
            "onnx: BERT cross-encoders on this machine's processor. sentence-transformers: any CrossEncoder (extra). "
            "endpoint: a server with /rerank."
        ),
    )
    model: str = Field(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        min_length=1,
        description="A model's name on the Hugging Face hub or at the server, or a folder.",
    )
    candidates: Whole = Field(30, ge=1, le=1000, description="How many of the best hits are reranked: more finds more, and takes longer.")
    base_url: Address | None = Field(None, description="The rerank server, such as http://localhost:8080; /rerank is added.")
    api_key: Secret | None = Field(None, description="The rerank server's key.")
    style: Literal["tei", "cohere"] = Field(
        "tei", description="What the server speaks: tei (Hugging Face's text-embeddings-inference) or cohere (Cohere, Jina, vLLM, LocalAI)."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where sentence-transformers computes; auto takes cuda, else mps, else cpu."
    )
    precision: Literal["auto", "int8", "fp32", "fp16"] = Field(
        "auto",
        description=(
            "auto takes fp32 on the processor, fp16 on a graphics card (sentence-transformers). int8 (onnx): twice as fast where the "
            "processor has the instructions; try it on questions of yours first."
        ),
    )
    timeout_s: Seconds = Field(
        10.0, description="How long a rerank may take, retries included; then the hits keep their order and the result says so."
    )


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
    wait_s: Number = Field(
        10.0,
        ge=0,
        le=86_400,
        description="How long ingest waits for its documents to be searchable before it returns with the lag in its report.",
    )
    resident_scopes: Positive = Field(64, description="How many collections' views stay in memory; the least recently used is let go.")
    simd: Literal["auto", "lower"] = Field(
        "auto",
        description=(
            "Which of the processor's vector instructions FAISS uses: the best it has (auto), or those one level down, to try what "
            "other machines would run (lower; it holds for the whole process)."
        ),
    )


class StorageSettings(Section):
    """The store."""

    busy_timeout_s: Seconds = Field(30.0, description="How long a write waits for another process's write before it fails.")


class CacheSettings(Section):
    """What is kept of what was computed before. Nothing that has changed is ever served."""

    enabled: bool = Field(True, description="Whether hits and answers are kept while nothing has changed that they depend on.")
    items: Whole = Field(10_000, ge=1, le=10_000_000, description="How many of each are kept at most: the most useful ones.")
    max_bytes: Whole = Field(
        64 * 1024**2,
        ge=1024**2,
        description="What the hits kept may weigh at most, and the answers kept as much again. An answer weighs some 20 kB.",
    )
    ttl_s: Seconds = Field(3600.0, description="How long at most, even where nothing has changed.")
    semantic: bool = Field(
        True,
        description=(
            "Whether an answer by a language model is given again to another question that means the same, found the same evidence and "
            "differs in no telling word."
        ),
    )


class GenerationSettings(Section):
    """How chunks become an answer."""

    generator: Literal["extractive", "openai", "ollama"] = Field(
        "extractive",
        description=(
            "extractive quotes the sentences that answer best, offline. openai: a language model behind OpenAI's protocol (OpenAI, vLLM, "
            "llama.cpp, LM Studio, ...; extra). ollama: a model served by Ollama (extra)."
        ),
    )
    max_sentences: Whole = Field(4, ge=1, le=50, description="The most sentences an extractive answer quotes.")
    model: str | None = Field(None, description="The language model's name, as its server knows it.")
    base_url: Address | None = Field(
        None,
        description=(
            "The language model's server, such as http://localhost:8000/v1; unset takes OPENAI_BASE_URL or OLLAMA_HOST, else the "
            "usual address."
        ),
    )
    api_key: Secret | None = Field(
        None,
        description=(
            "The server's key. Unset takes OPENAI_API_KEY, but only towards OPENAI_BASE_URL or OpenAI's own: "
            "a settings file that names another server does not get it."
        ),
    )
    temperature: Number | None = Field(0.0, ge=0, le=2, description="0 repeats itself, more varies; unset leaves it to the server.")
    top_k: Whole | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Sample among the k likeliest tokens; unset leaves it to the server. OpenAI's own servers refuse it.",
    )
    max_tokens: Whole = Field(1024, ge=1, le=1_000_000, description="The longest answer, in tokens (num_predict in Ollama).")
    prompt_tokens: Whole = Field(
        6000,
        ge=1024,
        le=2_000_000,
        description="The longest prompt, in tokens as estimated on the long side; what does not fit is left out, worst hits first.",
    )
    history_tokens: Whole = Field(
        1000, ge=0, le=2_000_000, description="How much of the prompt earlier turns of a conversation may take; the oldest are left out."
    )
    prompt_file: File | None = Field(None, description="A file with your own prompt template: it must have {question} and {documents}.")
    first_token_timeout_s: Seconds = Field(30.0, description="How long the model may take to begin; it is asked three times at most.")
    timeout_s: Seconds = Field(120.0, description="How long the whole answer may take, retries included.")
    fallback: bool = Field(
        True,
        description=(
            "Whether the extractive answer is given, and says so, where the language model is down or over its time; else it is an error."
        ),
    )
    links: Literal["neutralise", "keep"] = Field(
        "neutralise",
        description="Whether links and images in a model's answer are made harmless: a document can smuggle them in to carry data away.",
    )


class Settings(Section):
    """All settings, frozen, built at the edge and passed in."""

    profile: ProfileName | None = Field(
        None, description="Settings that belong together, by one name; whatever else is set wins over them."
    )
    data_dir: Folder = Field(Path(".ragline"), description="Where the store and its views live.")
    cache_dir: Folder | None = Field(None, description="Where models are kept; unset takes the platform's cache folder.")
    tenant: str = Field("default", description="Whose documents.")
    collection: str = Field("default", description="Which collection.")
    reading: ReadingSettings = ReadingSettings()
    web: WebSettings = WebSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    rerank: RerankSettings = RerankSettings()
    index: IndexSettings = IndexSettings()
    storage: StorageSettings = StorageSettings()
    pool: PoolSettings = PoolSettings()
    cache: CacheSettings = CacheSettings()
    generation: GenerationSettings = GenerationSettings()
    jobs: JobsSettings = JobsSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitsSettings = LimitsSettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    @model_validator(mode="before")
    @classmethod
    def _under_profile(cls, given: Any) -> Any:
        """The values given, over those of the profile they name."""
        if not isinstance(given, Mapping):
            return given
        tree = dict(given)
        for key, value in profile_values(tree.get("profile")).items():
            group, _, name = key.partition(".")
            section = tree.get(group, {})
            if isinstance(section, Section):
                tree[group] = section if name in section.model_fields_set else section.model_copy(update={name: value})
            elif isinstance(section, Mapping):
                tree[group] = {name: value, **section}
        return tree

    def model_cache_dir(self) -> Path:
        """The folder that models are kept in: `cache_dir`, else the platform's (`$XDG_CACHE_HOME/ragline`)."""
        if self.cache_dir is not None:
            return self.cache_dir
        from platformdirs import user_cache_path  # here, because an engine with a folder of its own needs none

        return user_cache_path("ragline", appauthor=False)
