"""Convert published LWM-Temporal weights to a preset of this package.

CHECKPOINT is a PyTorch file (`.pth`, `pytorch_model.bin`): a state dict, or a training checkpoint
that has one under `model_state_dict`; or an `.npz` file of the same tensors. OUT is the folder of
the preset, which must not exist. PyTorch files are read without executing anything they hold.

Example:
    python -m lwmt_sionna.convert pytorch_model.bin presets/lwm_temporal
"""

import dataclasses
import os
import pathlib
import pickle
import re
import shutil
import zipfile

import numpy as np

from lwmt_sionna.runs import command_line

__all__ = ["convert", "main", "read_checkpoint"]

_NESTED = "model_state_dict"

_README = """# Converted checkpoint

A `MaskedChannelModel` converted from published LWM-Temporal weights (arXiv 2603.10024) by
`python -m lwmt_sionna.convert`. `metadata.json` holds the source's SHA-256 and the options.

Inputs are channels in the angle-delay domain, `[batch, snapshots, angles, delays, 2]`.
"""


def read_checkpoint(path):
    """Reads the tensors of a checkpoint.

    Args:
        path: Path of a PyTorch file, or of an `.npz` file.

    Returns:
        Dictionary of names and float32 or float64 arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If PyTorch is needed and missing.
        ValueError: If the file is no checkpoint, or holds anything but tensors.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    state = _read_npz(path) if path.suffix == ".npz" else _read_torch(path)
    if not isinstance(state, dict):
        raise ValueError(
            f"The file holds no dictionary of tensors. Received: {path} with a "
            f"{type(state).__name__}"
        )
    state = state.get(_NESTED, state)
    arrays = {}
    for name, tensor in state.items():
        array = _to_array(tensor)
        if array is None:
            raise ValueError(
                f"The entry {name} is no floating-point tensor but a {type(tensor).__name__}. "
                f"Expected a state dict, or one under {_NESTED}. Received: {path}"
            )
        arrays[str(name)] = array
    return arrays


def convert(checkpoint, out, options=None):
    """Converts a checkpoint to a preset.

    Args:
        checkpoint: Path of the checkpoint.
        out: Folder of the preset; it appears only when complete, and must not exist.
        options: `lwmt_sionna.models.published.PublishedOptions`.

    Returns:
        The converted `MaskedChannelModel`.
    """
    from lwmt_sionna.models.presets import load_preset
    from lwmt_sionna.models.published import PublishedOptions, model_from_state
    from lwmt_sionna.runs import records

    options = PublishedOptions() if options is None else options
    out = pathlib.Path(out)
    if out.exists():
        raise ValueError(f"The folder exists; choose another one. Received: OUT={out}")
    model = model_from_state(read_checkpoint(checkpoint), options)
    described = dataclasses.asdict(options) | {"routing": model.backbone.get_config()["routing"]}
    source = pathlib.Path(checkpoint)
    metadata = {"source": {"file": source.name, "sha256": records.sha256(source)}}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        model.save_to_preset(partial, metadata | {"options": described}, _README)
        again = load_preset(partial)
        for saved, loaded in zip(model.weights, again.weights, strict=True):
            if not np.array_equal(saved, loaded):
                raise RuntimeError(f"{saved.path} did not survive being saved")
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return model


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=pathlib.Path)
    parser.add_argument("out", metavar="OUT", type=pathlib.Path)
    parser.add_argument("--num-heads", type=int, default=8, help="heads per block [8]")
    parser.add_argument(
        "--grid", nargs=3, type=int, metavar=("T", "A", "D"),
        help="snapshots, angle and delay patches of the learned positions [20 32 32]",
    )  # fmt: skip
    parser.add_argument(
        "--patch", nargs=2, type=int, metavar=("A", "D"), help="bins per patch [the square]"
    )
    parser.add_argument(
        "--position", choices=("auto", "learned", "rotary"), default="auto",
        help="learned if the checkpoint has pos_embed, else rotary [auto]",
    )  # fmt: skip
    parser.add_argument("--routing", choices=("topk", "none"), default="topk", help="[topk]")
    parser.add_argument(
        "--neighborhood", type=pathlib.Path, help="TOML file of a Neighborhood [the published one]"
    )
    parser.add_argument(
        "--ignore", nargs="+", default=(), metavar="NAME", help="tensors that are not wanted"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.models.published import PublishedOptions
    from lwmt_sionna.ops import Neighborhood
    from lwmt_sionna.runs.configuration import from_toml

    neighborhood = Neighborhood.published()
    if args.neighborhood is not None:
        neighborhood = from_toml(Neighborhood, args.neighborhood)
    options = PublishedOptions(
        num_heads=args.num_heads,
        grid=None if args.grid is None else tuple(args.grid),
        patch=None if args.patch is None else tuple(args.patch),
        position=args.position,
        routing=None if args.routing == "none" else args.routing,
        neighborhood=neighborhood,
        ignore=tuple(args.ignore),
    )
    model = convert(args.checkpoint, args.out, options)
    backbone = model.backbone
    print(  # noqa: T201 - the program's one line of output
        f"{args.out}: {model.count_params()} parameters, width {backbone.width}, depth "
        f"{backbone.depth}, {backbone.position_kind} positions, class token: "
        f"{'yes' if backbone.neighborhood.class_token else 'no'}"
    )


def _read_torch(path):
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|class|function)\s+([\w.]+\.[\w.]+)", str(error))
        what = f"the object {found[1]}" if found else "objects that are no tensors"
        raise ValueError(
            f"The file is refused: it would load {what}; expected tensors alone. Received: {path}"
        ) from error
    except (EOFError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"The file is no PyTorch checkpoint, or damaged: {error}. Received: {path}"
        ) from error


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"The file is refused: {error}. Received: {path}") from error


def _to_array(tensor):
    """Float array of a tensor of PyTorch or NumPy, or None."""
    if isinstance(tensor, np.ndarray):
        return tensor if tensor.dtype.kind == "f" else None
    if not (hasattr(tensor, "is_floating_point") and tensor.is_floating_point()):
        return None
    # Sparse or quantised tensors have no place here; half precisions that NumPy lacks become float.
    tensor = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    if str(tensor.dtype) not in ("torch.float32", "torch.float64"):
        tensor = tensor.float()
    return tensor.numpy()


if __name__ == "__main__":
    command_line.run(main)
