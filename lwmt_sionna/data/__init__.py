"""Stored propagation paths, and the channel sequences made from them."""

from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.beams import beam_power, best_beams, check_same_tracks, dft_codebook
from lwmt_sionna.data.channels import (
    ChannelSequences,
    as_channels,
    axes_fault,
    check_channels,
    import_channels,
    join_channels,
    read_channels,
    true_channels,
    vanishing_mask,
    write_channels,
)
from lwmt_sionna.data.clusters import ClusterConfig, draw_clusters
from lwmt_sionna.data.deepmimo import read_deepmimo
from lwmt_sionna.data.events import event_mask, event_power, match_paths
from lwmt_sionna.data.evolution import evolve, interpolate, replay, retime
from lwmt_sionna.data.paths import PathSequences, concatenate, tracer_of
from lwmt_sionna.data.splits import (
    check_disjoint,
    split_by_trajectory,
    take_trajectories,
    track_distance,
)
from lwmt_sionna.data.storage import (
    check_file,
    merge_paths,
    read_paths,
    read_sequences,
    write_paths,
)
from lwmt_sionna.data.summary import spreads, summarize
from lwmt_sionna.data.synthesis import (
    add_noise,
    history_scale,
    sparse_mask,
    subcarrier_frequencies,
    synthesize,
)
from lwmt_sionna.data.validation import check_values, validate

__all__ = [
    "ChannelSequences",
    "ClusterConfig",
    "PathSequences",
    "PlanarArray",
    "add_noise",
    "as_channels",
    "axes_fault",
    "beam_power",
    "best_beams",
    "check_channels",
    "check_disjoint",
    "check_file",
    "check_same_tracks",
    "check_values",
    "concatenate",
    "dft_codebook",
    "draw_clusters",
    "event_mask",
    "event_power",
    "evolve",
    "history_scale",
    "import_channels",
    "interpolate",
    "join_channels",
    "match_paths",
    "merge_paths",
    "read_channels",
    "read_deepmimo",
    "read_paths",
    "read_sequences",
    "replay",
    "retime",
    "sparse_mask",
    "split_by_trajectory",
    "spreads",
    "subcarrier_frequencies",
    "summarize",
    "synthesize",
    "take_trajectories",
    "tracer_of",
    "track_distance",
    "true_channels",
    "validate",
    "vanishing_mask",
    "write_channels",
    "write_paths",
]
