"""A queue worker that knows nothing of Graceful: Celery on Redis, as its users have it.

Each task writes its start and its end to a list in Redis, which is the ledger. The count of what runs is Celery's own, told by HTTP.
"""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import celery
import redis
from celery import signals
from celery.worker import state

BROKER = os.environ["BROKER"]
QUEUE = os.environ["QUEUE"]

ledger = redis.Redis.from_url(BROKER)
app = celery.Celery("worker", broker=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_default_queue=QUEUE,
    worker_prefetch_multiplier=1,
)


@app.task(name="work")
def work(task, seconds):
    ledger.rpush(f"ledger:{QUEUE}", f"start {task}")
    time.sleep(seconds)
    ledger.rpush(f"ledger:{QUEUE}", f"end {task}")


class Count(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"running": len(state.active_requests)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@signals.worker_ready.connect
def count(**_):
    server = ThreadingHTTPServer(("", 8000), Count)
    threading.Thread(target=server.serve_forever, daemon=True).start()
