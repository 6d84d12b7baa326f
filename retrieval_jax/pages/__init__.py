"""Pages for people to look at: sections of the report, charts, rows of pictures, mined attributes."""
