"""Pictures that are nearly the same: by hashes for millions, by thumbnails exactly."""
