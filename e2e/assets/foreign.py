"""A task server that knows nothing of Graceful: Python's own HTTP server, a counter, and a plain SIGTERM handler.

POST /v1/create-task/ takes a task, GET /stats says {"queue": {"length": n}}, GET /healthz is ok. On SIGTERM it stops
listening, finishes what it has, and exits: what a decent application does by itself.
"""

import json
import os
import signal
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS = float(os.environ["TASK_SECONDS"])
WEBHOOK = os.environ["WEBHOOK"]
POD_UID = os.environ["POD_UID"]
BOOT = str(uuid.uuid4())

changed = threading.Condition()
unfinished = 0


def count(step):
    global unfinished
    with changed:
        unfinished += step
        changed.notify_all()


def work(task_id):
    time.sleep(SECONDS)
    told = {"taskId": task_id, "podUid": POD_UID, "bootId": BOOT, "outcome": "processed"}
    request = urllib.request.Request(
        WEBHOOK, json.dumps(told).encode(), {"Content-Type": "application/json"}
    )
    for _ in range(20):
        try:
            urllib.request.urlopen(request, timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    count(-1)


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        task_id = str(uuid.uuid4())
        count(+1)
        threading.Thread(target=work, args=(task_id,)).start()
        self.answer(200, {"task_id": task_id})

    def do_GET(self):
        if self.path == "/stats":
            with changed:
                self.answer(200, {"queue": {"length": unfinished}})
        else:
            self.answer(200, {"status": "ok"})

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Answers that have begun are waited for.
    daemon_threads = False
    request_queue_size = 128


server = Server(("", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
server.server_close()
with changed:
    changed.wait_for(lambda: unfinished == 0)
