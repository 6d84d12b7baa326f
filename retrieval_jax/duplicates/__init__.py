"""Near-duplicate pictures: exact comparison of thumbnails, and hashes that scale it to millions."""
