"""LoRA adapters: applied in the stream as PEFT merges them, and refused where they do not fit."""
