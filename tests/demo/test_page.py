from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from torch import nn

from digitkaggle.cli import main
from digitkaggle.core.basics import InputError
from digitkaggle.core.networks import build_network
from digitkaggle.core.prediction import Model
from digitkaggle.core.settings import make_settings
from digitkaggle.demo.layers import convert_layers, convert_model
from digitkaggle.demo.page import MISTAKES, TRIALS, list_facts
from digitkaggle.demo.server import PageServer
from digitkaggle.runs.finished import load_model
from tests.conftest import copy_run
from tests.core import CPU, make_generator


def decode(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f2")


def read_json(html: str, name: str) -> dict:
    """What one of the page's JSON blocks holds."""
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', html)[1])


def test_batch_normalization_is_folded_only_where_it_follows_its_convolution_at_once():
    network = build_network(make_settings("fast", {"depths": (2, 2)}), make_generator()).eval()
    names = [layer["name"] for layer in convert_layers(network)]
    assert names == [
        *("Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"),
        *("Conv2d", "ReLU", "Conv2d", "ReLU", "GlobalMaxPool", "Flatten", "Linear"),
    ]


def test_weights_are_folded_in_half_precision():
    convolution, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0)
    with torch.no_grad():
        convolution.weight.fill_(2)
        norm.weight.fill_(3)
        norm.bias.fill_(0.5)
        norm.running_mean.fill_(1)
        norm.running_var.fill_(4)
    [folded] = convert_layers(nn.Sequential(convolution, norm).eval())
    assert decode(folded["weight"]).tolist() == [2 * 3 / 2]
    assert decode(folded["bias"]).tolist() == [0.5 - 1 * 3 / 2]
    _, alone = convert_layers(nn.Sequential(nn.ReLU(), norm).eval())
    assert decode(alone["scale"]).tolist() == [3 / 2]
    assert decode(alone["shift"]).tolist() == [0.5 - 1 * 3 / 2]


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.GELU(), nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(1, 1, 3, dilation=2)),
        *(nn.Conv2d(1, 1, (3, 5)), nn.Conv2d(1, 1, 3, padding="same"), nn.MaxPool2d(3, padding=1)),
        *(nn.AdaptiveAvgPool2d(2), nn.BatchNorm2d(2, affine=False), nn.Flatten(2)),
    ],
    ids=str,
)
def test_a_layer_that_the_page_does_not_know_stops_the_export_with_its_name(layer):
    with pytest.raises(InputError, match=type(layer).__name__):
        list(convert_layers(nn.Sequential(layer).eval()))


def test_weights_that_half_precision_cannot_hold_are_refused():
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 1e6)
    with pytest.raises(InputError, match=r"half precision .* Linear"):
        list(convert_layers(nn.Sequential(layer)))


def test_the_page_gets_every_member_and_view(quick_settings):
    settings = dataclasses.replace(quick_settings, views=7)
    networks = [build_network(settings, make_generator(seed)).eval() for seed in range(2)]
    model = convert_model(Model(networks, settings, CPU))
    assert len(model["members"]) == 2
    assert np.shape(model["views"]) == (6, 2, 3)
    assert model["views"][0] == pytest.approx(np.array([[1, 0, -1 / 14], [0, 1, -1 / 14]]))
    one_view = Model(networks, dataclasses.replace(settings, views=1), CPU)
    assert convert_model(one_view)["views"] == []


def test_a_page_is_one_file_with_digits_mistakes_and_facts(trained, tmp_path, capsys):
    out = tmp_path / "digits.html"
    assert main(["export", str(trained), "--out", str(out)]) == 0
    assert f"{out}: " in capsys.readouterr().out
    html = out.read_text(encoding="utf-8")
    held_out = np.load(trained / "validation.npz")
    wrong = (held_out["probabilities"].argmax(axis=1) != held_out["label"]).sum()
    assert html.count("data-label=") == TRIALS
    assert html.count("taken for") == min(wrong, MISTAKES)
    assert "200 held-out digits (standard error" in html
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", html)
    assert str(trained) not in html, "a mailed page tells nothing of the machine"
    before = out.read_bytes()
    assert main(["export", str(trained), "--out", str(out)]) == 0
    assert out.read_bytes() == before


def test_without_the_data_or_the_run_a_page_is_without_their_parts(trained, tmp_path):
    out = tmp_path / "digits.html"
    other = copy_run(trained, tmp_path / "other", data={"origin": "nowhere", "digest": "?"})
    assert main(["export", str(other), "--out", str(out)]) == 0
    assert "data-label=" not in out.read_text(encoding="utf-8")
    assert "standard error" in out.read_text(encoding="utf-8")
    assert main(["export", str(trained / "model.pt"), "--out", str(out)]) == 0
    html = out.read_text(encoding="utf-8")
    assert "standard error" not in html
    assert read_json(html, "page")["digits"] is None
    assert len(read_json(html, "model")["members"]) == 1


def test_the_facts_name_an_ensemble(quick_settings, trained):
    model = dataclasses.replace(load_model(trained, device="cpu"))
    ensemble = dataclasses.replace(model, networks=[*model.networks, *model.networks])
    facts = dict(list_facts(trained, ensemble, None))
    assert facts["Size"].startswith("2 networks of ")
    assert facts["Preset"] == "fast"


def test_the_server_answers_with_the_page_and_nothing_else():
    with PageServer(b"<title>Draw</title>", "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(server.url) as answer:
            assert answer.read() == b"<title>Draw</title>"
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        for path in ("metrics.json", "../model.pt"):
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                opener.open(server.url + path)
            refused.value.close()
        server.shutdown()


def test_an_address_that_cannot_be_listened_on_is_an_error_of_one_line(trained, tmp_path, capsys):
    model = shutil.copy(trained / "model.pt", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flags in (["--port", port], ["--port", "99999"], ["--host", "no.such.host"]):
            assert main(["demo", str(model), *flags]) == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ")
            assert flags[1] in error
            assert "cannot be listened on" in error
            assert error.count("\n") == 1


@pytest.mark.parametrize(("display", "opened"), [("", 0), (":0", 1)])
def test_demo_writes_the_page_beside_the_report_and_opens_it_where_there_is_a_display(
    trained, tmp_path, monkeypatch, capsys, display, opened
):
    addresses = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("webbrowser.open", addresses.append)

    def end(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", end)
    run = copy_run(trained, tmp_path / "run")
    assert main(["demo", str(run), "--port", "0"]) == 0
    assert (run / "digits.html").exists()
    assert "Draw on http://127.0.0.1:" in capsys.readouterr().out
    assert len(addresses) == opened
