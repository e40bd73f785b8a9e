"""The HTML report of a reconstruction."""

import json
import logging
import re
import shutil
import subprocess

import numpy as np
import pytest

from hggdp_plugin.io.files import InputError
from hggdp_plugin.log import collected_log
from hggdp_plugin.report import MAX_FRAMES, Report, write_report


def frames_of(path):
    return json.loads(re.search(r"const frames = (.*);\n", path.read_text())[1])


def make_report(slices=3, **changes):
    image = np.random.default_rng(0).random((1, 1, 1, 1, slices, 24, 20)) * np.exp(0.3j)
    return Report(**{"title": "scan <1>", "image": image, **changes})


def test_every_slice_has_its_pictures(tmp_path):
    report = make_report(zero_filled=np.ones((1, 1, 1, 1, 3, 24, 20)), std=np.ones((1, 1, 1, 1, 3, 24, 20)))
    write_report(tmp_path / "r.html", report)
    frames = frames_of(tmp_path / "r.html")
    assert [frame["label"] for frame in frames] == ["slice 1", "slice 2", "slice 3"]
    assert [picture["name"] for picture in frames[0]["pictures"]] == ["HGGDP", "zero-filled", "standard error"]


def test_names_of_files_and_messages_are_escaped_and_warnings_stand_first(tmp_path):
    messages = [("INFO", "Coils: 8 & more"), ("WARNING", "maps <alias>")]
    write_report(tmp_path / "r.html", make_report(messages=messages, facts={"prior": "brain-t2"}))
    page = (tmp_path / "r.html").read_text()
    assert "<h1>scan &lt;1&gt;</h1>" in page
    assert "<li>maps &lt;alias&gt;</li>" in page
    assert "Coils: 8 &amp; more" in page
    assert "<th>prior</th><td>brain-t2</td>" in page
    assert not re.search(r"\{\{\w+\}\}", page)


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    write_report(tmp_path / "r.html", make_report())
    page = (tmp_path / "r.html").read_text()
    assert not re.search(r"https?://|src=\"(?!data:)|<link", page)


def test_long_series_are_thinned(tmp_path):
    write_report(tmp_path / "r.html", make_report(slices=2 * MAX_FRAMES + 1))
    assert MAX_FRAMES / 2 < len(frames_of(tmp_path / "r.html")) <= MAX_FRAMES


def test_the_share_of_measured_samples(tmp_path):
    mask = np.zeros((10, 10), bool)
    mask[:, :3] = True
    write_report(tmp_path / "r.html", make_report(mask=mask))
    assert "30.0 % measured" in (tmp_path / "r.html").read_text()


def test_the_mask_of_a_volume_is_shown_by_its_central_plane(tmp_path):
    mask = np.zeros((4, 10, 10), bool)
    mask[2] = True
    write_report(tmp_path / "r.html", make_report(mask=mask))
    assert "25.0 % measured; its central plane" in (tmp_path / "r.html").read_text()


def test_images_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match="zero_filled: expected the shape of the image"):
        write_report(tmp_path / "r.html", make_report(zero_filled=np.ones((2, 2))))


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises((InputError, OSError)):
        write_report(tmp_path / "no" / "r.html", make_report())


def test_the_log_is_collected():
    logger = logging.getLogger("hggdp_plugin.somewhere")
    with collected_log() as messages:
        logger.warning("seen")
    logger.warning("not seen")
    assert messages == [("WARNING", "seen")]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_browser_shows_it(tmp_path):
    write_report(tmp_path / "r.html", make_report())
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = ["chromium", *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(tmp_path / "r.html")]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert "slice 2 (2 of 3)" in dom  # written by its script
    assert dom.count("<figure>") == 1
