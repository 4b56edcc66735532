"""What the operators of recipes are and take, read off their classes."""
