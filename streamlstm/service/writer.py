"""Writes snapshots on a thread of its own, so that the loop does not wait for a disk or a broker."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from streamlstm.errors import StreamlstmError

log = logging.getLogger(__name__)
Job = Callable[[], None]


class Writer:
    """Does jobs one after another in the order given. A job that fails is told to whom it belongs, and logged."""

    def __init__(self) -> None:
        self.snapshots = 0
        """Completed so far, of all partitions."""
        self._jobs: queue.SimpleQueue[tuple[Job, Callable[[], None], int] | None] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._pending = 0
        self._bytes = 0
        self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the jobs that are not done."""
        return self._bytes

    def submit(self, job: Job, failed: Callable[[], None], size: int = 0) -> None:
        """Queues a job that holds `size` bytes; `failed` is called on the writer's thread after an error of it."""
        with self._lock:
            self._pending += 1
            self._bytes += size
        self._jobs.put((job, failed, size))

    def drain(self, timeout_s: float) -> bool:
        """Waits until all jobs are done; False where the time is over before."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while self._pending:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._lock.wait(left)
        return True

    def close(self, timeout_s: float) -> bool:
        """Ends the thread after the jobs that it has; False where they take longer."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, failed, size = entry
            try:
                job()
            except StreamlstmError as error:
                log.error("snapshot: %s; the one before stays valid, the next is tried in time", error)
                failed()
            except Exception:
                log.exception("snapshot: unexpected error; the one before stays valid, the next is tried in time")
                failed()
            finally:
                with self._lock:
                    self._pending -= 1
                    self._bytes -= size
                    self._lock.notify_all()
