"""Checkpoints that are taken, and those that are refused by name."""

import json

import numpy as np
import pytest

from lwmt_sionna import MaskedChannelModel
from lwmt_sionna.convert import convert, main
from lwmt_sionna.models.published import (
    PublishedOptions,
    model_from_state,
    modern_names,
    read_checkpoint,
)
from tests.models.test_parity import run_torch

OPTIONS = PublishedOptions(num_heads=2, grid=(2, 3, 4))
WIDTH, HIDDEN, TOKENS = 4, 8, 24


@pytest.fixture
def state(rng):
    block = {
        "norm1.weight": (WIDTH,),
        "norm1.bias": (WIDTH,),
        "attn.qkv.weight": (3 * WIDTH, WIDTH),
        "attn.proj.weight": (WIDTH, WIDTH),
        "attn.proj.bias": (WIDTH,),
        "norm2.weight": (WIDTH,),
        "norm2.bias": (WIDTH,),
        "mlp.0.weight": (HIDDEN, WIDTH),
        "mlp.0.bias": (HIDDEN,),
        "mlp.2.weight": (WIDTH, HIDDEN),
        "mlp.2.bias": (WIDTH,),
    }
    shapes = {
        "patch_embed.weight": (WIDTH, 2),
        "patch_embed.bias": (WIDTH,),
        "pos_embed": (1, TOKENS, WIDTH),
        **{f"encoder.layers.{i}.{name}": shape for i in range(2) for name, shape in block.items()},
        "encoder.norm.weight": (WIDTH,),
        "encoder.norm.bias": (WIDTH,),
        "head.weight": (2, WIDTH),
        "head.bias": (2,),
    }
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def written(tmp_path, state):
    path = tmp_path / "checkpoint.npz"
    np.savez(path, **state)
    return path


def arguments(checkpoint, out):
    return [str(checkpoint), str(out), "--num-heads", "2", "--grid", "2", "3", "4"]


def test_makes_a_preset(tmp_path, state, capsys):
    out = tmp_path / "presets" / "mine"
    main(arguments(written(tmp_path, state), out))
    assert "learned positions" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "config.json",
        "metadata.json",
        "model.weights.h5",
    ]
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata["num_parameters"] == sum(a.size for a in state.values())
    assert len(metadata["source"]["sha256"]) == 64
    model = MaskedChannelModel.from_preset(out)
    kernel = np.asarray(model.backbone.blocks[1].attention.qkv.kernel)
    np.testing.assert_array_equal(kernel, state["encoder.layers.1.attn.qkv.weight"].T)
    # Never over something that is there, and nothing half-made is left behind.
    with pytest.raises(ValueError, match="OUT="):
        main(arguments(written(tmp_path, state), out))
    assert [p.name for p in out.parent.iterdir()] == ["mine"]


def test_old_and_wrapped_names(state):
    old = {}
    for name, tensor in state.items():
        for new, before in (
            ("patch_embed.", "embed."),
            ("encoder.layers.", "blocks."),
            ("encoder.norm.", "norm."),
        ):
            if name.startswith(new):
                name = before + name.removeprefix(new)
        old[name] = tensor
    for wrapper in ("", "module.", "_orig_mod.module.", "module._orig_mod.", "module.module."):
        assert set(modern_names({wrapper + name: v for name, v in old.items()})) == set(state)
    with pytest.raises(ValueError, match=r"embed\.weight and patch_embed\.weight|the same one"):
        modern_names({"embed.weight": 0, "patch_embed.weight": 1})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("encoder.layers.1.mlp.2.bias", None, "encoder.layers.1.mlp.2.bias is missing"),
        ("head.scale", np.ones(2, np.float32), "head.scale is unknown"),
        ("encoder.layers.0.attn.qkv.bias", np.ones(12, np.float32), "qkv.bias is unknown"),
        (
            "pos_embed",
            np.ones((1, 25, WIDTH), np.float32),
            r"pos_embed has the shape \(1, 25, 4\), not \(1, 24, 4\)",
        ),
        (
            "encoder.layers.0.attn.proj.weight",
            np.ones((WIDTH, 5), np.float32),
            r"attn.proj.weight has the shape \(4, 5\)",
        ),
        ("encoder.norm.bias", np.full(WIDTH, np.nan, np.float32), "encoder.norm.bias holds NaN"),
        ("patch_embed.weight", None, "no tensor patch_embed.weight"),
        ("patch_embed.weight", np.ones(4, np.float32), "patch_embed.weight must have 2 axes"),
        ("patch_embed.weight", np.ones((WIDTH, 6), np.float32), "name the patch"),
    ],
)
def test_tensors_that_do_not_fit_are_named(state, name, change, message):
    if change is None:
        del state[name]
    else:
        state[name] = change
    with pytest.raises(ValueError, match=message):
        model_from_state(state, OPTIONS)


def test_all_faults_are_told_at_once(state):
    del state["head.bias"]
    state["extra"] = np.ones(1, np.float32)
    with pytest.raises(ValueError, match=r"2 faults.*head\.bias is missing.*extra is unknown"):
        model_from_state(state, OPTIONS)


def test_unwanted_tensors_are_ignored_when_named(state):
    state["extra"] = np.ones(1, np.float32)
    options = PublishedOptions(num_heads=2, position="rotary", ignore=("extra", "pos_embed"))
    assert model_from_state(state, options).backbone.position_kind == "rotary"
    with pytest.raises(ValueError, match="not in the checkpoint: other"):
        model_from_state(state, PublishedOptions(ignore=("other",)))


def test_what_fits_several_readings_is_refused(state):
    with pytest.raises(ValueError, match=r"width 4 .* fits 1, 2, 4 heads"):
        model_from_state(state, PublishedOptions(grid=(2, 3, 4)))
    state["patch_embed.weight"] = np.ones((WIDTH, 8), np.float32)
    with pytest.raises(ValueError, match="name the patch"):
        model_from_state(state, OPTIONS)


def test_the_configuration_beside_a_checkpoint_is_read(tmp_path, state, caplog):
    checkpoint = written(tmp_path, state)
    config = {"num_heads": 2, "same_frame_window": 1, "routing_topk_enable": False, "warp": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = convert(checkpoint, tmp_path / "out", PublishedOptions(grid=(2, 3, 4))).backbone
    assert (backbone.num_heads, backbone.routing) == (2, None)
    assert backbone.neighborhood.window == (1, 1)
    assert "warp" in caplog.text and "assumed" not in caplog.text
    # Options stand above it, and what nothing tells is assumed aloud.
    (tmp_path / "config.json").unlink()
    convert(checkpoint, tmp_path / "other", OPTIONS)
    assert "routing=topk; neighborhood=Neighborhood(" in caplog.text
    metadata = json.loads((tmp_path / "other" / "metadata.json").read_text())
    assert len(metadata["assumed"]) == 2
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        convert(checkpoint, tmp_path / "third", OPTIONS)


def test_damaged_files_are_refused_in_one_line(tmp_path, state):
    path = written(tmp_path, state)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    for _ in range(100):
        data = bytearray(whole)
        if rng.uniform() < 0.3:
            data = data[: rng.integers(len(data))]
        else:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            found = read_checkpoint(path)
        except ValueError as error:
            assert "\n" not in str(error) and path.name in str(error)
        else:
            for name, tensor in found.items():
                if name in state:
                    np.testing.assert_array_equal(tensor, state[name])


def test_files_that_are_no_checkpoints_are_refused(tmp_path, state):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pth")
    payload = tmp_path / "payload.npz"
    np.savez(payload, head=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"payload\.npz"):
        read_checkpoint(payload)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match=r"broken\.npz"):
        read_checkpoint(broken)
    integers = written(tmp_path, state | {"step": np.ones(3, int)})
    with pytest.raises(ValueError, match="The entry step"):
        convert(integers, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


REFUSED = {
    # A pickle that runs a command when loaded.
    "command": "torch.save({'head.weight': Payload()}, path)",
    "namespace": "torch.save({'args': argparse.Namespace(a=1)}, path)",
    "pickle": "pickle.dump({'a': Payload()}, open(path, 'wb'))",
    "integer": "torch.save({'model_state_dict': {'step': torch.tensor(3)}}, path)",
    "list": "torch.save([torch.ones(2)], path)",
    "text": "open(path, 'wb').write(b'nonsense')",
    "empty": "open(path, 'wb')",
    "cut": "torch.save({'a': torch.ones(9)}, path); data = open(path, 'rb').read(); "
    "open(path, 'wb').write(data[:300])",
}
TOLD = {"command": "system", "namespace": "Namespace", "integer": "step", "list": "a list"}


def test_pytorch_files_that_are_no_checkpoints_are_refused(tmp_path):
    program = f"""
import argparse, json, os, pickle, sys, torch
from lwmt_sionna.models.published import read_checkpoint

class Payload:
    def __reduce__(self):
        return (os.system, ("touch {tmp_path}/run",))

told = {{}}
for name, code in {REFUSED!r}.items():
    path = "{tmp_path}/" + name + ".pth"
    exec(code)
    try:
        read_checkpoint(path)
    except ValueError as error:
        told[name] = str(error)
print(json.dumps(told))
"""
    done = run_torch("-c", program)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == set(REFUSED)
    for name, message in told.items():
        assert f"{name}.pth" in message and TOLD.get(name, "") in message, message
    assert not (tmp_path / "run").exists()
    # The program says the same in one line.
    done = run_torch("-m", "lwmt_sionna.convert", tmp_path / "command.pth", tmp_path / "out")
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert len(lines) == 1 and "system" in lines[0], done.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_pytorch_is_asked_for_in_one_line(tmp_path, monkeypatch, capsys):
    import sys

    from lwmt_sionna.runs import command_line

    (tmp_path / "x.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit):
        command_line.run(main, [str(tmp_path / "x.pth"), str(tmp_path / "out")])
    assert "the package torch is missing" in capsys.readouterr().err
