"""The drain protocol (docs/protocol.md) for any ASGI app under uvicorn, one process a pod. Copy this file.

    drain = Drain()
    app = FastAPI()
    asyncio.run(drain.serve(app, port=8000, admin_port=9808))

A request is in flight until the app has returned from it, so background tasks of Starlette's are in it. Work that outlives its request is begun with
`drain.spawn(coroutine)`. All of this runs on the event loop: nothing comes between a look at the latch and the count. Work that blocks the loop starves
/drain too: use plain functions (`def`), which FastAPI runs on threads, or `asyncio.to_thread`.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import random
import signal
import time
import uuid

import uvicorn

EPOCHS = range(1, 2**53)
FAREWELL_SPREAD = 1.0  # seconds over which open WebSockets are told, so that their clients do not all come back at once
KEEP_ALIVE_TAIL = 0.5  # seconds before the latch at which idle connections are closed


class Problem(Exception):
    def __init__(self, status, detail, field=None):
        self.status, self.detail, self.field = status, detail, field


class Drain:
    def __init__(self, linger=3.0, open_paths=("/health",)):
        """`open_paths`: reads and health checks, which answer in every state and are not counted."""
        self.linger, self.open_paths = linger, frozenset(open_paths)
        self.boot_id, self.pod_uid = str(uuid.uuid4()), os.environ.get("GRACEFUL_POD_UID", "")
        self.epoch, self.resumed, self.terminating, self.ended = 0, True, False, False
        self.latch_at = None  # the time at which the latch closes or has closed; None: no end is in sight
        self.requests, self.running, self.sockets = {}, {}, {}
        self.changed, self.public, self.keys = asyncio.Event(), None, None
        if os.environ.get("GRACEFUL_DRAIN_KEYS", "").strip():
            from graceful_tokens import Keys  # the file beside this one; it needs PyJWT[crypto]

            self.keys = Keys(os.environ["GRACEFUL_DRAIN_KEYS"])

    # The state, and what moves it.

    @property
    def accepting(self):
        return self.latch_at is None or time.monotonic() < self.latch_at

    @property
    def total(self):
        return len(self.requests) + len(self.running)

    def change(self):
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, wanted):
        while not wanted():
            left = self.latch_at - time.monotonic() if self.latch_at and self.accepting else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), left)

    @contextlib.contextmanager
    def counted(self, kind):
        ticket = object()
        kind[ticket] = time.monotonic()
        self.change()
        try:
            yield
        finally:
            del kind[ticket]
            self.change()

    def spawn(self, coroutine):
        """Begins work that outlives its request; call it before the request is answered. It is in flight until it is done."""

        counting = self.counted(self.running)
        counting.__enter__()
        task = asyncio.create_task(coroutine)
        task.add_done_callback(lambda _: counting.__exit__(None, None, None))
        return task

    def close(self, linger):
        latch_at = time.monotonic() + linger
        if self.latch_at is None:
            self.latch_at = latch_at
        elif self.accepting:  # a newer drain may lengthen a linger, and SIGTERM shorten it
            self.latch_at = min(self.latch_at, latch_at) if self.terminating else max(self.latch_at, latch_at)
        asyncio.get_running_loop().call_later(max(linger - KEEP_ALIVE_TAIL, 0), self.close_idle)
        self.change()

    def close_idle(self):
        for connection in list(self.public.server_state.connections) if self.public and self.latch_at else []:
            if hasattr(connection, "cycle"):  # HTTP; a WebSocket's connection has none. One that is busy ends with its answer.
                connection.shutdown()

    def drain(self, epoch, linger):
        if epoch == self.epoch and not self.resumed:
            return
        if epoch <= self.epoch:
            raise Problem(409, f"epoch {epoch} is at or below {self.epoch}, the highest seen; use a higher one", "epoch")
        self.epoch, self.resumed = epoch, False
        self.close(linger)

    def resume(self, epoch):
        if self.terminating:
            raise Problem(409, "SIGTERM has come, which cannot be undone")
        if epoch == self.epoch and self.resumed:
            return
        if epoch <= self.epoch:
            raise Problem(409, f"epoch {epoch} is at or below {self.epoch}, the highest seen; use a higher one", "epoch")
        self.epoch, self.resumed, self.latch_at = epoch, True, None
        self.change()

    def terminate(self, number):
        if self.terminating:
            if number == signal.SIGTERM and self.pod_uid:
                return  # containerd repeats it after a restart of its own
            os._exit(128 + number)
        self.terminating = True
        self.close(self.linger if number == signal.SIGTERM else 0)

    def status(self):
        requests, running = len(self.requests), len(self.running)
        if self.terminating:
            state = "Terminating"
        elif self.accepting:
            state = "Serving" if self.latch_at is None else "Lingering"
        else:
            state = "Draining" if self.total else "Idle"
        begun = [next(iter(kind.values())) for kind in (self.requests, self.running) if kind]
        body = {
            "protocol": "v1", "podUid": self.pod_uid, "bootId": self.boot_id, "state": state, "accepting": self.accepting,
            "epoch": self.epoch, "inFlight": {"total": self.total, "queued": 0, "running": running, "requests": requests},
            "connections": len(self.sockets), "oldestSeconds": int(time.monotonic() - min(begun)) if begun else 0,
            "resumable": not self.terminating, **({"verifies": True} if self.keys else {}),
        }  # fmt: skip
        return body, f'W/"{self.boot_id}.{state}.{self.accepting}.{self.epoch}.{running}.{requests}"'

    # The app's side.

    def wrap(self, app):
        async def gate(scope, receive, send):
            if scope["type"] == "lifespan" or scope["path"] in self.open_paths:
                await app(scope, receive, send)
            elif not self.accepting:
                await self.refuse(scope, receive, send)
            elif scope["type"] == "websocket":
                self.sockets[send] = None
                try:
                    await app(scope, receive, send)
                finally:
                    del self.sockets[send]
            else:
                with self.counted(self.requests):
                    await app(scope, receive, self.closing(scope, send))

        return gate

    def closing(self, scope, send):
        async def send_closing(message):
            if message["type"] == "http.response.start" and self.latch_at and scope["http_version"] != "2":
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        return send_closing

    async def refuse(self, scope, receive, send):
        kind = "http.response"
        if scope["type"] == "websocket":
            kind = "websocket.http.response"
            await receive()
        headers = [(b"retry-after", b"1"), (b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": f"{kind}.start", "status": 503, "headers": headers})
        await send({"type": f"{kind}.body", "body": b'{"detail":"draining: no new work is accepted"}'})

    # The admin port.

    async def admin(self, scope, receive, send):
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if scope["path"] != "/drain":
                raise Problem(404, "ask for /drain")
            code, extra = await self.verb(scope, headers, receive)
            body, etag = self.status()
            reply = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), (b"etag", etag.encode()), *extra]
            body = b"" if code == 304 else json.dumps(body).encode()
        except Problem as problem:
            code, body = problem.status, {"title": "refused", "status": problem.status, "detail": problem.detail}
            body |= {"field": problem.field} if problem.field else {}
            reply, body = [(b"content-type", b"application/problem+json")], json.dumps(body).encode()
            reply += [(b"www-authenticate", b'Bearer realm="drain"')] if code == 401 else []
        await send({"type": "http.response.start", "status": code, "headers": reply})
        await send({"type": "http.response.body", "body": body})

    async def verb(self, scope, headers, receive):
        if scope["method"] == "GET":
            return await self.show(headers)
        if scope["method"] == "PUT":
            body = json_object(await whole(receive))
            epoch, linger = whole_number(body, "epoch", EPOCHS), whole_number(body, "lingerSeconds", range(3601), self.linger)
            self.allow(scope, headers, "drain", epoch)
            self.drain(epoch, linger)
            return 202, []
        if scope["method"] == "DELETE":
            given = dict(pair.split("=", 1) for pair in scope["query_string"].decode().split("&") if "=" in pair)
            text = given.get("epoch", "")
            epoch = whole_number({"epoch": int(text) if text.isascii() and text.isdigit() else text}, "epoch", EPOCHS)
            self.allow(scope, headers, "resume", epoch)
            self.resume(epoch)
            return 200, []
        raise Problem(405, "GET, PUT or DELETE")

    async def show(self, headers):
        known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
        is_known = lambda: self.status()[1].removeprefix("W/") in known  # noqa: E731
        name, _, wait = headers.get("prefer", "").partition("=")
        if not is_known() or name.strip().lower() != "wait" or not wait.isdigit():
            return 304 if is_known() else 200, []
        wait = min(int(wait), 300)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.until(lambda: self.ended or not is_known()), wait)
        return 304 if is_known() else 200, [(b"preference-applied", b"wait=%d" % wait)]

    def allow(self, scope, headers, action, epoch):
        """Over loopback no token is needed; one that is given is looked at wherever it comes from."""
        peer = ipaddress.ip_address(scope["client"][0])
        local = (getattr(peer, "ipv4_mapped", None) or peer).is_loopback
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if self.keys is None or (local and scheme.lower() != "bearer"):
            return
        claims = {"iss": "graceful-operator", "sub": self.pod_uid, "boot": self.boot_id, "action": action, "epoch": epoch}
        wrong = self.keys.wrong(token.strip(), claims) if scheme.lower() == "bearer" else "token"
        if wrong:
            detail = f"a token of the operator is needed, for this alone (docs/protocol.md); at fault: {wrong}"
            raise Problem(401, detail, wrong if wrong != "token" else None)

    # The process.

    async def serve(self, app, host="0.0.0.0", port=8000, admin_port=9808, **options):
        """Serves until a signal has drained it. `options` are uvicorn's, for the app's port."""
        self.public = Server(uvicorn.Config(self.wrap(app), host=host, port=port, **options))
        # proxy_headers: who asks is the connection's peer, and no header's.
        admin = Server(uvicorn.Config(self.admin, host=host, port=admin_port, lifespan="off", interface="asgi3", proxy_headers=False, log_level="warning"))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.terminate, number)
        serving = [asyncio.create_task(server.serve()) for server in (self.public, admin)]
        drained = asyncio.create_task(self.until(lambda: self.terminating and not self.accepting and not self.total))
        await asyncio.wait([drained, *serving], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*(self.farewell(send) for send in list(self.sockets)), return_exceptions=True)
        self.public.should_exit = True
        await serving[0]
        self.ended, admin.should_exit = True, True
        self.change()
        await serving[1]

    async def farewell(self, send):
        await asyncio.sleep(random.uniform(0, FAREWELL_SPREAD))
        await send({"type": "websocket.close", "code": 1012, "reason": "service restart"})


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield  # they are the drain's


async def whole(receive, limit=4096):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > limit:
            raise Problem(413, f"over {limit} bytes")
    return body


def json_object(text):
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Problem(400, f'the body is not JSON ({error}); send {{"epoch": 7, "lingerSeconds": 3}}') from None
    if not isinstance(body, dict):
        raise Problem(422, 'the body is no JSON object; send {"epoch": 7, "lingerSeconds": 3}')
    return body


def whole_number(body, field, allowed, default=None):
    if field not in body and default is not None:
        return default
    value = body.get(field)
    if type(value) is not int or value not in allowed:
        raise Problem(422, f"{field} must be a whole number from {allowed[0]} to {allowed[-1]}", field)
    return value
