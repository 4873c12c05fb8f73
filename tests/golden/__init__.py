"""Formats and orders that stay as they are."""
