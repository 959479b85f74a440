#!/usr/bin/env python3
"""Takes the calls of Graceful's tasks of kind `http`: checks the signature, and does the work of each task once.

GRACEFUL_HTTP_KEY=<the server's> python3 http-handler.py [port] [file]
"""
import hashlib, hmac, os, sqlite3, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEYS = [key.strip().encode() for key in os.environ["GRACEFUL_HTTP_KEY"].split(",")]
LOCK, DB = threading.Lock(), sqlite3.connect(sys.argv[2] if len(sys.argv) > 2 else "orders.db", check_same_thread=False)
DB.executescript("CREATE TABLE IF NOT EXISTS orders (what BLOB); CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, answer TEXT)")


def is_ours(headers, body):
    task, attempt, at = (headers.get("graceful-" + name, "") for name in ("task-id", "attempt", "time"))
    said = headers.get("graceful-signature", "").split(",")
    right = ["v1=" + hmac.new(key, f"v1:{task}:{attempt}:{at}:".encode() + body, hashlib.sha256).hexdigest() for key in KEYS]
    fresh = at.isdigit() and abs(time.time() - int(at)) < 300
    return fresh and any(hmac.compare_digest(one.encode(), other.encode()) for one in said for other in right)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not is_ours(self.headers, body):
            return self.answer(401, "the signature is wrong, or older than five minutes")
        key = self.headers["graceful-task-id"]  # signed, and the same in each attempt
        with LOCK, DB:  # one transaction: the work, and the note that it is done
            row = DB.execute("SELECT answer FROM done WHERE key = ?", (key,)).fetchone()
            if row is None:
                order = DB.execute("INSERT INTO orders VALUES (?)", (body,)).lastrowid
                row = (f"order {order}",)
                DB.execute("INSERT INTO done VALUES (?, ?)", (key, *row))
        self.answer(200, row[0])

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Handler)
print(server.server_port, flush=True)
server.serve_forever()
