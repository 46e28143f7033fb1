"""`python -m tests.bench.bare_api`: what acceptance is compared with, a FastAPI handler with one pooled INSERT."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from psycopg_pool import ConnectionPool

INSERT = "INSERT INTO bench_events (uid, name, data) VALUES (%s, %s, %s)"
TABLE = "CREATE TABLE IF NOT EXISTS bench_events (id bigserial PRIMARY KEY, uid text, name text, data text)"


def make_app(pool: ConnectionPool[Any]) -> FastAPI:
    """Reads an event, stores it, returns its id."""
    app = FastAPI()

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/api/v1/events", status_code=202)
    def accept(event: dict[str, Any], request: Request) -> dict[str, str]:
        uid = str(uuid.uuid4())
        with pool.connection() as conn:
            conn.execute(INSERT, [uid, event["eventname"], json.dumps(event)])
        return {"id": uid}

    return app


if __name__ == "__main__":
    with ConnectionPool(os.environ["BENCH_DATABASE"], min_size=8, max_size=16, kwargs={"autocommit": True}) as shared:
        with shared.connection() as first:
            first.execute(TABLE)
        uvicorn.run(make_app(shared), port=int(os.environ["BENCH_PORT"]), access_log=False, log_level="warning")
