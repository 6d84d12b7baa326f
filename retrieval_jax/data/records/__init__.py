"""Catalogues in ArrayRecord files, prepared here or by tensorflow-datasets."""
