"""The catalogue: names and streams in an SQLite database that can be rebuilt from the files."""
