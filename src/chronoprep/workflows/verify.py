"""Are the labels right? What changed between the images is measured, and held against the texts.

Each label's judgement is an event, made anew only for another text, other images or other rules.
What needs all of them (what places mean here, percentiles, thresholds, texts that come again and
again) follows from the events each time.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from chronoprep import digest, vlm
from chronoprep.config import Settings
from chronoprep.data import Finding, Flaw, Outcome
from chronoprep.dataset import (
    NO_TEXT,
    Entry,
    Event,
    Score,
    State,
    Text,
    same_images,
    text_digest,
)
from chronoprep.errors import PairError
from chronoprep.labels import rules
from chronoprep.labels.judge import Judge, Judged, JudgeTask
from chronoprep.labels.scoring import (
    ENOUGH,
    Threshold,
    calibrated,
    combined,
    percentiles,
    together,
    unsure,
)
from chronoprep.labels.vocabulary import Spot, Vocabulary
from chronoprep.rows import Rows
from chronoprep.workflows.faults import finding
from chronoprep.workflows.label import needs_of, recipe_of
from chronoprep.workflows.progress import Summary
from chronoprep.workflows.stage import Run, failure
from chronoprep.workflows.verifier import UNREAD, Verifier, VerifyTask
from chronoprep.workflows.videos import look_of

RULES = f"rules@{rules.VERSION}"
MODEL = "model:"  # begins the name of a model that judged
_COLLAPSE = (5, 0.004)  # a text that so many labels share, and such a share of all
_OWN_PLACE, _OWN_UNCLAIMED = 0.95, 0.8  # weights of what the dataset's own words for places say


class Verdict(NamedTuple):
    """What is said of a label that stands.

    Attributes:
        score: From 0 to 1, which is the worst.
        percentile: The share of labels that have a lower score, in per cent.
        suspect: Whether a human should look at it.
        reasons: In words, the weightiest first.
    """

    key: str
    score: float
    percentile: float
    suspect: bool
    reasons: tuple[str, ...]


@dataclass
class Verification:
    """What came of it all.

    Attributes:
        summaries: Of the rules, and of the model where one was asked.
        verdicts: The worst first.
        threshold: Above which score labels are suspects.
    """

    summaries: list[Summary]
    verdicts: list[Verdict]
    threshold: Threshold


def verify_run(run: Run, model: str | None = None) -> Verification:
    """Judge the labels that are not judged yet, and say what that comes to.

    Args:
        model: A VLM that judges them, too.
    """
    summaries = [_judge(run)]
    if model is not None:
        summaries.append(_ask_model(run, model))
    if run.dry_run:
        return Verification(summaries, [], Threshold(run.settings.verify.suspect_above))
    verdicts, threshold = verdicts_of(run, summaries[0])
    summaries[0].finish()
    return Verification(summaries, verdicts, threshold)


def _ask_model(run: Run, name: str) -> Summary:
    """Have a model judge the labels that it has not judged as they are."""
    chosen = run.settings.vlm.model_copy(update={"model": name})
    recipe = recipe_of(run.settings.model_copy(update={"vlm": chosen}))
    # A model that has prompts of its own knows no others.
    judge = Judge(recipe, run.settings.verify.passes, vlm.preset(chosen) == "default")
    by, own_name = f"{MODEL}{recipe.model.name}@{judge.version[:12]}", recipe.model.checkpoint.name
    summary, tasks = Summary("judged"), Rows(JudgeTask)
    captioning: list[float] = []
    for entry, state, images in _to_judge(run):
        text, label = state.text, state.label
        said = text.caption or text.cot or ""
        if any(score.by == by and same_images(score.images, images) for score in state.scores):
            summary.skipped += 1
            continue
        own = label is not None and (label.model, label.caption) == (own_name, said)
        tasks.append(JudgeTask(*entry[:3], said, "yes" if own else None))
        if label is not None and label.seconds:
            captioning.append(label.seconds)
    if tasks and not run.dry_run:
        recipe.model.check_fits()
        run.reporter.say(recipe.model.loading)
    judging: list[float] = []

    def record(outcome: Outcome[Judged]) -> Iterator[Event]:
        done = outcome.value
        if done is None:
            yield failure(outcome, "verify")
            return
        judging.append(done.seconds)
        state = run.dataset.journal.state(outcome.key, files=False)
        yield Score(
            key=outcome.key,
            of=text_digest(state.text),
            by=by,
            images=done.images,
            files=done.files,
            scores=done.signals,
            reasons=done.reasons,
        )

    run.stage("judged", tasks, judge, record, summary=summary, needs=needs_of(recipe))
    if judging and captioning:
        cost = (sum(judging) / len(judging)) / (sum(captioning) / len(captioning))
        summary.notes.append(f"judging a pair took {cost:.1f} × the time of its captioning")
    return summary


def _judge(run: Run) -> Summary:
    from chronoprep.images.lettering import installed

    summary, tasks, rules_now = Summary("verified"), Rows(VerifyTask), _rules_on(run.settings)
    reads = installed()
    for entry, state, images in _to_judge(run, summary):
        known = _judgement(state)
        if (
            known is not None
            and known.by == rules_now
            and same_images(known.images, images)
            and not (reads and UNREAD in known.scores)
        ):
            summary.skipped += 1
        else:
            tasks.append(VerifyTask(*entry[:3], *state.text))

    def record(outcome: Outcome[Score]) -> Iterator[Event]:
        yield outcome.value if outcome.value is not None else failure(outcome, "verify")

    return run.stage("verified", tasks, Verifier(run.settings, rules_now), record, summary=summary)


def _to_judge(
    run: Run, summary: Summary | None = None
) -> Iterator[tuple[Entry, State, str | None]]:
    """Pairs whose label stands and is of their images as they are now, with the images' digest.

    Args:
        summary: Takes what is left out, and why.
    """
    left_out: Counter[str] = Counter()
    for entry, state, images in run.with_images():
        if state.text == NO_TEXT or state.verdict == "reject":
            left_out["rejected" if state.verdict == "reject" else "without a label"] += 1
        elif isinstance(images, PairError):
            if summary is not None:
                summary.fail(entry.key, images.reason)
        elif not same_images(state.images, images):
            left_out["labelled for other images (`chronoprep caption` renews them)"] += 1
        else:
            yield entry, state, images
    if summary is not None:
        summary.notes += [f"not judged: {count} {why}" for why, count in sorted(left_out.items())]


def _rules_on(settings: Settings) -> str:
    """The rules, and how they see the images where that is not as usual."""
    look = look_of(settings)
    return RULES if look == look_of(Settings()) else f"{RULES}+{look[:8]}"


def _judgement(state: State) -> Score | None:
    """What the rules as they are now have said last of a text that stands."""
    if state.text == NO_TEXT or state.verdict == "reject":
        return None
    last_first = reversed(state.scores)
    return next((s for s in last_first if (s.by or "").partition("+")[0] == RULES), None)


def _opinion(state: State) -> Score | None:
    """What the last model that was asked has said of a text that stands."""
    return next((s for s in reversed(state.scores) if (s.by or "").startswith(MODEL)), None)


def _of_another(opinion: Score | None, judgement: Score) -> tuple[float, ...]:
    """Weights of what another model than the label's says against it.

    Models see edits that are not there: one that only the model sees does not count where a single
    region changed.
    """
    signals = opinion.scores if opinion is not None else {}
    told = sum(Spot(*spot).share > 0 for spot in judgement.spots)
    names = ["recaption", "judge"] + ["missing"] * (told != 1)
    return tuple(signals.get(name, 0.0) for name in names)


def trusted(run: Run) -> dict[str, bool]:
    """Which labels `min_score` trusts, of those that are judged; a human's word stands."""
    least, summary = run.settings.verify.min_score or 0.0, Summary("verified")
    return {
        verdict.key: 1 - verdict.score >= least
        or run.dataset.journal.state(verdict.key, files=False).verdict is not None
        for verdict in verdicts_of(run, summary)[0]
    }


def verdicts_of(run: Run, summary: Summary) -> tuple[list[Verdict], Threshold]:
    """What the judgements of all labels come to, the worst label first.

    Args:
        summary: Takes what is to be said of the dataset as a whole.
    """
    vocabulary, texts = Vocabulary(), Counter[bytes]()
    for _, _, judgement, text in _judged(run):
        vocabulary.add(judgement.places, [Spot(*spot) for spot in judgement.spots])
        texts[_normal(text)] += 1
    vocabulary.learn()
    keys, edits, humans = list[str](), list[str | None](), list[str | None]()
    ruled, doubted, unread = array("d"), list[float | None](), 0
    for key, state, judgement, _ in _judged(run):
        summary.findings += [finding(Flaw(*flaw), key) for flaw in judgement.flaws]
        keys.append(key)
        edits.append(judgement.edit)
        humans.append(state.verdict)
        opinion = _opinion(state)
        weights = (*_of_places(judgement, vocabulary), *_of_another(opinion, judgement))
        ruled.append(together([*judgement.scores.values(), *weights]))
        doubted.append(unsure(_worst(state), opinion.scores if opinion is not None else {}))
        unread += UNREAD in judgement.scores
    _note_collapse(run, texts, summary)
    if unread:
        summary.notes.append(
            f"{unread} quote lettering that was not read: pip install 'chronoprep[ocr]'"
        )
    scores = combined(ruled, doubted)
    threshold = _threshold(run.settings, scores, edits, humans, summary)
    # Ranks alone say nothing of right and wrong: without humans, the rules decide.
    deciding = scores if threshold.accepted else ruled
    order = sorted(range(len(keys)), key=lambda at: (-scores[at], keys[at]))
    places = percentiles(scores) if scores else []
    return [
        Verdict(
            keys[at],
            round(scores[at], 4),
            round(places[at], 2),
            humans[at] is None and deciding[at] > threshold.of(edits[at]),
            _reasons(run, keys[at], vocabulary),
        )
        for at in order
    ], threshold


def _judged(run: Run) -> Iterator[tuple[str, State, Score, Text]]:
    journal = run.dataset.journal
    for entry in run.entries:
        state = journal.state(entry.key, files=False)
        judgement = _judgement(state)
        if judgement is not None:
            yield entry.key, state, judgement, state.text


def _of_places(judgement: Score, vocabulary: Vocabulary) -> tuple[float, float]:
    """Weights of what the words for places, as they are used here, say against a label."""
    spots = [Spot(*spot) for spot in judgement.spots]
    misses = vocabulary.misses(judgement.places, spots)
    return _OWN_PLACE * misses, _OWN_UNCLAIMED * vocabulary.unclaimed(judgement.places, spots)


def _reasons(run: Run, key: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    state = run.dataset.journal.state(key, files=False)
    judgement, opinion = _judgement(state), _opinion(state)
    if judgement is None:
        return ()
    missed, unclaimed = _of_places(judgement, vocabulary)
    reasons = list(judgement.reasons)
    said = " and ".join(dict.fromkeys(judgement.places))
    if missed > 0.5 and "side" not in judgement.scores:
        reasons.append(f"says {said}; nothing changed where other labels mean that")
    if unclaimed > 0.5 and "unclaimed" not in judgement.scores:
        reasons.append(f"says {said}; something changed elsewhere, too")
    return (*reasons, *(opinion.reasons if opinion is not None else ()))


def _worst(state: State) -> float | None:
    """The log-probability of the worst token of the text that stands, where the captioner told."""
    label = state.label
    if (
        label is None
        or label.likelihood is None
        or state.text != (label.caption, label.caption_cot)
    ):
        return None
    return min(likelihood.worst for likelihood in label.likelihood.values())


def _threshold(
    settings: Settings,
    scores: list[float],
    edits: list[str | None],
    humans: list[str | None],
    summary: Summary,
) -> Threshold:
    wanted = settings.verify.false_alarms
    if wanted is None:
        return Threshold(settings.verify.suspect_above)
    judged = zip(scores, edits, humans, strict=True)
    accepted = [(score, edit) for score, edit, verdict in judged if verdict == "accept"]
    threshold = calibrated(accepted, wanted)
    if threshold is not None:
        return threshold
    summary.findings.append(
        Finding(
            "uncalibrated", "warning", None,
            f"--false-alarms needs {ENOUGH} labels that a human accepted; there are "
            f"{len(accepted)}: suspects are those above {settings.verify.suspect_above}",
            "Review some more labels, a random choice of them, and run it again.",
        )
    )  # fmt: skip
    return Threshold(settings.verify.suspect_above)


def _normal(text: Text) -> bytes:
    words = re.findall(r"[^\W_]+", f"{text.caption or text.cot}".casefold())
    return bytes.fromhex(digest.of_text(" ".join(words), 8))


def _note_collapse(run: Run, texts: Counter[bytes], summary: Summary) -> None:
    """Say so where one text is the label of suspiciously many pairs."""
    fewest, share = _COLLAPSE
    least = max(fewest, share * texts.total())
    often = {text for text, count in texts.items() if count >= least}
    shown: dict[bytes, str] = {}
    for _, state, _, text in _judged(run) if often else ():
        normal = _normal(text)
        if normal in often and state.status != "no_change":
            shown.setdefault(normal, text.caption or text.cot or "")
    for normal, words in shown.items():
        summary.findings.append(
            Finding(
                "same-label", "warning", None,
                f"{texts[normal]} of {texts.total()} labels say: {words[:100]}",
                "A model that answers the same again and again may not have seen the images.",
            )
        )  # fmt: skip
