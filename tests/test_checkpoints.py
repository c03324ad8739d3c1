"""Every checkpoint format gives the same network, and no bad file gets through."""

from __future__ import annotations

import copy
import json
import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from elir_mobile import checkpoints
from elir_mobile.checkpoints import (
    DEMO_AUTOENCODER,
    DEMO_WEIGHTS,
    PARTS,
    build_restorer,
    collapse_state_dict,
    infer_architecture,
    load_taesd,
    load_weights,
    random_weights,
    save_autoencoder,
    save_weights,
    sha256_of,
)
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.models.autoencoder import Encoder
from elir_mobile.models.restorer import Restorer
from elir_mobile.tasks import ALIGNED_FACE, PHOTO, get_task
from elir_mobile.training.checkpoint import write_checkpoint
from elir_mobile.training.demo import RECIPES
from tests.conftest import SIGMA_S, STEPS, TINY

BFR = get_task("bfr")


def restored(restorer: Restorer, degraded, noise) -> torch.Tensor:
    return restorer(degraded[0], noise, steps=STEPS, sigma_s=SIGMA_S)


def test_collapsed_network_equals_overparametrized(overparametrized, restorer, degraded, noise) -> None:
    wide = sum(p.numel() for p in overparametrized.parameters())
    assert sum(p.numel() for p in restorer.parameters()) < wide
    difference = restored(restorer, degraded, noise) - restored(overparametrized, degraded, noise)
    assert difference.abs().max() < 1e-5


def test_collapsing_twice_changes_nothing(restorer) -> None:
    state = restorer.state_dict()
    again = collapse_state_dict(state)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_architecture_is_read_from_shapes(restorer) -> None:
    assert infer_architecture(restorer.state_dict()) == TINY
    with torch.device("meta"):
        released = Restorer(BFR.arch).state_dict()
    assert infer_architecture(released) == BFR.arch


def test_the_half_form_is_read_from_shapes_and_survives_collapse_and_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arch = replace(TINY, autoencoder="half")
    wide = Restorer(arch, overparametrized=True).eval().requires_grad_(False)
    collapsed = build_restorer(wide.state_dict())
    assert collapsed.arch == arch
    x, noise = torch.rand(1, 3, 32, 48), torch.randn(1, 16, 4, 6)
    expected = wide(x, noise, steps=2, sigma_s=0.1)
    assert (collapsed(x, noise, steps=2, sigma_s=0.1) - expected).abs().max() < 1e-5
    path = tmp_path / "half.safetensors"
    save_weights(collapsed, path, task="bfr", size=96, steps=2, sigma_s=0.1, dtype=torch.float32)
    loaded, _ = load_weights(str(path), BFR)
    assert torch.equal(loaded(x, noise, steps=2, sigma_s=0.1), collapsed(x, noise, steps=2, sigma_s=0.1))


def test_pth_ckpt_and_safetensors_load_alike(
    overparametrized, restorer, degraded, noise, tmp_path: Path
) -> None:
    torch.save(restorer.state_dict(), tmp_path / "a.pth")
    parts = {f"state_dict_{part}": getattr(overparametrized, part).state_dict() for part in PARTS}
    torch.save({**parts, "epoch": 3, "optimizer_states": [{"lr": 1e-4}]}, tmp_path / "a.ckpt")
    save_file(restorer.state_dict(), tmp_path / "a.safetensors")
    expected = restored(restorer, degraded, noise)
    for name in ("a.pth", "a.ckpt", "a.safetensors"):
        loaded, info = load_weights(str(tmp_path / name), BFR)
        assert (restored(loaded, degraded, noise) - expected).abs().max() < 1e-5
        assert (info.size, info.steps, info.sigma_s, info.trained) == (512, 5, 0.1, True)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": x for name, x in state.items()},
        lambda state: {f"module._orig_mod.{name}": x for name, x in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"params": {name: 0 * x for name, x in state.items()}, "params_ema": state},
        lambda state: {"model": {"state_dict": {f"_orig_mod.{name}": x for name, x in state.items()}}},
        lambda state: {name: x.bfloat16() for name, x in state.items()},
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_are_found_in_what_training_programs_wrap_around_them(
    restorer, tmp_path: Path, wrap, suffix: str
) -> None:
    state = {name: x.bfloat16().float() for name, x in restorer.state_dict().items()}
    content, path = wrap(state), tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(content, path)
    elif all(isinstance(x, torch.Tensor) for x in content.values()):
        save_file(content, path)
    else:
        return  # safetensors hold no dictionaries
    loaded = load_weights(str(path), BFR)[0].state_dict()
    assert all(torch.equal(loaded[name], x) for name, x in state.items())


def test_what_is_not_finite_is_named(restorer, tmp_path: Path) -> None:
    for value in (float("inf"), float("nan")):
        state = {name: x.clone() for name, x in restorer.state_dict().items()}
        state["fmir.final_proj.weight"].view(-1)[0] = value
        torch.save(state, tmp_path / "broken.pth")
        with pytest.raises(
            UserError, match=r"broken.pth: the weights at fmir.final_proj.weight are not finite"
        ):
            load_weights(str(tmp_path / "broken.pth"), BFR)
    facts = {"task": "bfr", "size": 96, "steps": 4, "sigma_s": float("nan")}
    save_file(restorer.state_dict(), tmp_path / "x.safetensors", metadata={"elir": json.dumps(facts)})
    with pytest.raises(UserError, match="sigma_s is not a finite number"):
        load_weights(str(tmp_path / "x.safetensors"), BFR)
    save_file(restorer.state_dict(), tmp_path / "x.safetensors", metadata={"elir": "{"})
    with pytest.raises(UserError, match="its facts are no JSON"):
        load_weights(str(tmp_path / "x.safetensors"), BFR)


def test_what_float16_cannot_hold_is_saved_in_float32(restorer, tmp_path: Path) -> None:
    large = copy.deepcopy(restorer)
    large.dec.layers[0].weight.data[0, 0, 0, 0] = 1e6
    path = tmp_path / "large.safetensors"
    save_weights(large, path, task="bfr", size=96, steps=4, sigma_s=0.1)
    kept = load_file(path)
    assert kept["dec.layers.0.weight"].dtype == torch.float32
    assert kept["dec.layers.0.bias"].dtype == torch.float16
    assert load_weights(str(path), BFR)[0].dec.layers[0].weight[0, 0, 0, 0] == 1e6


def test_other_kinds_of_checkpoints_are_named_for_what_they_are(restorer, tmp_path: Path) -> None:
    state = restorer.state_dict()
    torch.save({"state_dict": {f"student.{n}": x for n, x in state.items()}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="a training run's own: name the .safetensors that it writes"):
        load_weights(str(tmp_path / "last.ckpt"), BFR)
    save_file(
        state | {"dec.layers.0.weight": torch.zeros(8, 16, 3, 3, dtype=torch.int8)},
        tmp_path / "q.safetensors",
    )
    with pytest.raises(UserError, match="holds int8 at dec.layers.0.weight"):
        load_weights(str(tmp_path / "q.safetensors"), BFR)
    os.mkfifo(tmp_path / "pipe.pth")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.pth", "pipe.safetensors"):
        with pytest.raises(UserError, match=f"{name} is no regular file"):
            load_weights(str(tmp_path / name), BFR)


def test_saved_weights_state_their_own_facts(restorer, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(restorer, path, task="bfr", size=96, steps=4, sigma_s=0.2)
    loaded, info = load_weights(str(path), BFR)
    assert (info.name, info.size, info.steps, info.sigma_s) == ("mine", 96, 4, 0.2)
    assert info.domain == BFR.domain
    for name, tensor in restorer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())


def test_weights_say_what_they_were_trained_on_and_the_task_does_where_they_do_not(
    restorer, tmp_path: Path
) -> None:
    bsr = get_task("bsr")
    path = tmp_path / "mine.safetensors"
    facts = {"task": "bsr", "size": 96, "steps": 4, "sigma_s": 0.2}
    save_weights(restorer, path, **facts, domain=ALIGNED_FACE)
    assert load_weights(str(path), bsr)[1].domain == ALIGNED_FACE
    save_file(restorer.state_dict(), path, metadata={"elir": json.dumps(facts)})
    assert load_weights(str(path), bsr)[1].domain == bsr.domain == PHOTO


@pytest.mark.parametrize("task", RECIPES)
def test_every_demo_model_says_its_domain_and_shares_the_decoder(task: str) -> None:
    info = load_weights("demo", get_task(task))[1]
    assert info.domain == (PHOTO if task in ("denoising", "bsr") else ALIGNED_FACE)
    assert not any(name.startswith("dec.") for name in load_file(DEMO_WEIGHTS / f"demo-{task}.safetensors"))
    assert sum(path.stat().st_size for path in DEMO_WEIGHTS.iterdir()) <= 30_000_000


def test_a_decoder_can_be_stored_once_for_several_tasks(restorer, tmp_path: Path) -> None:
    shared = tmp_path / DEMO_AUTOENCODER
    save_autoencoder(Encoder(8), restorer.dec, shared)
    facts = {"size": 96, "steps": 4, "sigma_s": 0.2, "domain": "photo", "shared_decoder": True}
    for task in ("bfr", "sr"):
        save_weights(restorer, tmp_path / f"{task}.safetensors", task=task, **facts)
    loaded, info = load_weights(str(tmp_path / "sr.safetensors"), get_task("sr"))
    assert info.domain == "photo"
    for name, tensor in restorer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    other = copy.deepcopy(restorer)
    other.dec.layers[0].bias.data += 1
    save_autoencoder(other.enc, other.dec, shared)
    with pytest.raises(UserError, match="another decoder"):
        load_weights(str(tmp_path / "bfr.safetensors"), BFR)
    shared.unlink()
    with pytest.raises(UserError, match="no weights file"):
        load_weights(str(tmp_path / "bfr.safetensors"), BFR)


def test_demo_weights_are_bundled_and_small() -> None:
    restorer, info = load_weights("demo", BFR)
    path = Path(__file__).parents[1] / "elir_mobile" / "weights" / "demo-bfr.safetensors"
    assert path.stat().st_size <= 10_000_000
    assert info.trained
    assert 128 <= info.size <= 160
    assert restorer.arch.latent_channels == 16


def test_random_weights_are_seeded_and_say_so() -> None:
    with torch.random.fork_rng():
        first, info = random_weights(BFR, 1)
        second, _ = random_weights(BFR, 1)
    assert not info.trained
    assert torch.equal(
        first.mmse.lrm[0].RDB1.conv1.block[0].weight, second.mmse.lrm[0].RDB1.conv1.block[0].weight
    )


class Hostile:
    """Its pickle would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"fmir": Hostile(marker)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(marker)))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(UserError, match=r"execute code|not a PyTorch checkpoint"):
            load_weights(str(tmp_path / name), BFR)
    assert not marker.exists()


def test_truncated_pth_is_refused(restorer, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save(restorer.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="truncated, damaged or not a PyTorch checkpoint"):
        load_weights(str(path), BFR)


def test_text_called_pth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("these are not weights\n")
    with pytest.raises(UserError, match="not a PyTorch checkpoint"):
        load_weights(str(path), BFR)


def test_text_called_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("these are not weights\n")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_weights(str(path), BFR)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights file at"):
        load_weights(str(tmp_path / "absent.pth"), BFR)


def test_another_architecture_is_refused(restorer, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(UserError, match="not an ELIR network"):
        load_weights(str(tmp_path / "linear.pth"), BFR)
    state = restorer.state_dict()
    state["mmse.lrm.0.RDB2.conv1.block.0.weight"] = torch.zeros(8, 16, 5, 5)
    with pytest.raises(UserError, match="another architecture"):
        build_restorer(state)
    del state["mmse.lrm.0.RDB2.conv1.block.0.weight"]
    with pytest.raises(UserError, match="another architecture"):
        build_restorer(state)


def test_half_a_ckpt_is_refused(restorer, tmp_path: Path) -> None:
    torch.save({"state_dict_fmir": restorer.fmir.state_dict()}, tmp_path / "half.ckpt")
    with pytest.raises(UserError, match="lacks state_dict_mmse"):
        load_weights(str(tmp_path / "half.ckpt"), BFR)


def test_weights_of_another_task_are_refused(restorer, tmp_path: Path) -> None:
    path = tmp_path / "sr.safetensors"
    save_file(
        restorer.state_dict(), path, metadata={"elir": '{"task": "sr", "size": 1, "steps": 1, "sigma_s": 1}'}
    )
    with pytest.raises(UserError, match="trained for task 'sr'"):
        load_weights(str(path), BFR)


@pytest.fixture
def site(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """Folder of a release page on this machine, and an empty cache."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def send_header(self, keyword: str, value: str) -> None:
            longer = keyword == "Content-Length" and "cut" in self.path
            super().send_header(keyword, str(int(value) + 100) if longer else value)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(checkpoints, "RELEASE", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path / "cache"))
        yield folder
        server.shutdown()


def test_released_weights_are_downloaded_once_and_stay_the_same(restorer, site: Path, tmp_path: Path) -> None:
    torch.save(restorer.state_dict(), site / "elir_bfr.pth")
    digest = sha256_of(site / "elir_bfr.pth")
    loaded, info = load_weights("released", BFR)
    assert all(torch.equal(tensor, restorer.state_dict()[n]) for n, tensor in loaded.state_dict().items())
    assert (info.name, info.source, info.sha256) == ("released", checkpoints.RELEASE + "elir_bfr.pth", digest)
    cached = tmp_path / "cache" / "weights" / "elir_bfr.pth"
    assert cached.with_name("elir_bfr.pth.sha256").read_text() == f"{digest}  elir_bfr.pth\n"
    assert sorted(p.name for p in cached.parent.iterdir()) == ["elir_bfr.pth", "elir_bfr.pth.sha256"]
    (site / "elir_bfr.pth").unlink()
    assert load_weights("released", BFR)[1] == info  # from the cache


def test_another_file_under_a_known_name_is_refused(restorer, site: Path, tmp_path: Path) -> None:
    torch.save(restorer.state_dict(), site / "elir_bfr.pth")
    load_weights("released", BFR)
    cached = tmp_path / "cache" / "weights" / "elir_bfr.pth"
    state = restorer.state_dict()
    state["dec.layers.0.bias"] = state["dec.layers.0.bias"] + 1
    torch.save(state, cached)
    with pytest.raises(UserError, match="not the file first used"):
        load_weights("released", BFR)
    cached.replace(site / "elir_bfr.pth")  # now the site has it and the cache has not
    with pytest.raises(UserError, match="not the file first used"):
        load_weights("released", BFR)
    assert not cached.exists()
    cached.with_name("elir_bfr.pth.sha256").unlink()
    load_weights("released", BFR)


def test_without_a_network_one_is_told_what_to_put_where(restorer, site: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "weights" / "elir_bfr.pth"
    with pytest.raises(UserError) as error:
        load_weights("released", BFR)
    assert "File not found" in str(error.value)
    assert f"fetch elir_bfr.pth by other means and put it at {cached}" in str(error.value)
    assert not list(cached.parent.iterdir())
    torch.save(restorer.state_dict(), cached)
    assert load_weights("released", BFR)[1].sha256 == sha256_of(cached)
    assert sha256_of(cached) in cached.with_name("elir_bfr.pth.sha256").read_text()
    with pytest.raises(UserError, match="upstream released no weights for task 'mask'"):
        load_weights("released", get_task("mask"))


def test_addresses_keep_their_files_apart(restorer, site: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (site / folder).mkdir()
    torch.save(restorer.state_dict(), site / "a" / "elir.pth")
    save_weights(restorer, site / "b" / "elir.safetensors", task="bfr", size=96, steps=4, sigma_s=0.2)
    (site / "b" / "elir.pth").write_text("sign in to go on")
    assert load_weights(f"{checkpoints.RELEASE}a/elir.pth?raw=1", BFR)[1].name == "elir"
    assert load_weights(f"{checkpoints.RELEASE}b/elir.safetensors", BFR)[1].size == 96
    with pytest.raises(UserError, match="something else than a checkpoint"):
        load_weights(f"{checkpoints.RELEASE}b/elir.pth", BFR)
    with pytest.raises(UserError, match="does not end in the name of a weights file"):
        load_weights(f"{checkpoints.RELEASE}b/", BFR)
    assert len(list((tmp_path / "cache").rglob("elir.*"))) == 4  # two files with their sums


def test_a_download_that_breaks_off_leaves_nothing(restorer, site: Path, tmp_path: Path) -> None:
    torch.save(restorer.state_dict(), site / "cut.pth")
    with pytest.raises(UserError, match="could not download .* broke off after"):
        load_weights(f"{checkpoints.RELEASE}cut.pth", BFR)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def answering(*parts: bytes, endless: bytes = b"") -> str:
    """Address of a checkpoint at a server that sends ``parts`` and then ``endless`` for ever."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError), listening, listening.accept()[0] as connection:
            connection.recv(1 << 16)
            for part in parts:
                connection.sendall(part)
            while endless:
                connection.sendall(endless)

    Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/x.pth"


@pytest.mark.parametrize(
    ("head", "endless", "said"),
    [
        (b"200 OK", b"0" * (1 << 18), "more than the 1000000 bytes"),
        (b"200 OK\r\nContent-Length: 2000000", b"0" * 1000, "more than the 1000000 bytes"),
        (b"200 OK\r\nContent-Length: many", b"", "something else than a checkpoint"),
        (b"200 OK\r\nContent-Length: -5", b"", "something else than a checkpoint"),
        (b"302 Found\r\nLocation: file:///etc/passwd", b"", "could not download"),
        (
            b"302 Found\r\nLocation: ftp://127.0.0.1/x.pth",
            b"",
            "redirects to ftp://.*, which is not followed",
        ),
    ],
)
def test_what_a_server_can_do_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch, head: bytes, endless: bytes, said: str
) -> None:
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 1_000_000)
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path))
    address = answering(b"HTTP/1.0 " + head + b"\r\n\r\n", endless=endless)
    with pytest.raises(UserError, match=said):
        load_weights(address, BFR)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_download_that_drips_is_given_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "NETWORK_TIMEOUT", 0.1)
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoints, "SLOWEST", 1e12)
    address = answering(b"HTTP/1.0 200 OK\r\n\r\n", endless=b"0" * 1000)
    with pytest.raises(UserError, match=r"it sent \d+ bytes in 0 s"):
        load_weights(address, BFR)


@pytest.mark.parametrize(
    "address", ["http://[::1/x.pth", "http://a b/x.pth", "http://é/x.pth", "https:///x.pth"]
)
def test_an_odd_address_is_one_sentence(tmp_path: Path, monkeypatch, address: str) -> None:
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="could not download|is no address"):
        load_weights(address, BFR)


def test_other_schemes_are_paths_that_are_not_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ELIR_MOBILE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "x.pth").write_bytes(b"")
    for address in (f"file://{tmp_path}/x.pth", "ftp://127.0.0.1/x.pth", "data:,x.pth"):
        with pytest.raises(UserError, match="no weights file at"):
            load_weights(address, BFR)


def test_an_address_may_say_which_file_it_is(restorer, site: Path, tmp_path: Path) -> None:
    torch.save(restorer.state_dict(), site / "elir.pth")
    digest, address = sha256_of(site / "elir.pth"), f"{checkpoints.RELEASE}elir.pth"
    assert load_weights(f"{address}#sha256={digest}", BFR)[1].sha256 == digest
    with pytest.raises(UserError, match=f"sent a file with the sha256 {digest}: do not use it"):
        load_weights(f"{address}#sha256={'0' * 64}", BFR)
    assert len(list((tmp_path / "cache").rglob("elir.pth"))) == 1


def taesd_files(restorer: Restorer, folder: Path) -> None:
    """The tiny autoencoder in both published layouts."""
    enc, dec = restorer.enc.state_dict(), restorer.dec.state_dict()
    save_file(
        {f"encoder.{n}": t for n, t in enc.items()} | {f"decoder.{n}": t for n, t in dec.items()},
        folder / "diffusion_pytorch_model.safetensors",
    )
    torch.save({n.removeprefix("layers."): t for n, t in enc.items()}, folder / "taesd3_encoder.pth")
    plain = torch.nn.Sequential(torch.nn.Identity(), *restorer.dec.layers)  # its clamp is a layer
    torch.save(plain.state_dict(), folder / "taesd3_decoder.pth")


@pytest.mark.parametrize(
    "names",
    [("diffusion_pytorch_model.safetensors",), ("taesd3_decoder.pth", "taesd3_encoder.pth")],
)
def test_taesd_loads_from_both_published_layouts(restorer, degraded, tmp_path: Path, names) -> None:
    taesd_files(restorer, tmp_path)
    encoder, decoder = load_taesd(*(tmp_path / name for name in names))
    z = restorer.enc(degraded[0])
    assert torch.equal(encoder(degraded[0]), z)
    assert torch.equal(decoder(z), restorer.dec(z))
    assert not any(p.requires_grad for p in (*encoder.parameters(), *decoder.parameters()))


def test_half_a_taesd_and_other_autoencoders_are_refused(restorer, tmp_path: Path) -> None:
    taesd_files(restorer, tmp_path)
    with pytest.raises(UserError, match="lacks a half of TAESD"):
        load_taesd(tmp_path / "taesd3_encoder.pth")
    torch.save(restorer.state_dict(), tmp_path / "elir.pth")
    with pytest.raises(UserError, match="lacks a half of TAESD"):
        load_taesd(tmp_path / "elir.pth")
    other = torch.load(tmp_path / "taesd3_encoder.pth", weights_only=True)
    torch.save({**other, "11.pool.0.weight": torch.zeros(1)}, tmp_path / "taef2_encoder.pth")
    with pytest.raises(UserError, match="another autoencoder than TAESD"):
        load_taesd(tmp_path / "taef2_encoder.pth", tmp_path / "taesd3_decoder.pth")


def test_weights_that_lie_in_themselves_are_one_sentence(tmp_path: Path) -> None:
    content: dict = {}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="x.pth lie in 8 dictionaries, or in themselves: save them alone"):
        load_weights(str(tmp_path / "x.pth"), get_task("bfr"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_a_full_disk_is_one_sentence_for_weights_and_checkpoints(
    restorer, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Their libraries have errors of their own for it."""
    (tmp_path / "staged.ckpt").symlink_to("/dev/full")
    monkeypatch.setattr("elir_mobile.checkpoints.written", lambda path: nullcontext(Path("/dev/full")))
    for write in (
        partial(
            save_weights, restorer, tmp_path / "x.safetensors", task="bfr", size=64, steps=2, sigma_s=0.1
        ),
        partial(write_checkpoint, restorer.state_dict(), tmp_path / "last.ckpt"),
    ):
        with pytest.raises(SystemExit) as ended:
            exits_with_2(write)()
        assert ended.value.code == 2
        assert capsys.readouterr().err == "error: No space left on device\n"
