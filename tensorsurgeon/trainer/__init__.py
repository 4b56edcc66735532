"""Continued pretraining of a checkpoint: its contract with the engine is the folder alone."""
