"""Catalogues in tables (CSV, JSON Lines, Parquet) and in eProduct's layout, with a check of every row."""
