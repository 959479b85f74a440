"""The seed's stack, to measure ours against: FastAPI on uvicorn, SQLAlchemy on a SQLite file, a commit per task.

Written from what the seed's API does; its source was not used. How it writes a submit does not follow from that, and much
hangs on it, so both ways are here and both are measured:
- SUBMIT=plain (`seed`): as FastAPI's tutorial has it, a plain function with a session from Depends, a commit and a
  refresh. FastAPI runs it on 40 threads, whose writers then wait for each other at SQLite's lock.
- SUBMIT=coroutine (`seed_coroutine`): the fastest we found. A coroutine commits in place, so that nobody waits for the
  lock; the session lives for the one statement; nothing is read back.
For both: one worker, uvloop and httptools, no access log; the task itself is a coroutine that sleeps. SQLite is as
SQLAlchemy opens it: rollback journal, synchronous=FULL. That is durable, as ours is.
"""

import asyncio
import os
import uuid
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from sqlalchemy import String, create_engine, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

TASK_SECONDS = float(os.environ.get("TASK_SECONDS", "20"))
QUEUED, PROCESSED = "queued", "processed"

engine = create_engine(f"sqlite:///{os.environ['DATABASE']}")
sockets: dict[WebSocket, str] = {}
# asyncio keeps only weak references to its tasks.
running: set[asyncio.Task] = set()


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    status: Mapped[str] = mapped_column(String(16), index=True)


Base.metadata.create_all(engine)
loop: asyncio.AbstractEventLoop


@asynccontextmanager
async def lifespan(_: FastAPI):
    global loop
    loop = asyncio.get_running_loop()
    yield


app = FastAPI(lifespan=lifespan)


def session_of_request():
    with Session(engine) as session:
        yield session


def finish(task_id: str) -> None:
    with Session(engine) as session:
        session.execute(update(Task).where(Task.id == task_id).values(status=PROCESSED))
        session.commit()


async def process(task_id: str) -> None:
    await asyncio.sleep(TASK_SECONDS)
    # Not in place: the loop would wait for a connection that only the loop gives back.
    await asyncio.to_thread(finish, task_id)
    for socket, client_id in list(sockets.items()):
        await socket.send_text(f"Client id {client_id} Message: {task_id} Task {task_id} processed")


def start(task_id: str) -> None:
    task = asyncio.create_task(process(task_id))
    running.add(task)
    task.add_done_callback(running.discard)


def create_task(session: Session = Depends(session_of_request)):
    task = Task(id=str(uuid.uuid4()), status=QUEUED)
    session.add(task)
    session.commit()
    session.refresh(task)
    loop.call_soon_threadsafe(start, task.id)
    return {"message": f"Task {task.id} Queued"}


async def create_task_in_place():
    task_id = str(uuid.uuid4())
    with Session(engine) as session:
        session.add(Task(id=task_id, status=QUEUED))
        session.commit()
    start(task_id)
    return {"message": f"Task {task_id} Queued"}


submits = {"plain": create_task, "coroutine": create_task_in_place}
app.post("/v1/create-task/")(submits[os.environ.get("SUBMIT", "plain")])


@app.get("/v1/tasks/{task_id}")
def read_task(task_id: str, session: Session = Depends(session_of_request)):
    task = session.get(Task, task_id)
    if task is None:
        raise HTTPException(404, "Task not found")
    return {"task_id": task_id, "message": f"Task {task_id} {task.status}"}


@app.get("/v1/get_queue_length/")
def queue_length(session: Session = Depends(session_of_request)):
    waiting = select(func.count()).select_from(Task).where(Task.status == QUEUED)
    return {"task_lenth": session.scalar(waiting)}


@app.get("/v1/health")
async def health():
    return {"status": "ok"}


@app.websocket("/ws/{client_id}")
async def watch(socket: WebSocket, client_id: str):
    await socket.accept()
    sockets[socket] = client_id
    try:
        await socket.send_text("Not running inside Kubernetes")
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        del sockets[socket]
