"""The review page: a desk for decisions, its pictures, its server."""
