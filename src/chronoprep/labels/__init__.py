"""Labels: two stages over any vision-language model, the guard, the prompts, what is stale."""
