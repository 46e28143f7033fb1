"""The job that every system does: one event of 1 kB to a target, one row in PostgreSQL."""

from __future__ import annotations

from typing import Any

NAME = "\\core\\event\\user_created"
TABLE = """
CREATE TABLE bench_log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number bigint, service text,
    status smallint, latency_ms real, request_body text, created_at timestamptz NOT NULL DEFAULT now())
"""
INSERT = "INSERT INTO bench_log (number, service, status, latency_ms, request_body) VALUES (%s, %s, %s, %s, %s)"


def event(number: int) -> dict[str, Any]:
    """A Moodle event of 1 kB that no other number has."""
    return {
        "eventname": NAME,
        "component": "core",
        "action": "created",
        "target": "user",
        "objecttable": "user",
        "objectid": number,
        "crud": "c",
        "edulevel": 0,
        "contextid": number + 7,
        "contextlevel": 30,
        "contextinstanceid": number,
        "userid": 2,
        "courseid": 0,
        "relateduserid": number,
        "anonymous": 0,
        "other": {"username": f"student{number}", "note": "x" * 640},
        "timecreated": 1708258939,
    }
