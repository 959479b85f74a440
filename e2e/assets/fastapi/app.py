"""The seed's kind of app: FastAPI on uvicorn, with WebSockets and background tasks. It knows nothing of Graceful, nor of a gate.

POST /v1/create-task/ takes a task, GET /v1/get_queue_length/ says {"task_lenth": n} (the seed's spelling), WS /ws/{client_id} hears of each task that ends.
What is done is told to a webhook, as an app of this kind does.
"""

import asyncio
import json
import os
import time
import urllib.request
import uuid

from fastapi import BackgroundTasks, FastAPI, WebSocket, WebSocketDisconnect

SECONDS = float(os.environ["TASK_SECONDS"])
WEBHOOK = os.environ["WEBHOOK"]
POD_UID = os.environ["POD_UID"]
GREETING = f"POD Name Space: {os.environ['POD_NAMESPACE']} POD Name: {os.environ['POD_NAME']}"
BOOT = str(uuid.uuid4())

app = FastAPI()
sockets: dict[WebSocket, str] = {}
unfinished = 0


def tell(task_id: str) -> None:
    told = {"taskId": task_id, "podUid": POD_UID, "bootId": BOOT, "outcome": "processed"}
    request = urllib.request.Request(WEBHOOK, json.dumps(told).encode(), {"Content-Type": "application/json"})
    for _ in range(20):
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)


async def process(task_id: str) -> None:
    global unfinished
    try:
        await asyncio.sleep(SECONDS)
        await asyncio.to_thread(tell, task_id)
        for socket, client_id in list(sockets.items()):
            try:
                await socket.send_text(f"Client id {client_id} Message: {task_id} Task {task_id} processed")
            except RuntimeError:
                sockets.pop(socket, None)
    finally:
        unfinished -= 1


@app.post("/v1/create-task/")
async def create_task(background: BackgroundTasks):
    global unfinished
    task_id = str(uuid.uuid4())
    unfinished += 1
    background.add_task(process, task_id)
    return {"message": f"Task {task_id} Queued", "task_id": task_id}


@app.get("/v1/get_queue_length/")
async def get_queue_length():
    return {"task_lenth": unfinished}


@app.get("/v1/health")
async def health():
    return {"status": "ok"}


@app.websocket("/ws/{client_id}")
async def websocket(socket: WebSocket, client_id: str):
    await socket.accept()
    await socket.send_text(GREETING)
    sockets[socket] = client_id
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        sockets.pop(socket, None)
