"""Titles in, attribute ids out: pseudo-attributes, used in place of labels."""
