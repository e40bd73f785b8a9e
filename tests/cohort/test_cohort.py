"""hggdp recon --cluster: the images of one process, the manifest, reruns, and files that cannot be used."""

import gc
import json
import logging
import os

import numpy as np
import pytest

pytest.importorskip("distributed", reason="needs the extra cluster")

import dask_jobqueue
from dask_jobqueue.local import LocalCluster
from dask_processes import FILES, method, same_bits, write_scan
from distributed import Client
from stub_work import StubWork

from hggdp_plugin.apps.recon import main
from hggdp_plugin.cohort import cluster as cohort_cluster
from hggdp_plugin.cohort.manifest import Entry, Manifest
from hggdp_plugin.cohort.progress import CohortProgress
from hggdp_plugin.cohort.run import CohortRun, begin_entry


def manifest(output):
    content = json.loads((output / "cohort.json").read_text())
    return {os.path.basename(entry["file"]): entry for entry in content["files"]}


@pytest.fixture
def recon(scans, cluster, tmp_path):
    def recon(*names, options=()):
        command = [*(str(scans / name) for name in names), "--output-dir", str(tmp_path / "out"), *method(scans)]
        return main([*command, "--cluster", cluster.address, *options])

    return recon


def test_the_images_of_one_process_and_a_rerun_that_does_what_changed(scans, recon, tmp_path, capsys, monkeypatch):
    output = tmp_path / "out"
    (scans / "empty.h5").write_bytes(b"")
    np.save(scans / "table.npy", np.ones(7))
    bad = ["empty.h5", "table.npy", "missing.h5"]
    assert recon(*(f"{name}.npy" for name in FILES), *bad, options=["--self-check"]) == 1
    assert same_bits(scans, output)
    entries = manifest(output)
    assert {name: entry["state"] for name, entry in entries.items()} == {
        **{f"{name}.npy": "done" for name in FILES},
        **dict.fromkeys(bad, "failed"),
    }
    assert "there is no such file" in entries["missing.h5"]["reason"]
    assert all("\n" not in entries[name]["reason"] for name in bad)
    for name in FILES:
        entry = entries[f"{name}.npy"]
        assert len(entry["sha256"]) == 64
        assert entry["seconds"] > 0
        assert entry["slices"] == 2
        assert entry["self_check"]["prediction_error"] > 0
        assert (output / entry["thumbnail"]).stat().st_size > 0
        record = json.loads((output / f"{name}_hggdp.npy.json").read_text())
        assert [estimate["frame"][4] for estimate in record["estimates"]] == [0, 1]
    assert not list(output.glob("*.part"))
    page = (output / "cohort.html").read_text()
    assert page.index("missing.h5") < page.index("a.npy")
    assert page.count("data:image/png") == len(FILES)

    capsys.readouterr()
    times = {name: (output / f"{name}_hggdp.npy").stat().st_mtime_ns for name in FILES}
    write_scan(scans / "b.npy", np.random.default_rng(5))
    os.utime(scans / "c.npy")  # touched, but the same
    good = [f"{name}.npy" for name in FILES]
    assert recon(*good, options=["--self-check", "--dry-run"]) == 0
    assert "3 files: 2 to reconstruct, 1 unchanged" in capsys.readouterr().out
    assert recon(*good, options=["--self-check"]) == 0
    changed = [name for name in FILES if (output / f"{name}_hggdp.npy").stat().st_mtime_ns != times[name]]
    assert changed == ["b"]
    monkeypatch.setattr("hggdp_plugin.cohort.cluster.connected", None)  # nothing to do: no cluster is asked
    assert recon(*good, options=["--self-check"]) == 0


@pytest.fixture
def stub(cluster, tmp_path, monkeypatch):
    """Runs the work of stub_work.py; files by name, with what they say."""
    monkeypatch.setattr("hggdp_plugin.volume.progress.LINE_INTERVAL", 0)

    def run(**files):
        states = Manifest(tmp_path / "cohort.json")
        for name, content in files.items():
            (tmp_path / name).write_text(content)
            begin_entry(states, str(tmp_path / name), str(tmp_path / f"{name}.out"), "settings")
        with Client(cluster.address) as client:
            CohortRun(client, StubWork(str(tmp_path / "log")), "settings", states).run(list(states))
        return {os.path.basename(entry.file): entry for entry in Manifest(states.path)}

    return run


def forgive(dask_scheduler, failures):
    dask_scheduler.allowed_failures, failures = failures, dask_scheduler.allowed_failures
    return failures


def test_a_file_that_kills_its_workers_is_one_line(stub, cluster, caplog):
    caplog.set_level(logging.INFO, "hggdp_plugin")
    with Client(cluster.address) as client:  # the first death counts: each takes the time of a start
        usual = client.run_on_scheduler(forgive, failures=0)
    entries = stub(a="3", poison="poison", b="2", refused="refused", bug="bug", c="1")
    assert {name for name, entry in entries.items() if entry.state == "done"} == set("abc")
    assert "killed again and again" in entries["poison"].reason
    assert entries["refused"].reason == "refused: for a reason"
    assert entries["bug"].reason == "RuntimeError: a bug"
    assert "Traceback" in caplog.text
    assert "of 6 files" in caplog.text
    with Client(cluster.address) as client:
        client.run_on_scheduler(forgive, failures=usual)


def test_the_batches_of_one_file_go_to_all_workers(stub, cluster, tmp_path):
    with Client(cluster.address) as client:  # those of the test before may be starting again
        client.wait_for_workers(2, timeout=300)
    assert stub(only="12")["only"].state == "done"
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 12
    assert len({line.split()[2] for line in lines}) == 2


def test_manifest(tmp_path):
    file, output = tmp_path / "raw.h5", tmp_path / "image.npy"
    file.write_text("raw")
    states = Manifest(tmp_path / "cohort.json")
    entry = begin_entry(states, str(file), str(output), "settings")
    entry.state, entry.settings = "done", "settings"
    states.save()
    again = Manifest(states.path)
    assert not again.entries[str(file)].is_done("settings")  # there is no image
    output.write_text("image")
    assert again.entries[str(file)].is_done("settings")
    assert not again.entries[str(file)].is_done("others")
    assert begin_entry(again, str(file), str(output), "settings") is None
    file.write_text("changed")
    assert begin_entry(again, str(file), str(output), "settings") == Entry(
        str(file), str(output), size=7, modified=file.stat().st_mtime_ns
    )
    states.path.write_text("[]")
    with pytest.raises(ValueError, match="not the manifest"):
        Manifest(states.path)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--cluster", "nowhere"], "nowhere is not a kind of cluster"),
        (["--cluster", "slurm"], "give --workers and --memory-per-worker"),
        (["--cluster", "local", "--memory-per-worker", "much"], "much is not an amount of memory"),
        (["--cluster", "tcp://127.0.0.1:1", "--workers", "2"], "leave --workers"),
        (["--workers", "2"], "need a cluster"),
    ],
)
def test_options_that_do_not_fit(options, problem, scans, tmp_path, capsys):
    assert main([str(scans / "a.npy"), "--output-dir", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_workers_of_another_version_are_refused(recon, monkeypatch, capsys):
    monkeypatch.setattr(cohort_cluster, "__version__", "9.9")
    assert recon("a.npy") == 2
    assert "here it is 9.9; install the same version everywhere" in capsys.readouterr().err


def test_an_existing_image_of_another_origin_is_kept(scans, tmp_path, capsys):
    (tmp_path / "a_hggdp.npy").write_text("precious")
    command = [str(scans / "a.npy"), "--output-dir", str(tmp_path), *method(scans), "--cluster", "local"]
    assert main(command) == 1
    assert "it exists already" in capsys.readouterr().err
    assert (tmp_path / "a_hggdp.npy").read_text() == "precious"


def test_the_job_script_of_slurm(scans, tmp_path, capsys):
    command = [str(scans / "a.npy"), "--output-dir", str(tmp_path), "--cluster", "slurm", "--workers", "64"]
    assert main([*command, "--memory-per-worker", "16GB", "-g", "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --mem=15G" in script
    assert "#SBATCH --gres=gpu:1" in script
    assert "--nthreads 1" in script
    assert "--memory-limit" in script
    assert "submitted 64 times" in script


class ProcessCluster(LocalCluster):
    """Processes in place of jobs of Slurm; they are started without a shell, which the prologue needs."""

    def __init__(self, job_script_prologue, **options):
        super().__init__(**options)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_of_a_queue(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", ProcessCluster)
    monkeypatch.setenv("PYTHONPATH", str(cohort_cluster.__file__).split("/hggdp_plugin/")[0])
    command = [str(scans / "a.npy"), "--output-dir", str(tmp_path / "out"), *method(scans), "--cluster", "slurm"]
    assert main([*command, "--workers", "1", "--memory-per-worker", "1200MB"]) == 0
    assert same_bits(scans, tmp_path / "out", "a")
    gc.collect()  # here, where it is no error that dask-jobqueue leaves its pipes open


def test_progress(monkeypatch):
    progress = CohortProgress(4, show=True)
    progress.open_file(10, 2)
    progress.advance(4)
    line = progress.line(3)
    assert line.startswith("0 of 4 files, 6 of about 40 slices, ")
    assert " on 3 workers, 00:00 elapsed, about 00:00 left." in line
    progress.close_file(failed=True, opened=False)
    assert "1 of 4 files (1 failed), 6 of about 30 slices" in progress.line(3)
    progress.close()
