"""The trainer's speed and memory on a GPU: `make bench-train`."""
