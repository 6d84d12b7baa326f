"""Catalogues in ArrayRecord or Parquet files, prepared by this project or by tensorflow-datasets."""
