"""Everything that touches the operating system: files, logs, memory, scheduling."""
