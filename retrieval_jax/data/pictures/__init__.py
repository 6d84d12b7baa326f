"""From a picture's bytes to the array that a network sees."""
