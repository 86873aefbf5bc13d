"""What is wrong with a model's answer, by name; and what can be put right without asking again.

Repaired by `clean`, since nothing is lost: white space, control characters, special tokens at the
edges, and a code fence, emphasis or quotes around the whole text. Everything else that a training
prompt must not have is a `Fault`: the answer is refused, and another draw may be better.

What a prompt may ask for in another way (its opening, its length, its language, markdown) is
judged only as far as the template's `Form` says so. Text in quotation marks is text inside the
image: its words are not judged.

An answer may be of any length and of any wording: every pattern here does work in proportion to
the text, times a constant. Two rules hold that up. What may repeat without bound is followed by
what can't begin in the same way; and where a pattern may begin anywhere, the rest of it is bounded.
"""

from chronoprep.labels.guard.cleaning import clean
from chronoprep.labels.guard.rules import Fault, find_fault, is_no_change, spelled

__all__ = ["Fault", "clean", "find_fault", "is_no_change", "spelled"]
