"""A FastAPI app that can be drained: python app.py, then curl localhost:9808/drain."""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from graceful_drain import Drain

app = FastAPI()
drain = Drain(linger=float(os.environ.get("LINGER_SECONDS", "3")))


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/echo")
async def echo(body: dict):
    return body


@app.post("/tasks")
async def submit(seconds: float = 10.0):
    drain.spawn(asyncio.sleep(seconds))  # counted before the request is counted out
    return {"message": "queued"}


@app.get("/stream")
async def stream():
    async def pieces():
        for n in range(10):
            yield f"{n}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(pieces())


@app.get("/fail")
async def fail():
    raise RuntimeError("as it was asked to")


@app.websocket("/ws")
async def watch(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    ports = {name: int(os.environ.get(name.upper(), default)) for name, default in [("port", 8000), ("admin_port", 9808)]}
    asyncio.run(drain.serve(app, **ports, access_log=False))
