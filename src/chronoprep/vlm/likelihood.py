"""How sure a model was of an answer, from what it gives for each token as it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chronoprep.data import Likelihood


def summed(chances: Sequence[float], name: Callable[[int], str]) -> Likelihood | None:
    """Sums up the log-probabilities of an answer's tokens; None where there are none.

    Args:
        name: The text of the token at a place.
    """
    if not chances:
        return None
    worst = min(range(len(chances)), key=chances.__getitem__)
    mean = sum(chances) / len(chances)
    return Likelihood(round(mean, 4), round(chances[worst], 4), name(worst))


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
            kept.append((token, chance))
        at += len(token)
    return summed([chance for _, chance in kept], lambda place: kept[place][0])
