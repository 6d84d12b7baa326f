"""Files and folders: written whole, locked, kept in step with a URL."""
