"""What a label claims: which kinds of edit, where, from which colours to which.

By word lists and patterns, for edit instructions as people and models write them. What is said to
stay is no claim. Every pattern does work in proportion to the text, times a constant.
"""

from chronoprep.labels.claims.parser import FROM_TO, INTO, Claim, Kind, claims_of, unquoted
from chronoprep.labels.claims.places import Place

__all__ = ["FROM_TO", "INTO", "Claim", "Kind", "Place", "claims_of", "unquoted"]
