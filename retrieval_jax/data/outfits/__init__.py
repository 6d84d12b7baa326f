"""Outfits: sets of listings that are worn together, questions about them, and Polyvore's own files."""
