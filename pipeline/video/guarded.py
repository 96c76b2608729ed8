"""The other end of the guard: a process that runs one function after another until its parent is gone.

    socket ──▶ (function, args) ──▶ function(*args) ──▶ its value, or the error it raised ──▶ socket
                                          └── an error without a name ──▶ Surprise ──────────┘

Started by `guard.py` as `python -m`. It ignores signals that a batch system sends to every process of a job: whether to
stop is the parent's decision, and a video must not be marked as bad because a job was ended.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import resource
import signal
import sys
import threading
from multiprocessing.connection import Connection

from vidxfer.pipeline.errors import VidxferError
from vidxfer.pipeline.video.surprise import Surprise

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def work(fd: int, address_bytes: int) -> None:
    """Say hello, then answer every message.

    Args:
        fd: of our end of the socket.
        address_bytes: of virtual memory that may be had; beyond it an allocation fails.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # an outer limit that is lower stands
        resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
    pipe = Connection(fd)
    pipe.send_bytes(b"ready")
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, messages), daemon=True).start()
    while True:
        _answer(messages.get(), pipe)


def _receive(pipe: Connection, messages: queue.SimpleQueue[bytes]) -> None:
    """Take messages while the main thread works: even a child that hangs notices that its parent has gone."""
    while True:
        try:
            messages.put(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


def _answer(message: bytes, pipe: Connection) -> None:
    try:
        function, args, kwargs = pickle.loads(message)
        answer = pickle.dumps(function(*args, **kwargs), protocol=5)
    except VidxferError as error:
        answer = _as_sent(error)
    except MemoryError as error:
        answer = _as_sent(MemoryError(str(error)))
    except Exception as error:  # noqa: BLE001  the one place: whatever a stranger's file brings about ends here
        answer = pickle.dumps(Surprise.of(error), protocol=5)
    except BaseException as error:  # the parent raises it, and starts another child
        pipe.send_bytes(_as_sent(error))
        raise
    pipe.send_bytes(answer)


def _as_sent(error: BaseException) -> bytes:
    answer = pickle.dumps(error, protocol=5)
    pickle.loads(answer)  # an error that cannot be read back must fail here, not in the parent
    return answer


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]))
