"""A language model as a judge of steps, asked over any OpenAI-compatible endpoint."""
