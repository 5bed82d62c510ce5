"""Embeddings of tokens, snapshots and sequences."""

from keras import ops

__all__ = ["pool_embeddings"]

_PER = ("token", "snapshot", "sequence")


def pool_embeddings(embeddings, num_snapshots, per="token", class_token=False):
    """Pools the embeddings of tokens.

    Args:
        embeddings: `[batch, num_tokens, width]`, time-major, the class token last.
        num_snapshots: Number of snapshots.
        per: `"token"` (without the class token), `"snapshot"` (mean over its tokens) or
            `"sequence"` (the class token, or the mean over all tokens where there is none).
        class_token: Whether the last token is a class token.

    Returns:
        `[batch, num_tokens, width]`, `[batch, num_snapshots, width]` or `[batch, width]`.
    """
    if per not in _PER:
        raise ValueError(f"`per` must be one of {_PER}. Received: per={per!r}")
    if class_token:
        if per == "sequence":
            return embeddings[:, -1]
        embeddings = embeddings[:, :-1]
    if per == "token":
        return embeddings
    if per == "sequence":
        return ops.mean(embeddings, axis=1)
    width = embeddings.shape[-1]
    per_snapshot = embeddings.shape[1] // num_snapshots
    return ops.mean(ops.reshape(embeddings, (-1, num_snapshots, per_snapshot, width)), axis=2)
