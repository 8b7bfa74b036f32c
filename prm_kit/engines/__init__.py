"""Who continues a prefix: one generation protocol for sampling, judging, rollouts, search and RL."""
