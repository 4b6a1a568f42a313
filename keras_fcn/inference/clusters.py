"""Predictions of many images by many processes, on one machine or several: what needs Ray.

Ray Data hands groups of images to processes that have loaded the model, and hands what a process
that died was at to another. Which images are missing, and the tables, are the caller's.
"""

import collections
import contextlib
import functools
import os
import pickle
import re
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path

import keras

from keras_fcn.atomic import temporary_folder
from keras_fcn.inference.addresses import place_of
from keras_fcn.inference.batches import wanted
from keras_fcn.inference.outputs import open_output
from keras_fcn.inference.pipeline import Pipeline
from keras_fcn.inference.progress import track
from keras_fcn.inference.results import Results
from keras_fcn.remedies import choose, on_the_command_line, spell

GROUP = 16  # batches, mostly of one image, that a process is handed at once
SPREAD = 4  # groups for each process at least, where there are so many images
TRIES = 4  # of a group whose process dies; then of each of its images alone
LOST = 20  # groups, or images, of which all tries failed; of more the fault is elsewhere
CORES = 2  # of a process, where there are no GPUs
PATIENCE = 5  # seconds for a cluster to answer
MEMORY = 2**28  # bytes that Ray keeps for what goes between processes, beside the model
AUTO = "auto"


def run(
    pipeline: Pipeline, batches: list, book, address: bool | str, workers: int | None
) -> tuple[dict, dict]:
    """Predict the images of jobs in several processes.

    Args:
        pipeline: `keras_fcn.inference.pipeline.Pipeline` of this process.
        batches: lists of jobs, of `keras_fcn.inference.batches.batches_of`.
        book: what is told by `add` and `fail` of each, as a `Ledger`.
        address: "HOST:PORT" or "auto" of a cluster of Ray; True for this machine, unless Ray runs
            in this process already.
        workers: how many processes; by default one for each GPU, or for `CORES` cores.

    Returns:
        As `Pipeline.run`.

    Raises:
        ImportError: when Ray is missing.
        ConnectionError: when no cluster answers, or it is lost.
        ValueError: for another address or number.
    """
    jobs = wanted(batches)
    _check(pipeline, jobs, address, workers)
    if not jobs:
        return {}, {}
    data = _to_bytes(pipeline.model)
    progress = track(iter(int, None), "Predicting", len(jobs))
    with _connected(address, len(data)) as ray, _quiet(ray), contextlib.closing(progress):
        reference = ray.put(data)  # held here, or a process that begins anew would not find it
        make: dict = {"model": [reference], "output": str(pipeline.output.place)}
        make |= {"settings": pipeline.settings, "shell": choose(False, True)}
        make["here"] = str(Path.cwd())
        count, share = _share(ray, workers, len(batches))
        done: dict = {}
        failed: dict = {}
        left, lost = batches, 0
        for most in (GROUP, 1):  # what processes died with is tried again, each image alone
            size = max(1, min(most, len(left) // (SPREAD * count)))
            groups = [left[start : start + size] for start in range(0, len(left), size)]
            for outcome in _work(ray, groups, make, count, share):
                _record(outcome, book, done, failed, progress)
                pipeline.output.sync(now=False)
                lost += not (outcome.done or outcome.failed)
                if lost > LOST:
                    raise ChildProcessError(_deadly("Images should", f"{lost} groups"))
            seen = done.keys() | failed.keys()
            left = [[job] for job in wanted(left) if str(job.image) not in seen]
            if not left:
                break
    for job in wanted(left):
        failed[str(job.image)] = _deadly("An image should", "one")
        book.fail(str(job.image), failed[str(job.image)])
    return done, failed


def _deadly(rule, what):
    return (
        f"{rule} leave the process alive. Received: {what} with which {TRIES} processes died, as "
        f"they do without enough memory. Pass fewer {spell('workers')}, or "
        f"{spell('tile_size', 512)}."
    )


class Tries:
    """How often each group was begun, counted apart from the processes, which may die."""

    def __init__(self):
        self.counts = collections.Counter()

    def begin(self, number: int) -> int:
        """Count a group, and return how often it was."""
        self.counts[number] += 1
        return self.counts[number]


class Worker:
    """A process that has loaded the model, and predicts groups of images.

    Args:
        model: reference of Ray to the bytes of the model's file, in a list.
        output: place of the predictions.
        settings: of the pipeline.
        here: the caller's working directory, in which paths may be.
        shell: whether errors are for the command line.
    """

    def __init__(self, **make):
        self.make = make

    @functools.cached_property
    def pipeline(self):
        """What predicts, made for the first group, so that what fails is told as of a group."""
        import ray

        make = self.make
        with contextlib.suppress(OSError):  # not on this machine
            os.chdir(make["here"])
        self.stack = contextlib.ExitStack()
        if make["shell"]:
            self.stack.enter_context(on_the_command_line())
        model = _from_bytes(ray.get(make["model"][0]))
        place = self.stack.enter_context(open_output(place_of(make["output"])))
        settings = make["settings"]
        results = Results(model, place.folder, settings.formats, settings.gray)
        return Pipeline(model, results, place, settings)

    def __call__(self, row: dict) -> dict:
        """Predict a group, and return what came of it; both as bytes, which Ray leaves alone."""
        import ray

        outcome = Outcome()
        if ray.get(self.make["tries"].begin.remote(row["number"])) > TRIES:
            return {"outcome": pickle.dumps(outcome)}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default", UserWarning)
            try:
                outcome.done, outcome.failed = self.pipeline.run(
                    pickle.loads(row["batches"]), outcome
                )
            except Exception as error:  # what ends the whole run
                outcome.error = _portable(error)
        outcome.warnings = [
            str(entry.message) for entry in told if issubclass(entry.category, UserWarning)
        ]
        return {"outcome": pickle.dumps(outcome)}


def _portable(error):
    """Return an error that arrives elsewhere as it is: of some there is only the text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


class Outcome:
    """What came of a group: what is to be told to the caller's ledger, and said."""

    def __init__(self):
        self.added, self.failures = [], []
        self.done, self.failed = {}, {}
        self.error, self.warnings = None, []

    def add(self, *line):
        """Keep what `Ledger.add` will be told."""
        self.added.append(line)

    def fail(self, *line):
        """Keep what `Ledger.fail` will be told."""
        self.failures.append(line)


def _check(pipeline, jobs, address, workers):
    """Raise for what can't be, before anything is started."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{spell('ray')} needs the package {error.name or 'ray'}. Install it by "
            "`pip install 'keras-fcn[ray]'`."
        ) from error
    if workers is not None and workers < 1:
        raise ValueError(
            f"{spell('workers')} should be at least 1. Received: {workers}. Leave it out for as "
            "many as the machines have room for."
        )
    places = [str(pipeline.output.place), *(str(job.image) for job in jobs)]
    own = next((place for place in places if place.startswith("memory://")), None)
    if own is not None:
        raise ValueError(
            "All processes should see the images and the predictions. Received: "
            f"'{own}', which is in the memory of this one. Leave {spell('ray')} out."
        )
    if address is not True and address != AUTO and not re.fullmatch(r"(ray://)?.+:\d+", address):
        raise ValueError(
            f"{spell('ray')} takes HOST:PORT of a cluster, as `ray start` prints it, or auto. "
            f"Received: {address!r}."
            + choose(
                f" Pass {spell('ray', True)} for this machine.",
                " If it is an image, put it before; `--ray` alone is for this machine.",
            )
        )


@contextlib.contextmanager
def _connected(address, size):
    """Yield Ray, started on this machine or connected to a cluster."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of each run
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    here = os.environ.get("RAY_ADDRESS") if address is True else address
    options = {"logging_level": "ERROR", "log_to_driver": False}
    if here in (None, "local"):
        options |= {"address": "local", "include_dashboard": False}
        options |= {"object_store_memory": MEMORY + 2 * size}
    else:
        _reach(here)
        backend = {"KERAS_BACKEND": keras.backend.backend()}
        options |= {"address": here, "runtime_env": {"env_vars": backend}}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with _hushed():
            ray.init(**options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(here, error) from error
    try:
        yield ray
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise ConnectionError(
            f"The cluster of Ray should stay while images are predicted. Received: {first} Run "
            "the same command again; what is done is kept."
        ) from error
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _hushed():
    """Drop what Ray's core, which heeds no level, writes to standard error at its start."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _reach(address):
    """Raise unless something answers at the address: Ray itself would try for a minute."""
    if address == AUTO:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address, error):
    first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ConnectionError(
        "A cluster of Ray should answer, with this machine in it. Received: "
        f"{'no start of one here' if address is None else repr(address)}: {first}. See `ray "
        "status`; on another machine, join by `ray start --address HOST:PORT` first; to a cluster "
        "with a token, which `ray get-auth-token` shows there, connect with RAY_AUTH_MODE=token "
        "in the environment."
    )


@contextlib.contextmanager
def _quiet(ray):
    """Let Ray Data say nothing of its own progress."""
    import logging

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    loggers = [logging.getLogger(name) for name in ("ray.data", "ray")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _share(ray, workers, most):
    """Return how many processes there shall be, and what of the machines each is given."""
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    count = min(workers or gpus or max(1, cores // CORES), most)
    share = {"num_gpus": min(1, gpus / count)} if gpus else {"num_cpus": min(1, cores / count)}
    return count, share


def _work(ray, groups, make, count, share):
    """Yield what comes of each group, in the order in which they are done."""
    tries = ray.remote(num_cpus=0)(Tries).remote()
    rows = [{"number": n, "batches": pickle.dumps(group)} for n, group in enumerate(groups)]
    outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_kwargs=make | {"tries": tries},
        compute=ray.data.ActorPoolStrategy(size=count),
        **share,
    )
    for row in outcomes.iter_rows():
        yield pickle.loads(row["outcome"])


def _record(outcome, book, done, failed, progress):
    """Tell the ledger of a group; raise what ends the run."""
    for line in outcome.added:
        book.add(*line)
        next(progress)
    for line in outcome.failures:
        book.fail(*line)
        next(progress)
    done.update(outcome.done)
    failed.update(outcome.failed)
    for text in outcome.warnings:
        warnings.warn(text, stacklevel=2)
    if outcome.error is not None:
        raise outcome.error


def _to_bytes(model):
    with temporary_folder() as folder:
        path = folder / "model.keras"
        model.save(path)
        return path.read_bytes()


def _from_bytes(data):
    with temporary_folder() as folder:
        path = folder / "model.keras"
        path.write_bytes(data)
        return keras.saving.load_model(path, compile=False)
