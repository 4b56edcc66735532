"""The engine on a real language model: SmolLM2-135M and a tuned variant of it."""
