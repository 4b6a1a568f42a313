"""Processes of Python that have Keras from the beginning: its import takes seconds each time.

They are real ones, which end, are killed and get signals as others do, but are forked from one
process that has done nothing else. Where the import itself is tested, use `subprocess`.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["keras_fcn.training", "keras_fcn.inference"])


class Forked:
    """`subprocess.Popen([sys.executable, *arguments])`, whose output is text in two files."""

    def __init__(self, arguments, cwd=".", env=None):
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        for file in self._files:
            file.touch()
        environment = dict(os.environ if env is None else env)
        call = (list(map(str, arguments)), str(Path(cwd).resolve()), environment, self._files)
        self._process = FORKS.Process(target=_run, args=call)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("python", timeout)
        return self.returncode

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):  # it has ended, as for `Popen`
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()

    def lines(self):
        """Yield the lines that it prints, as they come, until it ends."""
        with self._files[0].open() as file:
            while True:
                ended = self.returncode is not None
                yield from file.read().splitlines()
                if ended:
                    return
                time.sleep(0.02)

    def communicate(self, timeout=None):
        """Wait for the end; return what it printed on standard output and standard error."""
        self.wait(timeout)
        return tuple(file.read_text() for file in self._files)


def run(arguments, check=False, **options):
    """As `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`."""
    process = Forked(arguments, **options)
    output, errors = process.communicate()
    assert not check or process.returncode == 0, errors
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def _run(arguments, folder, environment, files):
    """Do in the new process what `python` does with these arguments."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method(None, force=True)  # for processes of its own
    tempfile.tempdir = None  # as $TMPDIR says
    first, *rest = arguments
    try:
        if first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(first).parent))
            runpy.run_path(first, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
