"""A Celery application such as anybody writes; the broker and the results' folder come from the environment."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

LOCK_SECONDS = 5
"""The shortest lock that a queue may have."""

app = Celery("celery_tasks")
app.conf.update(
    broker_url=os.environ["CELERY_BROKER"],
    result_backend=f"file://{os.environ['CELERY_RESULTS']}",
    broker_transport_options={
        # The client opens its link within this time: with much less it never receives anything.
        "wait_time_seconds": 1,
        "polling_interval": 0.05,
        "peek_lock_seconds": LOCK_SECONDS,
        "use_lock_renewal": "CELERY_RENEWS" in os.environ,
    },
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    task_routes={"celery_tasks.mail": {"queue": "mail"}, "celery_tasks.report": {"queue": "reports.daily"}},
)


@app.task
def add(left, right):
    return left + right


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def size(text):
    return len(text)


@app.task
def broken():
    raise LookupError("nothing there")


@app.task
def moment():
    return time.time()


@app.task(bind=True)
def mail(self):
    return self.request.hostname, self.request.delivery_info["routing_key"]


@app.task(bind=True)
def report(self):
    return self.request.hostname, self.request.delivery_info["routing_key"]


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    """Fails that often, then returns how often it was tried again."""
    if self.request.retries < failures:
        raise self.retry(countdown=0.2, exc=ConnectionError("not yet"))
    return self.request.retries


@app.task(bind=True)
def lengthy(self, diary, seconds):
    """Writes a line for each start into `diary`; only the first one takes `seconds`."""
    with open(diary, "a") as file:
        file.write(f"{self.request.id} {time.time()}\n")
    if len(Path(diary).read_text().splitlines()) == 1:
        time.sleep(seconds)
    return "done"
