"""How sure a model was of an answer, from what it gives for each token as it writes."""

from __future__ import annotations

from collections.abc import Sequence

from chronoprep.data import Likelihood


def likelihood(steps: Sequence[tuple[str, float]], text: str) -> Likelihood | None:
    """Sums up the tokens that an answer is made of; None where they are not among the steps.

    Args:
        steps: Each token's text and log-probability, those of thoughts and of the end included.
        text: The answer as it is kept.
    """
    start = "".join(token for token, _ in steps).rfind(text) if text else -1
    if start < 0:
        return None
    kept, at = [], 0
    for token, chance in steps:
        if at < start + len(text) and at + len(token) > start:
            kept.append((chance, token))
        at += len(token)
    worst, named = min(kept)
    return Likelihood(round(sum(c for c, _ in kept) / len(kept), 4), round(worst, 4), named)
