"""Processes to be killed, forked from one that has imported what they need."""

import faulthandler
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

STUCK = 3600  # seconds after which a child is taken for one that hangs


class Child:
    """A forked process whose lines can be read while it lives.

    JAX and torch start threads when they first compute, which must not have happened in
    this process: a forked child would wait for them for ever.
    """

    def __init__(self, work: Callable[..., Any], *args: Any, tmpdir: str | None = None):
        read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.close(read)
            _be_child(write, work, args, tmpdir)
        os.close(write)
        self._lines = os.fdopen(read, errors="replace")

    def line(self) -> str:
        """The next line; empty when it has ended."""
        return self._lines.readline().strip()

    def wait_for(self, prefix: str) -> list[str]:
        """Lines up to the first that begins so, or all if none does."""
        lines = []
        while line := self.line():
            lines.append(line)
            if line.startswith(prefix):
                break
        return lines

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> tuple[int, list[str]]:
        """`(exit code, lines not read yet)`; minus the signal if one killed it.

        A last line without an end is left out: it was cut short.
        """
        rest = self._lines.read().splitlines(keepends=True)
        self._lines.close()
        _, status = os.waitpid(self.pid, 0)
        lines = [line.strip() for line in rest if line.endswith("\n")]
        return os.waitstatus_to_exitcode(status), lines

    def kill(self, seconds: float) -> list[str]:
        """Kills it after a while; all the lines it had to say."""
        time.sleep(seconds)
        self.send(signal.SIGKILL)
        return self.end()[1]


def _be_child(out, work, args, tmpdir):
    code = 1
    try:
        os.dup2(out, 1)
        # A child that hangs prints its stacks and ends.
        faulthandler.dump_traceback_later(STUCK, exit=True, file=os.dup(2))
        if "FAULTS_VERBOSE" not in os.environ:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        if tmpdir is not None:
            os.environ["TMPDIR"], tempfile.tempdir = tmpdir, None
        work(*args)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
