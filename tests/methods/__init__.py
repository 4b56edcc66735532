"""Merge methods: each against its formula, its laws, and mergekit."""
