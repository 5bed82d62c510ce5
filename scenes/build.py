"""Build the scenes of this folder again, or a city of one's own.

Every folder with a `city.toml` is built from it: scene.xml, meshes, city.json, README.md, and the
thumbnail with --thumbnails. The same parameters give the same files (the thumbnail up to noise).

Example:
    python scenes/build.py --thumbnails
    python scenes/build.py --kind manhattan_grid --seed 8 --set height=[20,120] --out data/my_city
"""

import pathlib
import tomllib

from lwmt_sionna.rt.cities import CITIES, build_city, city_config
from lwmt_sionna.runs import command_line
from lwmt_sionna.runs.records import atomic_path

HERE = pathlib.Path(__file__).resolve().parent


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("names", nargs="*", help="folders of scenes/ to build [all of them]")
    parser.add_argument("--kind", choices=list(CITIES), help="build a new city of this kind")
    parser.add_argument("--seed", type=int, default=1, help="seed of a new city [1]")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of a new city, the value as in TOML",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="folder of a new city, or in place of scenes/ for the others",
    )
    parser.add_argument("--thumbnails", action="store_true", help="render thumbnail.png too")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    if args.kind is not None:
        if args.out is None or args.names:
            raise command_line.UsageError(
                "--kind wants --out, the folder of the new city, and no names"
            )
        values = {"kind": args.kind, "seed": args.seed, **_settings(args.set)}
        _build(args.out, city_config(values), "A city of its own parameters.", args.thumbnails)
        return
    known = sorted(path.parent.name for path in HERE.glob("*/city.toml"))
    unknown = sorted(set(args.names) - set(known))
    if unknown or args.set:
        raise command_line.UsageError(
            f"expected some of {', '.join(known)}; --set goes with --kind. Received: "
            f"{' '.join([*unknown, *args.set])}"
        )
    for name in args.names or known:
        source = HERE / name / "city.toml"
        folder = HERE / name if args.out is None else args.out / name
        about = source.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        _build(folder, city_config(source), about, args.thumbnails)


def _settings(pairs):
    try:
        return tomllib.loads("\n".join(pairs))
    except tomllib.TOMLDecodeError as error:
        raise command_line.UsageError(
            f"--set wants KEY=VALUE with the value as in TOML: {error}. Received: {pairs}"
        ) from error


def _build(folder, config, about, thumbnail):
    facts = build_city(config, folder)
    _write_readme(folder, facts, about)
    if thumbnail:
        from lwmt_sionna.rt import load_scene, render_scene

        # 3.5 GHz: every material of the builders is defined there.
        loaded = load_scene(folder / "scene.xml", 3.5e9)
        render_scene(
            loaded,
            folder / "thumbnail.png",
            base_stations=facts["base_stations"],
            resolution=(560, 360),
            num_samples=256,
            num_colors=160,
        )
    print(
        f"{folder}: {facts['num_buildings']} buildings, {facts['num_faces']} faces, "
        f"{facts['extent'][0]:.0f} x {facts['extent'][1]:.0f} m"
    )


def _write_readme(folder, facts, about):
    x, y, z = facts["extent"]
    places = "\n".join(
        f"- {', '.join(f'{c:g}' for c in place)}" for place in facts["base_stations"]
    )
    text = f"""# {folder.name}

{about}

![{folder.name}](thumbnail.png)

| | |
|---|---|
| kind | `{facts["config"]["kind"]}`, seed {facts["config"]["seed"]} |
| extent | {x:g} x {y:g} m, {z:g} m high |
| buildings | {facts["num_buildings"]} (a row of houses wall to wall is one) |
| triangles | {facts["num_faces"]} |
| materials | {", ".join(facts["materials"])} |
| objects that may move | {len(facts["cars"])} cars |

Places for base stations (x, y, z in metres):

{places}

Origin: synthetic, no map or mesh of others went into it; made by `scenes/build.py`, parameters in
`city.json`. Licence: Apache-2.0, as the rest of this repository.
"""
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command_line.run(main)
