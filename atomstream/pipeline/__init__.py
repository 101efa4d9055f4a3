"""The path of a chunk from ``push`` to the server: admission, encoder, spool writer, uploader, and the ledger."""
