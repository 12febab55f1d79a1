"""The commands: their arguments, options and help. What they do stands in `cli.work` and `cli.things`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ragline import __version__
from ragline.cli.options import Common, Format, Level, command

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,  # rich costs more than all of the rest of `--help`
    pretty_exceptions_enable=False,
)


def _group(name: str, help: str) -> typer.Typer:
    group = typer.Typer(help=help, rich_markup_mode=None)
    app.add_typer(group, name=name)
    return group


TopK = Annotated[int | None, typer.Option("--top-k", metavar="N", help="How many hits, 1 to 1000.")]
Filter = Annotated[str | None, typer.Option("--filter", metavar="JSON", help="""Conditions on metadata: '{"year": {"gte": 2020}}'.""")]
Mode = Annotated[Literal["hybrid", "dense", "lexical"] | None, typer.Option("--mode", help="By meaning (dense), words (lexical) or both.")]
Depth = Annotated[int | None, typer.Option("--depth", metavar="N", help="Follow links of a URL so many deep, below its folder.")]
Sitemap = Annotated[bool, typer.Option("--sitemap", help="Read the pages too that a URL's site names in its sitemap, below its folder.")]
MaxPages = Annotated[int | None, typer.Option("--max-pages", metavar="N", help="Follow at most so many pages of a site. [default: 1000]")]
DocumentId = Annotated[str, typer.Argument(metavar="ID", help="As `ragline documents list` shows it.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
    data_dir: Annotated[str | None, typer.Option("--data-dir", hidden=True)] = None,
    collection: Annotated[str | None, typer.Option("--collection", hidden=True)] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", hidden=True)] = None,
    config: Annotated[Path | None, typer.Option("--config", hidden=True)] = None,
    profile: Annotated[str | None, typer.Option("--profile", hidden=True)] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", hidden=True)] = None,
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
    log_level: Annotated[Level | None, typer.Option("--log-level", hidden=True)] = None,
    log_format: Annotated[Format | None, typer.Option("--log-format", hidden=True)] = None,
) -> None:
    """Documents in, cited answers out: a retrieval engine on one machine."""
    context.obj = Common(json, data_dir, collection, tenant, config, profile, assignments, debug, log_level, log_format)
    if version:
        typer.echo(f'{{"version": "{__version__}"}}' if json else f"ragline {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@command(app)
async def ask(
    common: Common,
    question: Annotated[str, typer.Argument(help="In words.")],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]...", help="Answer from these files, folders, globs or URLs only.")
    ] = None,
    top_k: TopK = None,
    filter: Filter = None,
    mode: Mode = None,
    depth: Depth = None,
    sitemap: Sitemap = False,
    max_pages: MaxPages = None,
) -> int:
    """Answer a question, with citations. With paths, read those first and answer from them only."""
    from ragline.cli import work

    web = work.web_flags(paths or [], depth, sitemap, max_pages)
    return await work.ask(common, question, paths or [], top_k, filter, mode, web)


@command(app)
async def ingest(
    common: Common,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, globs, URLs, or - for standard input.")],
    prune: Annotated[bool, typer.Option("--prune", help="Delete documents whose file is gone from a folder given.")] = False,
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The id of the text from standard input.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="What citations call that text.")] = None,
    metadata: Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="That text's metadata, to filter on.")] = None,
    depth: Depth = None,
    sitemap: Sitemap = False,
    max_pages: MaxPages = None,
) -> int:
    """Read documents into the store. Those that have not changed are no work."""
    from ragline.cli import work

    web = work.web_flags(paths, depth, sitemap, max_pages)
    return await work.ingest(common, paths, prune, id, source, metadata, web)


@command(app)
async def search(
    common: Common,
    query: Annotated[str, typer.Argument(help="In words.")],
    top_k: TopK = None,
    filter: Filter = None,
    mode: Mode = None,
) -> int:
    """Find the passages that answer a question best."""
    from ragline.cli import work

    return await work.search(common, query, top_k, filter, mode)


@command(app)
async def reindex(
    common: Common,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Switch to this embedding model.")] = None,
    precision: Annotated[
        Literal["auto", "int8", "fp32"] | None, typer.Option("--precision", help="Switch to this precision of the model.")
    ] = None,
) -> int:
    """Chunk, embed and index a collection anew. Searches go on meanwhile."""
    from ragline.cli import work

    return await work.reindex(common, model, precision)


@command(app, "eval")
async def evaluate(
    common: Common,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With corpus.jsonl, queries.jsonl and qrels/ (BEIR's layout).")],
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Which of the qrels.")] = "test",
) -> int:
    """Measure retrieval on a labelled set.

    Its documents go into a temporary store, unless --data-dir is given.
    """
    from ragline.cli import work

    return await work.evaluate(common, folder, split)


@command(app)
def serve(
    common: Common,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="The port; 0 takes a free one. [default: 8000]")] = None,
    workers: Annotated[int | None, typer.Option("--workers", metavar="N", help="Processes that answer. [default: 1]")] = None,
    cors_origins: Annotated[
        str | None, typer.Option("--cors-origins", metavar="ORIGINS", help="Web pages that may call it, with commas between.")
    ] = None,
    allowed_hosts: Annotated[
        str | None, typer.Option("--allowed-hosts", metavar="NAMES", help="Names it is called by, with commas between.")
    ] = None,
) -> int:
    """Answer over HTTP. Without keys only this machine is answered: see `ragline keys`."""
    from ragline.cli import serving

    flags = {"host": host, "port": port, "workers": workers, "cors_origins": cors_origins, "allowed_hosts": allowed_hosts}
    return serving.serve(common, {**flags, "log_level": common.log_level, "log_format": common.log_format})


@command(app)
async def status(common: Common) -> int:
    """Show what the data folder holds and how far its index is."""
    from ragline.cli import things

    return await things.status(common)


@command(app)
async def doctor(
    common: Common,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file of store and index.")] = False,
) -> int:
    """Look for what is wrong, and say how to mend it."""
    from ragline.cli import things

    return await things.doctor(common, verify)


documents = _group("documents", "List, show and delete documents.")


@command(documents, "list")
async def list_documents(
    common: Common,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many.")] = None,
    after: Annotated[str, typer.Option("--after", metavar="ID", help="Those after this id.")] = "",
) -> int:
    """List documents by id."""
    from ragline.cli import things

    return await things.list_documents(common, limit, after)


@command(documents, "show")
async def show_document(
    common: Common,
    id: DocumentId,
    chunks: Annotated[bool, typer.Option("--chunks", help="Show the text as it was cut.")] = False,
) -> int:
    """Show a document and its text."""
    from ragline.cli import things

    return await things.show_document(common, id, chunks)


@command(documents, "delete")
async def delete_documents(
    common: Common,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `ragline documents list` shows them.")],
) -> int:
    """Delete documents with everything made from them."""
    from ragline.cli import things

    return await things.delete_documents(common, ids)


collections = _group("collections", "List and delete collections.")


@command(collections, "list")
async def list_collections(common: Common) -> int:
    """List collections by name."""
    from ragline.cli import things

    return await things.list_collections(common)


@command(collections, "delete")
async def delete_collection(common: Common, name: Annotated[str, typer.Argument(help="The collection.")]) -> int:
    """Delete a collection with all of its documents."""
    from ragline.cli import things

    return await things.delete_collection(common, name)


keys = _group("keys", "Make, list and revoke the keys to a server.")


@command(keys, "create")
async def create_key(
    common: Common,
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is for, to know it again.")] = "",
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", metavar="SCOPE", help="read, write, admin (both, and more) or metrics. May be repeated. [default: read, write]"
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, max=1e6, metavar="N", help="At most so many requests a second.")
    ] = None,
    burst: Annotated[int | None, typer.Option("--burst", min=1, max=1_000_000, metavar="N", help="So many at once, with --rate.")] = None,
) -> int:
    """Make a key for a tenant (--tenant). It is shown once."""
    from ragline.cli import keys

    return await keys.create(common, name, scopes or (), rate, burst)


@command(keys, "list")
async def list_keys(common: Common) -> int:
    """List the keys of all tenants, or of one."""
    from ragline.cli import keys

    return await keys.list_keys(common)


@command(keys, "revoke")
async def revoke_key(common: Common, id: Annotated[str, typer.Argument(metavar="ID", help="As `ragline keys list` shows it.")]) -> int:
    """End a key. It opens nothing from that moment on."""
    from ragline.cli import keys

    return await keys.revoke(common, id)


cache = _group("cache", "See, clear and warm what was computed before.")

Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="A running server, such as http://127.0.0.1:8000.")]
Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Its key; @FILE reads it from a file.")]


@command(cache, "stats")
async def cache_stats(common: Common, url: Url = None, key: Key = None) -> int:
    """Show what a server knew already (--url), or the vectors that the data folder keeps."""
    from ragline.cli import cache

    return await cache.stats(common, url, key)


@command(cache, "clear")
async def clear_cache(common: Common, url: Url = None, key: Key = None) -> int:
    """Have the servers on the data folder, or the one at --url, forget what they keep for a tenant.

    It is never needed to get fresh answers: what is kept is served only while it holds.
    """
    from ragline.cli import cache

    return await cache.clear(common, url, key)


@command(cache, "warm")
async def warm_cache(
    common: Common,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Questions, one a line; lines that begin with # are left out.")],
    url: Url = None,
    key: Key = None,
) -> int:
    """Ask a server (--url) every question of a file, so that it knows the answers when people ask."""
    from ragline.cli import cache

    return await cache.warm(common, file, url, key)


config = _group("config", "Show settings, and write a settings file.")


@command(config, "show")
async def show_config(
    common: Common,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="These settings or groups only.")] = None,
) -> int:
    """Show the settings in force and where each came from."""
    from ragline.cli import things

    return await things.show_config(common, keys or [])


@command(config, "init")
async def init_config(
    common: Common,
    form: Annotated[Literal["toml", "yaml"] | None, typer.Option("--format", help="The form of the file. [default: toml]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> int:
    """Write a settings file: every setting, explained and commented out.

    What --profile, --set and other flags give is set in it. It is ragline.toml or ragline.yaml, unless --config names another.
    """
    from ragline.cli import things

    return await things.init_config(common, form, force)
