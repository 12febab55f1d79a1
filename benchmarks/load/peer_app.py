"""What people write today for the same job: LangChain and FAISS behind FastAPI, as their documentation shows them.

    python peer_app.py MODEL FOLDER [PROCESSES]

FOLDER holds `passages.json` and `vectors.npy`. It prints its address. Of several processes each computes with one thread; they share the
port. Run in an environment of its own, with the versions of `../adapters/requirements-langchain.txt`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from langchain_community.vectorstores import FAISS
from langchain_huggingface import HuggingFaceEmbeddings
from pydantic import BaseModel

TOP_K = 10
"""As ragline's search."""

model, folder = sys.argv[1], Path(sys.argv[2])
processes = int(sys.argv[3]) if len(sys.argv) > 3 else 1
listening = socket.create_server(("127.0.0.1", 0))
children: list[int] = []
if processes > 1:
    torch.set_num_threads(1)
while len(children) < processes - 1:  # before any model is loaded: what its threads hold does not survive a fork
    if not (child := os.fork()):
        processes, children = 1, []
        break
    children.append(child)
embeddings = HuggingFaceEmbeddings(model_name=model, model_kwargs={"device": "cpu"})
passages = json.loads((folder / "passages.json").read_text(encoding="utf-8"))
index = FAISS.from_embeddings(
    list(zip(passages["texts"], np.load(folder / "vectors.npy").tolist(), strict=True)), embeddings, ids=passages["ids"]
)
app = FastAPI()


class Asked(BaseModel):
    query: str
    top_k: int = TOP_K


class Hit(BaseModel):
    id: str
    text: str
    score: float
    metadata: dict[str, Any]


class Found(BaseModel):
    hits: list[Hit]


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/api/v1/search")
def search(asked: Asked) -> Found:
    """On FastAPI's threads, for both libraries block."""
    found = index.similarity_search_with_score(asked.query, k=asked.top_k)
    return Found(hits=[Hit(id=each.id, text=each.page_content, score=float(score), metadata=each.metadata) for each, score in found])


if __name__ == "__main__":
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    try:
        uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listening])
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
