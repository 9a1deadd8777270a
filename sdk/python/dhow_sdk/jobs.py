"""Work that is due later, kept durably. `handlers.on_job` takes it when it is."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from wit_world.imports import jobs as wit

from .errors import call


@dataclass
class Retries:
    """Between two tries, and how many there are beside the first one; None: until one succeeds."""

    interval_ms: int
    max_retries: int | None = None


@dataclass
class Job:
    """A job as it is kept."""

    name: str
    schedule: str | None
    due_time: str | None
    repeats: int | None
    ttl: str | None
    data: Any


def schedule_job(
    name: str,
    *,
    schedule: str | None = None,
    due_time: str | None = None,
    repeats: int | None = None,
    ttl: str | None = None,
    data: Any = None,
    failure_policy: Literal["drop"] | Retries | None = None,
    overwrite: bool = False,
) -> None:
    """Keeps a job that has a schedule (six-field cron, `@every 5s`, `@daily`), a due time (RFC 3339, `90s`), or both.
    Without `overwrite` a job of that name is a `Conflict`."""
    policy: wit.FailurePolicy | None = None
    if failure_policy == "drop":
        policy = wit.FailurePolicy_Drop()
    elif isinstance(failure_policy, Retries):
        policy = wit.FailurePolicy_Constant(wit.Retries(failure_policy.interval_ms, failure_policy.max_retries))
    text = None if data is None else json.dumps(data)
    call(wit.schedule, wit.Job(name, schedule, due_time, repeats, ttl, text, policy), overwrite)


def get_job(name: str) -> Job:
    """The job of that name, or `NotFound`."""
    job = call(wit.get, name)
    data = None if job.data is None else json.loads(job.data)
    return Job(job.name, job.schedule, job.due_time, job.repeats, job.ttl, data)


def delete_job(name: str) -> None:
    """Forgets a job; one that does not exist is no error."""
    call(wit.delete, name)
