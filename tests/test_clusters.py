"""Predictions by several processes of Ray: the same files, whatever happens to the processes."""

import contextlib
import csv
import filecmp
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image
from test_addresses import PHOTOS, contents, put

from keras_fcn import predict_folder
from keras_fcn.commands import main
from keras_fcn.inference import clusters

COUNT = 12


@pytest.fixture
def photos(tmp_path, rng):
    for number in range(COUNT):
        path = tmp_path / "photos" / ("deep" if number % 3 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30 + number, 40, 3), "uint8")).save(path)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    return tmp_path / "photos"


def same(one, other):
    """Assert that two folders hold the same files, byte for byte."""
    names = [
        sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
        for place in (one, other)
    ]
    assert names[0] == names[1]
    assert not any(filecmp.cmpfiles(one, other, names[0], shallow=False)[1:])


def workers():
    """Return the processes that have loaded the model."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "MapWorker" in child.name()]


def kill_one(output, killed):
    """Kill a process as soon as something is done."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not killed:
        time.sleep(0.02)
        if any(output.glob("**/*.png")) and (found := workers()):  # the other may start late
            found[0].kill()
            killed.append(found[0].pid)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_two_processes_of_which_one_is_killed(
    model,
    photos,
    tmp_path,
    bucket,
    monkeypatch,
):
    import ray

    alone = predict_folder(model, photos, tmp_path / "alone", objects=True)
    output, killed = tmp_path / "many", []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
    handler = signal.getsignal(signal.SIGTERM)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
    try:
        watch = threading.Thread(target=kill_one, args=(output, killed))
        watch.start()
        result = predict_folder(model, photos, output, objects=True, ray=True, workers=2)
        watch.join()
        assert killed
        same(tmp_path / "alone", output)
        assert len(result.done) == COUNT
        assert list(result.failed) == [str(photos / "bad.png")]
        # at an address
        put(photos, PHOTOS)
        predict_folder(model, PHOTOS, "s3://box/out", objects=True, ray=True, workers=1)
        names = (str(photos), PHOTOS)
        assert contents("s3://box/out", names) == contents(tmp_path / "alone", names)
        assert len(alone.done) == COUNT
    finally:
        ray.shutdown()


class OneProcess:
    """Ray, as far as it is asked here, whose only process dies of certain images."""

    def __init__(self, pipelines, deadly):
        self.pipelines, self.deadly, self.groups = pipelines, deadly, []

    def put(self, data):
        return data

    def cluster_resources(self):
        return {"CPU": 2.0}

    def work(self, _ray, groups, _make, _count, _share):
        for group in groups:
            self.groups.append(len(group))
            outcome = clusters.Outcome()
            images = [Path(job.image).name for batch in group for job in batch]
            if not self.deadly.intersection(images):
                outcome.done, outcome.failed = self.pipelines[0].run(group, outcome)
            yield outcome


@pytest.fixture
def one_process(monkeypatch):
    fake = OneProcess([], set())
    run = clusters.run
    monkeypatch.setattr(
        clusters, "run", lambda pipeline, *a: fake.pipelines.append(pipeline) or run(pipeline, *a)
    )
    monkeypatch.setattr(clusters, "_connected", lambda *_: contextlib.nullcontext(fake))
    monkeypatch.setattr(clusters, "_quiet", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(clusters, "_work", fake.work)
    return fake


def test_images_that_go_together_stay_together(model, tmp_path, rng, one_process):
    for number in range(20):
        path = tmp_path / "tiles" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 31, 3), "uint8")).save(path)
    formats = ["labels", "probabilities"]
    predict_folder(model, tmp_path / "tiles", tmp_path / "alone", output_format=formats)
    predict_folder(model, tmp_path / "tiles", tmp_path / "many", output_format=formats, ray=True)
    assert one_process.groups == [1, 1]  # of 16 and of 4
    same(tmp_path / "alone", tmp_path / "many")


def test_an_image_that_processes_die_of_is_set_aside(model, photos, tmp_path, one_process):
    one_process.deadly = {"7.png"}
    result = predict_folder(model, photos, tmp_path / "out", ray=True)
    assert list(result.failed) == [str(photos / "bad.png"), str(photos / "deep" / "7.png")]
    assert "4 processes died" in result.failed[str(photos / "deep" / "7.png")]
    assert len(result.done) == COUNT - 1
    assert one_process.groups == [3, 3, 3, 3, 1, 1, 1, 1]
    with (tmp_path / "out" / "errors.csv").open() as file:
        assert [Path(line[0]).name for line in csv.reader(file)] == ["file", "bad.png", "7.png"]
    one_process.deadly = set()
    assert list(predict_folder(model, photos, tmp_path / "out", ray=True).done) == [
        str(photos / "deep" / "7.png")
    ]


def test_where_all_processes_die_the_run_ends(model, photos, tmp_path, one_process, monkeypatch):
    monkeypatch.setattr(clusters, "LOST", 2)
    one_process.deadly = {path.name for path in photos.rglob("*.png")}
    with pytest.raises(ChildProcessError, match=r"3 groups with which 4.*Pass fewer `workers`"):
        predict_folder(model, photos, tmp_path / "out", ray=True)
    one_process.deadly = set()
    assert len(predict_folder(model, photos, tmp_path / "out", ray=True).done) == COUNT


def test_ray_is_missing(model, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(
        ImportError, match=r"needs the package ray.*`pip install 'keras-fcn\[ray\]'`"
    ):
        predict_folder(model, photos, tmp_path / "out", ray=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "photos.png"], "If it is an image, put it before"),
        (["--ray", "--workers", "0"], "`--workers` should be at least 1. Received: 0"),
        (["--ray", "--output", "memory://out"], "memory of this one. Leave `--ray` out."),
        (["--ray", "auto:x"], "HOST:PORT"),
        (["--workers", "2"], "`--workers` is for `--ray`. Received: `--workers 2` alone."),
    ],
)
@pytest.mark.filterwarnings("default")
def test_what_can_t_be_is_told_before_anything_is_started(
    options, message, model, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    model.save("m.keras")
    assert main(["predict", "photos", "--weights", "m.keras", *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(Path("predictions").glob("*.png"))


@pytest.mark.filterwarnings("default")
def test_a_cluster_that_nobody_answers(model, photos, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"should answer.*Received: '{address}'"):
        predict_folder(model, photos, tmp_path / "out", ray=address)
    assert time.monotonic() - start < 10
    assert not (tmp_path / "out" / ".lock").exists()
