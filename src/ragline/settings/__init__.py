"""Every setting, and the only reader of the environment.

A setting has one name everywhere: `chunking.max_tokens` in code and in `ragline.toml` (a key of the table
`[chunking]`), `RAGLINE_CHUNKING__MAX_TOKENS` in the environment and in `.env`.
"""

from ragline.settings.jobs import JobsSettings
from ragline.settings.limits import LimitsSettings
from ragline.settings.loading import (
    LoadedSettings,
    Origin,
    is_secret,
    load_flags,
    load_settings,
    may_be_unset,
    nearest,
    plain_values,
    section_of,
    setting_groups,
    setting_keys,
    variable_of,
)
from ragline.settings.monitoring import MonitoringSettings
from ragline.settings.profiles import PROFILES, Profile, ProfileName
from ragline.settings.sections import (
    CacheSettings,
    ChunkingSettings,
    EmbeddingSettings,
    GenerationSettings,
    IndexSettings,
    PoolSettings,
    ReadingSettings,
    RerankSettings,
    RetrievalSettings,
    Settings,
    StorageSettings,
    WebSettings,
)
from ragline.settings.serving import ServerSettings

__all__ = [
    "PROFILES",
    "CacheSettings",
    "ChunkingSettings",
    "EmbeddingSettings",
    "GenerationSettings",
    "IndexSettings",
    "JobsSettings",
    "LimitsSettings",
    "LoadedSettings",
    "MonitoringSettings",
    "Origin",
    "PoolSettings",
    "Profile",
    "ProfileName",
    "ReadingSettings",
    "RerankSettings",
    "RetrievalSettings",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "WebSettings",
    "is_secret",
    "load_flags",
    "load_settings",
    "may_be_unset",
    "nearest",
    "plain_values",
    "section_of",
    "setting_groups",
    "setting_keys",
    "variable_of",
]
