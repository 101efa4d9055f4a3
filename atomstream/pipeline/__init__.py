"""The path of a chunk: gate -> encoder -> (spool) -> uploader, and the ledger of what became of it."""
