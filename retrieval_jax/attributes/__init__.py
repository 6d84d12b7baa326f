"""Titles in, attribute ids out: the pseudo-attributes that stand in for labels."""
