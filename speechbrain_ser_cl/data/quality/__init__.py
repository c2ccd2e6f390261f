"""Checks of the data before training starts."""
