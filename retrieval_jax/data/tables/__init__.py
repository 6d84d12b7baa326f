"""Catalogues in tables (CSV, JSON Lines, Parquet) and in eProduct's layout; what is wrong with a row."""
